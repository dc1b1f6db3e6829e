"""The record as one HTML page that prints well, sealed by a digest of itself."""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tasks.cleaning.report.page import render_page
from tasks.cleaning.report.svg import Drawing
from tasks.defects.audit.figures import (
    Curve,
    Side,
    Table,
    all_rates,
    error_curve,
    held_against,
    type_table,
    verdict_table,
    worst,
)
from tasks.defects.audit.plots import (
    OWN_STYLE,
    PACKAGE,
    cost_plot,
    det_plot,
    matrix_plot,
    roc_plot,
)
from tasks.defects.audit.record import PNG, AuditInputs, Facts, Pictures
from tasks.defects.judgement import Thresholds
from tasks.defects.promise.cost import OperatingPoint
from tasks.defects.promise.rates import Rate
from tasks.defects.promise.words import assumptions, sentences

MAX_PICTURE = 256 << 10
"""Bytes of a picture that is shown; eight cases of two sides have two each."""
MAX_TEXT = 400
"""Characters of any one setting, name or note."""
MAX_ROWS = 200
"""Settings, versions and notes of each kind."""
UNSEALED = "0" * 64
SEAL = re.compile(r'<code id="seal">([0-9a-f]{64})</code>')


@dataclass(frozen=True, slots=True)
class Case:
    """A test image that is shown.

    Attributes:
        name: Its path in the data.
        kind: Type of defect, "" for none.
        named: Type that was named, "" for none.
        like: Names of labelled images that it looks like.
        score: Of the detector.
        verdict: By the thresholds.
        wrong: Whether that is an error.
        plain: PNG in base64, "" for none.
        heat: With its heat map, likewise.
    """

    name: str
    kind: str
    named: str
    like: Sequence[str]
    score: float
    verdict: str
    wrong: bool
    plain: str
    heat: str


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """Everything the template shows."""

    facts: Facts
    thresholds: Thresholds
    sides: Sequence[Side]
    promise: Sequence[str]
    assumed: Sequence[str]
    rates: Sequence[Rate]
    review: float
    auroc: float
    per: str
    verdicts: Table
    types: Table | None
    naming: Mapping[str, Any]
    boxes: Mapping[str, Any]
    plots: Sequence[Drawing]
    prevalence: float
    point: OperatingPoint | None
    cheapest: OperatingPoint | None
    misses: Sequence[Case]
    rejects: Sequence[Case]
    notes: Sequence[str]
    tables: Sequence[tuple[str, Sequence[tuple[str, str]]]]
    seal: str = UNSEALED


def build_record(inputs: AuditInputs) -> str:
    """Return the record as one HTML document without script, network or other files.

    The seal is the SHA-256 of the document with 64 zeros in its place. It shows that a record was
    changed by accident or without care; whoever can make it anew can also change it, so note it
    where the record is signed.
    """
    html = render_page(PACKAGE, "audit.html", FILTERS, style=OWN_STYLE, r=_record(inputs))
    seal = f'<code id="seal">{UNSEALED}</code>'
    digest = hashlib.sha256(html.encode()).hexdigest()
    return html.replace(seal, seal.replace(UNSEALED, digest))


def seal_holds(html: str) -> bool:
    """Return whether a record is as it was sealed."""
    found = SEAL.findall(html)
    if len(found) != 1:
        return False
    unsealed = SEAL.sub(f'<code id="seal">{UNSEALED}</code>', html)
    return bool(hashlib.sha256(unsealed.encode()).hexdigest() == found[0])


def _record(inputs: AuditInputs) -> Record:
    tested, at = inputs.tested, inputs.promised.thresholds
    per = inputs.promised.promise.per
    rates, curve = all_rates(inputs), error_curve(*tested.sides(), per)
    table = verdict_table(tested, at)
    point = cheapest = None
    if inputs.cost is not None:
        point, cheapest = inputs.cost.point(at), inputs.cost.cheapest(at)
    misses, rejects = worst(tested)
    facts = inputs.facts
    return Record(
        facts,
        at,
        held_against(inputs),
        sentences(inputs.promised),
        assumptions(inputs.promised),
        rates,
        sum(row[1] for _, row in table.rows) / sum(sum(row) for _, row in table.rows),
        curve.auroc,
        per,
        table,
        type_table(tested),
        inputs.types,
        inputs.boxes,
        _curves(inputs, rates, curve),
        math.nan if inputs.cost is None else inputs.cost.prevalence,
        point,
        cheapest,
        [_case(inputs, place, "OK") for place in misses],
        [_case(inputs, place, "NG") for place in rejects],
        [_short(note) for note in inputs.notes[:MAX_ROWS]],
        [
            (title, [(_short(k), _short(str(v))) for k, v in list(rows.items())[:MAX_ROWS]])
            for title, rows in (
                ("Counts", facts.counts),
                ("Seeds", facts.seeds),
                ("Settings", facts.config),
                ("Environment", facts.environment),
            )
            if rows
        ],
    )


def plots(inputs: AuditInputs) -> list[Drawing]:
    """Return the plots of a record, and its tables of counts as plots."""
    tested, at = inputs.tested, inputs.promised.thresholds
    per = inputs.promised.promise.per
    curve = error_curve(*tested.sides(), per)
    found = _curves(inputs, all_rates(inputs), curve)
    found.append(matrix_plot("verdicts", "Images by verdict", verdict_table(tested, at)))
    if (types := type_table(tested)) is not None:
        found.append(matrix_plot("types", "Defective images by the type that was named", types))
    return found


def _curves(inputs: AuditInputs, rates: Sequence[Rate], curve: Curve) -> list[Drawing]:
    here = (rates[-1].rate, rates[0].rate)
    found = [roc_plot(curve, here), det_plot(curve, here)]
    if inputs.cost is not None:
        found.append(cost_plot(inputs.cost.curve(), inputs.promised.thresholds))
    return found


def _case(inputs: AuditInputs, place: int, wrong: str) -> Case:
    sample, score = inputs.tested.samples[place], float(inputs.tested.scores[place])
    verdict = inputs.promised.thresholds.verdict(score)
    pictures = Pictures() if inputs.draw is None else inputs.draw(place)
    plain, heat = (_picture(one, sample.name) for one in pictures)
    return Case(
        _short(sample.name),
        _short(sample.kind),
        _short(inputs.tested.named[place]) if inputs.tested.named else "",
        [_short(name) for name in inputs.tested.like[place]] if inputs.tested.like else (),
        score,
        verdict,
        verdict == wrong,
        plain,
        heat,
    )


def _picture(data: bytes, name: str) -> str:
    """Return a PNG in base64, "" for one that is too large to be shown."""
    if data and not data.startswith(PNG):
        raise ValueError(f"{name}: its picture is no PNG file; draw it as one")
    return base64.b64encode(data).decode() if len(data) <= MAX_PICTURE else ""


def _short(text: str) -> str:
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"


def _percent(share: float) -> str:
    """Write a share; NaN where nothing was looked at.

    >>> _percent(0.0), _percent(0.0123), _percent(1.0)
    ('0 %', '1.23 %', '100 %')
    """
    return "–" if math.isnan(share) else f"{100 * share:.3g} %"


def _interval(one: Rate) -> str:
    return f"{_percent(one.low)} to {_percent(one.high)}"


FILTERS: dict[str, Callable[..., str]] = {
    "count": lambda n: f"{n:,}",
    "pixel": lambda v: f"{v:.1f}",
    "score": lambda v: f"{v:.4g}",
    "precision": lambda v: f"{v:.3f}",
    "percent": _percent,
    "interval": _interval,
}
