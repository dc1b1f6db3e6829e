"""Cleaning, of tables and images, and profiling as Prefect tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import task

HOUR = 3_600.0


@task(name="clean table", timeout_seconds=4 * HOUR)
def clean_table(
    file: str, folder: str, contract: str = "", *, kind: str = "parquet", alpha: float = 0.01
) -> dict[str, Any]:
    """Clean a file and publish the results.

    Returns:
        JSON record: counts, cells changed, promised harm, findings for review, paths.

    Raises:
        ValueError: For another kind of file than csv or parquet.
    """
    from connectors.cleaning.outputs import published
    from connectors.cleaning.run import REPORT, clean_file
    from tasks.cleaning.clean import CleanConfig
    from tasks.cleaning.contract.toml import read_contract
    from tasks.cleaning.repair.engine import RepairConfig

    if kind not in {"csv", "parquet"}:
        raise ValueError(f"kind is {kind!r}; clean rows are written as csv or parquet")
    done = clean_file(
        Path(file),
        Path(folder),
        read_contract(Path(contract)) if contract else None,
        config=CleanConfig(repair=RepairConfig(alpha=alpha)),
        kind="csv" if kind == "csv" else "parquet",
        tables=Path(contract).parent if contract else None,
    )
    place = published(Path(folder))
    assert place is not None  # noqa: S101 - just published
    return {
        "source": Path(file).name,
        "counts": dict(done.counts),
        "changed": done.changes.select("row", "column").n_unique(),
        "promised_harm": done.promised_harm,
        "review": done.review.height,
        "clean": str(place.clean_path),
        "quarantine": str(place.quarantine_path),
        "report": str(place.attached(REPORT)),
    }


@task(name="clean images", timeout_seconds=4 * HOUR)
def clean_images(
    folder: str, out: str, reference: str = "", *, alpha: float = 0.01
) -> dict[str, Any]:
    """Set bad images of a folder aside and publish the results.

    Args:
        folder: Images.
        out: Folder of the results.
        reference: Good images of the line, a folder or a JSON file; "" without one.
        alpha: Share of good images that the reference may set aside.

    Returns:
        JSON record: counts, what was not judged, promised share, paths.
    """
    from connectors.cleaning.images import REPORT, clean_folder, load_reference
    from connectors.cleaning.outputs import published
    from tasks.cleaning.images.checks import ImageCheckConfig

    config = ImageCheckConfig(alpha=alpha)
    learnt = load_reference(Path(reference), config=config) if reference else None
    run = clean_folder(Path(folder), Path(out), learnt, config=config)
    place = published(Path(out))
    assert place is not None  # noqa: S101 - just published
    return {
        "source": Path(folder).name,
        "counts": run.counts,
        "not_judged": run.checked.not_judged,
        "promised": run.checked.promised,
        "clean": str(place.clean_path),
        "quarantine": str(place.quarantine_path),
        "report": str(place.attached(REPORT)),
    }


@task(name="profile table", timeout_seconds=HOUR)
def profile_table(
    file: str, folder: str, contract: str = "", reference: str = "", *, segment: str = ""
) -> dict[str, Any]:
    """Profile a file as it comes, beside a reference if there is one.

    Returns:
        JSON record: rows, columns with kind, missing share and verdict, the table's verdict, paths.
    """
    from connectors.cleaning.profile import ProfileOptions, profile_file
    from tasks.cleaning.contract.toml import read_contract

    done = profile_file(
        Path(file),
        Path(folder),
        reference=Path(reference) if reference else None,
        contract=read_contract(Path(contract)) if contract else None,
        how=ProfileOptions(segment=segment),
    )
    verdicts = done.drift.columns if done.drift else {}
    return {
        "source": Path(file).name,
        "rows_in": done.sample.rows_in,
        "sampled": done.sample.note,
        "verdict": done.drift.verdict if done.drift else "",
        "columns": [
            {
                "column": one.name,
                "kind": one.kind,
                "missing": one.missing / one.rows if one.rows else 0.0,
                "distinct": one.distinct,
                "drift": verdicts.get(one.name, ""),
            }
            for one in done.profile.columns
        ],
        "page": str(done.page),
        "record": str(done.record),
    }
