"""The flow that cleans a table: repaired rows, a quarantine, and an account of every change.

penstock clean run FILE does the same at once, without Prefect.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow

from connectors.cleaning.steps import clean_table, profile_table
from flows.artifacts import publish_cleaning, publish_profile


@flow(name="clean-data", timeout_seconds=5 * 3_600)
def clean_data(
    file: str,
    folder: str = "",
    contract: str = "",
    *,
    kind: str = "parquet",
    alpha: float = 0.01,
    reference: str = "",
) -> dict[str, Any]:
    """Profile a file as it comes, clean it, and publish the results in a folder in one step.

    Args:
        file: CSV, TSV, JSON lines or Parquet, also packed.
        folder: Folder of the run, beside the file if left out.
        contract: File of the contract; inferred from the table if left out.
        kind: Format of the clean rows, ``csv`` or ``parquet``.
        alpha: Share of a column's correct cells that a rule may change at most.
        reference: A file that the incoming table should look like; drift is told and stops nothing.

    Returns:
        JSON record: counts, cells changed, promised harm, findings for review, paths; under
        ``profile`` what came in.
    """
    path = Path(file)
    folder = folder or f"{path}.clean"
    profiled = profile_table(file, f"{path}.profile", contract, reference)
    publish_profile(profiled)
    record: dict[str, Any] = clean_table(file, folder, contract, kind=kind, alpha=alpha)
    publish_cleaning(record)
    return record | {"profile": profiled}
