"""A file profiled, beside a reference if there is one: ``profile.html`` and ``profile.json``."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from connectors.cleaning.run import without_empty
from connectors.cleaning.sample import Sample, SampleLimits, sample_file
from connectors.files import atomic_path
from tasks.cleaning.contract.model import Contract
from tasks.cleaning.ingest.options import ReadOptions
from tasks.cleaning.profile.drift.columns import DriftConfig
from tasks.cleaning.profile.drift.table import Drift, drift, drift_by_segment
from tasks.cleaning.profile.table import ProfileConfig, TableProfile, plain, profile
from tasks.cleaning.report.profile import ProfilePage, build_profile_page

PAGE, RECORD = "profile.html", "profile.json"


@dataclass(frozen=True, slots=True)
class ProfileOptions:
    """How a file is profiled.

    Attributes:
        profile: How much is looked at.
        drift: What counts as drift.
        limits: How much of a file is kept.
        segment: Column whose values are held against the reference one by one, "" for none.
    """

    profile: ProfileConfig | None = None
    drift: DriftConfig | None = None
    limits: SampleLimits | None = None
    segment: str = ""


@dataclass(frozen=True, slots=True)
class Profiled:
    """What came of it.

    Attributes:
        page: The HTML page.
        record: The JSON beside it.
        sample: The rows looked at.
        profile: What they show.
        drift: Against the reference, None without one.
        segments: Frame of ``DRIFT`` of segments, None without them.
    """

    page: Path
    record: Path
    sample: Sample
    profile: TableProfile
    drift: Drift | None
    segments: pl.DataFrame | None


def profile_file(
    path: Path,
    folder: Path,
    *,
    reference: Path | None = None,
    contract: Contract | None = None,
    how: ProfileOptions | None = None,
    options: ReadOptions | None = None,
    now: datetime | None = None,
) -> Profiled:
    """Profile a file and write the page and its record, each whole or not at all.

    Args:
        path: Any file that ``connectors.tables`` reads.
        folder: Where to write; made if absent.
        reference: A file that the table should look like; None for none.
        contract: What columns hold and must be; inferred, and nothing, if None.
        how: How it is profiled.
        options: What is known of the files.
        now: The present, for the page.

    Raises:
        TableReadError: When a file cannot be read at all.
        ValueError: When the segment's column is missing, or there is no reference for it.
    """
    how, now = how or ProfileOptions(), now or datetime.now(UTC)
    if how.segment and reference is None:
        raise ValueError("segments are compared with a reference: name one")
    sample, frame = _read(path, options, how)
    shown = profile(frame, path.name, contract, how.profile)
    # Outliers count within the sample; on the page rows count in the file.
    in_file = pl.Series("row", sample.rows, pl.Int64).gather(shown.outliers["row"])
    shown = replace(shown, outliers=shown.outliers.with_columns(in_file))
    found, segments, note = None, None, ""
    if reference is not None:
        usual, usual_frame = _read(reference, options, how)
        note = usual.note
        found = drift(usual_frame, frame, how.drift, contract=contract)
        if how.segment:
            segments = drift_by_segment(
                usual_frame, frame, how.segment, how.drift, contract=contract
            )
            found = replace(found, segment=how.segment)
    page = ProfilePage(
        profile=shown,
        time=now,
        rows_in=sample.rows_in,
        quarantined=sample.quarantined,
        sampled=sample.note,
        drift=found,
        segments=segments,
        reference=reference.name if reference else "",
        reference_note=note,
        contract=contract.detector_version if contract else "",
    )
    done = Profiled(folder / PAGE, folder / RECORD, sample, shown, found, segments)
    with atomic_path(done.page) as html, atomic_path(done.record) as record:
        html.write_text(build_profile_page(page), encoding="utf-8")
        record.write_text(json.dumps(_record(page, done), allow_nan=False), encoding="utf-8")
    return done


def _read(
    path: Path, options: ReadOptions | None, how: ProfileOptions
) -> tuple[Sample, pl.DataFrame]:
    sample = sample_file(path, options, how.limits)
    return sample, without_empty(sample.frame)


def _record(page: ProfilePage, done: Profiled) -> dict[str, Any]:
    return {
        "version": 1,
        "time": page.time.isoformat(),
        "rows_in": page.rows_in,
        "quarantined": dict(page.quarantined),
        "sampled": page.sampled,
        "contract": page.contract,
        "profile": done.profile.as_record(),
        "reference": page.reference,
        "reference_sampled": page.reference_note,
        "drift": done.drift.as_record() if done.drift else None,
        "segments": None if done.segments is None else plain(done.segments.to_dicts()),
    }
