"""Records of one explainer joined, such as those of single weeks; refused where they differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from tasks.explain.players import Players
from tasks.explain.record import Contract, ExplanationSet, RecordError

ALIKE = (
    "explainer", "method", "unit", "players", "labels", "model", "base", "background_sha256",
    "seed", "options", "thresholds",
)  # fmt: skip
"""What contracts must agree in: the joined one could say only one of two."""


def differences(one: Contract, two: Contract, names: Sequence[str] = ALIKE) -> str:
    """Say in which of some fields two contracts differ, with the values; empty where in none."""
    said = []
    for name in names:
        own, other = getattr(one, name), getattr(two, name)
        if own == other:
            continue
        long = isinstance(own, Players | tuple)
        said.append(name if long else f"{name} ({_told(own)} and {_told(other)})")
    return ", ".join(said)


def _told(value: object) -> str:
    return str(dict(value)) if isinstance(value, Mapping) else str(value) or "none"


def joined(records: Sequence[ExplanationSet]) -> ExplanationSet:
    """Join records of one explainer, such as those of single weeks.

    Keys that occur in several are numbered. Segments that not all have are dropped.

    Raises:
        RecordError: When the contracts differ (``ALIKE``), or only some records have instants.
    """
    if not records:
        raise RecordError("no record was given; name at least one")
    first = records[0].contract
    for one in records[1:]:
        differ = differences(first, one.contract)
        if differ:
            raise RecordError(
                f"the records differ in {differ}: compare explanations of one model against one "
                "background, made with the same settings and thresholds"
            )
    times = [one.times for one in records]
    if len({part is None for part in times}) > 1:
        raise RecordError("only some records have instants; explain all with them")
    keys = [key for one in records for key in one.keys]
    if len(set(keys)) < len(keys):
        keys = [f"{place}/{key}" for place, one in enumerate(records) for key in one.keys]
    shared = [s for s in records[0].segments if all(s in one.segments for one in records)]
    arrays = {
        name: np.concatenate([getattr(one, name) for one in records])
        for name in ("values", "errors", "scores", "decided", "data")
    }
    known = [part for part in times if part is not None]
    return ExplanationSet(
        replace(first, gap=max(one.contract.gap for one in records)),
        tuple(keys),
        **arrays,
        times=np.concatenate(known) if known else None,
        segments={s: tuple(v for one in records for v in one.segments[s]) for s in shared},
    )
