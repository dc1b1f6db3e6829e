"""What the record tells of the test: rates, a table of verdicts, curves, worst cases."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.defects.audit.record import AuditInputs, Judged
from tasks.defects.judgement import Thresholds
from tasks.defects.promise.parts import Floats, Per, Scored, part_scores
from tasks.defects.promise.rates import Rate, escape_rates, false_reject_rate

VERDICTS = ("OK", "REVIEW", "NG")
MAX_SHOWN = 8
MAX_KINDS = 40
"""Types in a table; the rarest beyond are told together."""
OTHERS = "other types"


@dataclass(frozen=True, slots=True)
class Side:
    """A promised side, held against the test.

    Attributes:
        title: What was promised.
        alpha: Share.
        measured: In the test.
        contradicted: Whether the test's lower limit lies above what was promised.
    """

    title: str
    alpha: float
    measured: Rate
    contradicted: bool


@dataclass(frozen=True, slots=True)
class Table:
    """Counts of images.

    Attributes:
        columns: What was said.
        rows: What is true, with the counts.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[int, ...]], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """Error rates of parts over all thresholds.

    Attributes:
        false_rejects: float64 [points] share of good parts from the threshold on, rising.
        misses: float64 [points] share of defective parts below it, falling.
        auroc: Area under the curve of found defects over false rejects.
    """

    false_rejects: Floats
    misses: Floats
    auroc: float


def held_against(inputs: AuditInputs) -> list[Side]:
    """Return each promised side with what the test measured of it."""
    ng, ok = inputs.tested.sides()
    promised = inputs.promised
    per, at = promised.promise.per, promised.thresholds
    rates = {one.name: one for one in escape_rates(ng, at, per=per)}
    found = []
    for one in promised.kept:
        if one.side == "escape":
            measured = rates.get(one.kind or "all", Rate(one.kind, 0, 0, 0.0, 1.0))
            title = f"escapes of type {one.kind}" if one.kind else "escapes"
        else:
            measured, title = false_reject_rate(ok, at, per=per), "false rejects"
        found.append(Side(title, one.alpha, measured, measured.low > one.alpha))
    return found


def all_rates(inputs: AuditInputs) -> list[Rate]:
    """Return escapes of all parts and each type, then false rejects of good parts."""
    ng, ok = inputs.tested.sides()
    at, per = inputs.promised.thresholds, inputs.promised.promise.per
    return [*escape_rates(ng, at, per=per), false_reject_rate(ok, at, per=per)]


def verdict_table(tested: Judged, at: Thresholds) -> Table:
    """Return counts of images by what is true and the verdict."""
    rows: dict[str, list[int]] = {}
    common = _common([one.kind for one in tested.samples])
    for sample, score in zip(tested.samples, tested.scores, strict=True):
        if sample.label is None:
            continue
        true = "good" if sample.label == "ok" else _short(sample.kind or "defective", common)
        counts = rows.setdefault(true, [0, 0, 0])
        counts[VERDICTS.index(at.verdict(float(score)))] += 1
    return Table(VERDICTS, _sorted(rows))


def type_table(tested: Judged) -> Table | None:
    """Return counts of defective images by type and the type that was named, None without names."""
    if not tested.named:
        return None
    pairs = [
        (one.kind or "defective", name or "none")
        for one, name in zip(tested.samples, tested.named, strict=True)
        if one.label == "ng"
    ]
    common = _common([word for pair in pairs for word in pair])
    columns = sorted({_short(name, common) for _, name in pairs})
    rows: dict[str, list[int]] = {}
    for true, name in pairs:
        counts = rows.setdefault(_short(true, common), [0] * len(columns))
        counts[columns.index(_short(name, common))] += 1
    return Table(tuple(columns), _sorted(rows))


def error_curve(ng: Scored, ok: Scored, per: Per, points: int = 200) -> Curve:
    """Return the trade of misses for false rejects, at no more than so many thresholds."""
    bad = np.sort(part_scores(ng, "escape", per))
    good = np.sort(part_scores(ok, "false reject", per))
    at = np.unique(np.concatenate([bad, good]))[::-1]
    at = at[np.unique(np.linspace(0, len(at) - 1, min(points, len(at))).astype(int))]
    at = np.concatenate([[np.inf], at])
    below = np.searchsorted(good, bad) + np.searchsorted(good, bad, side="right")
    return Curve(
        1.0 - np.searchsorted(good, at) / len(good),
        np.searchsorted(bad, at) / len(bad),
        float(below.mean() / (2 * len(good))),
    )


def worst(tested: Judged) -> tuple[list[int], list[int]]:
    """Return places of the worst misses and the worst false rejects, one of each part.

    The defective images that lie lowest and the good ones that lie highest, whatever the verdict.
    """
    order = np.argsort(tested.scores, kind="stable")
    return _first(tested, order, "ng"), _first(tested, order[::-1], "ok")


def _first(tested: Judged, order: NDArray[np.int64], label: str) -> list[int]:
    seen: set[str] = set()
    found: list[int] = []
    for place in (int(i) for i in order):
        sample = tested.samples[place]
        part = sample.part or f"\0{sample.name}"
        if sample.label == label and part not in seen and len(found) < MAX_SHOWN:
            seen.add(part)
            found.append(place)
    return found


def _common(kinds: list[str]) -> set[str]:
    names, counts = np.unique(np.array(kinds, dtype=object), return_counts=True)
    return {str(names[i]) for i in np.argsort(-counts, kind="stable")[:MAX_KINDS]}


def _short(kind: str, common: set[str]) -> str:
    return kind if kind in common or kind == "defective" else OTHERS


def _sorted(rows: dict[str, list[int]]) -> tuple[tuple[str, tuple[int, ...]], ...]:
    # Good ones first, then the types by name.
    return tuple((name, tuple(rows[name])) for name in sorted(rows, key=lambda n: (n != "good", n)))
