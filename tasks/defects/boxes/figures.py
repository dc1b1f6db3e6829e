"""How well boxes are found on parts held out, beside the contours of the heat map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from tasks.defects.boxes.average_precision import Matched, average_precision, matched
from tasks.defects.boxes.fit import with_boxes
from tasks.defects.boxes.labelled import is_named, nameless
from tasks.defects.samples import Box, Sample, parts_of

RESAMPLES = 200
OVERLAP = 0.5


class _Row(NamedTuple):
    part: str
    true: Sequence[Box]
    own: Sequence[Box]
    heat: Sequence[Box]


def box_figures(
    samples: Sequence[Sample],
    found: Sequence[Sequence[Box]],
    contours: Sequence[Sequence[Box]],
    kinds: Sequence[str],
    told: float,
    seed: int = 2018,
) -> dict[str, Any]:
    """Return figures as plain data.

    Args:
        samples: Of parts that the detector of boxes was not fitted to. Defective images without
            boxes, or with boxes that lack a type where types are told, are left aside.
        found: Its boxes of each.
        contours: What the heat map gives for each.
        kinds: Types that it knows, ``("",)`` where it tells none.
        told: Score from which boxes are told beside a verdict.
        seed: Of the bootstrap.

    Returns:
        ``images`` with boxes, ``good`` images beside, ``boxes`` of known types, ``strange`` ones of
        others. With any boxes also ``map50`` with its 95 % interval ``low``, ``high`` (bootstrap by
        part), ``contours_map50``, ``by_type`` the average precisions, and ``told``: how many
        ``boxes`` reach the score ``from`` in the images with boxes, and how many are ``right``.
    """
    typed = tuple(kinds) != ("",)
    rows = []
    for sample, part, own, heat in zip(samples, parts_of(samples), found, contours, strict=True):
        known = with_boxes(sample)
        if sample.label == "ok" or (known.boxes and (not typed or is_named(known))):
            true = known if typed else nameless(known)
            rows.append(_Row(part, true.boxes, own, heat if typed else _bare(heat)))
    boxes = [box for row in rows for box in row.true]
    facts: dict[str, Any] = {
        "images": sum(bool(row.true) for row in rows),
        "good": sum(not row.true for row in rows),
        "boxes": sum(box.kind in kinds for box in boxes),
        "strange": sum(box.kind not in kinds for box in boxes),
    }
    if not facts["boxes"]:
        return facts
    by_box = {k: [matched(row.own, row.true, k, OVERLAP) for row in rows] for k in kinds}
    by_heat = {k: [matched(row.heat, row.true, k, OVERLAP) for row in rows] for k in kinds}
    seen = [kind for kind in kinds if any(one.wanted for one in by_box[kind])]
    each = {kind: average_precision(by_box[kind]) for kind in seen}
    shown = [m for own in by_box.values() for m, row in zip(own, rows, strict=True) if row.true]
    low, high = _interval(by_box, [row.part for row in rows], seed)
    return facts | {
        "map50": float(np.mean(list(each.values()))),
        "low": low,
        "high": high,
        "contours_map50": float(np.mean([average_precision(by_heat[kind]) for kind in seen])),
        "by_type": [
            {"name": kind, "boxes": sum(m.wanted for m in by_box[kind]), "ap": each[kind]}
            for kind in seen
        ],
        "told": {
            "from": told,
            "boxes": sum(int((m.scores >= told).sum()) for m in shown),
            "right": sum(int(m.right[m.scores >= told].sum()) for m in shown),
        },
    }


def box_words(facts: Mapping[str, Any]) -> str:
    """Return figures in one line."""
    if "map50" not in facts:
        return "boxes: not measured, as no image with boxes of known types was held out"
    spread = f"[{facts['low']:.3f}, {facts['high']:.3f}]"
    return (
        f"boxes: mAP50 {facts['map50']:.3f} {spread} on {facts['images']} images held out "
        f"({facts['contours_map50']:.3f} by contours of the heat map)"
    )


def _bare(boxes: Sequence[Box]) -> list[Box]:
    return [replace(box, kind="") for box in boxes]


def _interval(
    by_kind: dict[str, list[Matched]], parts: Sequence[str], seed: int
) -> tuple[float, float]:
    """Return the 95 % interval of the mean average precision; parts are drawn as a whole."""
    rng = np.random.default_rng(seed)
    _, place = np.unique(parts, return_inverse=True)
    members = [np.flatnonzero(place == one) for one in range(place.max() + 1)]
    means = []
    for _ in range(RESAMPLES):
        rows = np.concatenate(
            [members[one] for one in rng.integers(len(members), size=len(members))]
        )
        each = [[own[row] for row in rows] for own in by_kind.values()]
        labelled = [average_precision(own) for own in each if any(m.wanted for m in own)]
        if labelled:
            means.append(np.mean(labelled))
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)
