"""How well types are named: on parts that they were not learned from, with floors beside it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from tasks.defects.classify.found import FoundTypes
from tasks.defects.judgement import UNKNOWN
from tasks.defects.promise.bounds import slack
from tasks.defects.promise.rates import rate
from tasks.defects.samples import Sample, parts_of

COMMONEST, EDGE = "always the commonest type", "prototypes of the edge file"
CONFIDENCE = 0.95


class _Shown(NamedTuple):
    kind: str
    part: str
    named: str
    by_edge: str


def type_figures(
    samples: Sequence[Sample],
    named: Sequence[str],
    by_edge: Sequence[str],
    types: FoundTypes,
    learned: Sequence[Sample],
) -> dict[str, Any]:
    """Return figures as plain data; a part is named right where all its images of a type are.

    Args:
        samples: Of parts that neither types nor detector were learned from; those that are not
            defective or have no type are left aside.
        named: By the classifier, one each.
        by_edge: By the prototypes of the edge file, one each.
        types: The classifier.
        learned: What it was learned from, for the floor.

    Returns:
        ``parts``, ``right``, ``low``, ``high`` (Clopper and Pearson) of all parts of learned types,
        the same of each under ``by_type`` (the intervals hold together, by Bonferroni),
        ``unknown`` the share of them that is called unknown, ``floors`` what is right without the
        classifier, ``strange`` parts of other types and how many of those are called unknown,
        ``confusion`` counts of images; ``decides`` whether the classifier names no fewer parts
        right than the edge file's prototypes.
    """
    shown = [
        _Shown(sample.kind, part, name, edge)
        for sample, part, name, edge in zip(samples, parts_of(samples), named, by_edge, strict=True)
        if sample.label == "ng" and sample.kind
    ]
    kinds = types.classifier.kinds
    known = [one for one in shown if one.kind in kinds]
    strange = [one for one in shown if one.kind not in kinds]
    counts = Counter(sample.kind for sample in learned)
    commonest = max(kinds, key=lambda kind: counts[kind])
    seen = sorted({one.kind for one in known})
    shared = 1.0 - slack(CONFIDENCE) / max(len(seen), 1)
    called = Counter((one.kind, one.named) for one in shown)
    columns = sorted({name for _, name in called})
    by_prototypes = sum(_right([one._replace(named=one.by_edge) for one in known]).values())
    return {
        **_told("all", known, CONFIDENCE),
        "by_type": [_told(k, [one for one in known if one.kind == k], shared) for k in seen],
        "unknown": sum(one.named == UNKNOWN for one in known) / max(len(known), 1),
        "floors": {
            COMMONEST: sum(_right([one._replace(named=commonest) for one in known]).values()),
            EDGE: by_prototypes,
        },
        "strange": {
            "parts": len(_right(strange)),
            "unknown": sum(_right([one._replace(kind=UNKNOWN) for one in strange]).values()),
        },
        "confusion": {
            "columns": columns,
            "rows": {
                kind: [called[kind, name] for name in columns]
                for kind in sorted({kind for kind, _ in called})
            },
        },
        "decides": sum(_right(known).values()) >= by_prototypes,
        "view": types.view,
        "chosen_by": dict(types.chosen_by),
        "self_trained": types.classifier.self_trained,
        "left_out": dict(types.left_out),
    }


def _right(shown: Sequence[_Shown]) -> dict[tuple[str, str], bool]:
    """Return for each type of each part whether all its images are named right."""
    found: dict[tuple[str, str], bool] = {}
    for one in shown:
        key = one.kind, one.part
        found[key] = found.get(key, True) and one.named == one.kind
    return found


def _told(name: str, shown: Sequence[_Shown], confidence: float) -> dict[str, Any]:
    right = _right(shown)
    wrong = rate(name, len(right) - sum(right.values()), len(right), confidence)
    return {
        "name": name,
        "parts": wrong.parts,
        "right": wrong.parts - wrong.wrong,
        "low": 1.0 - wrong.high,
        "high": 1.0 - wrong.low,
    }
