"""Which test images show best what a detector can do and cannot."""

from __future__ import annotations

import numpy as np

from tasks.defects.audit.record import Judged
from tasks.defects.judgement import Thresholds

MOST = 9
"""Images of one kind of example."""


def examples(tested: Judged, at: Thresholds) -> dict[str, list[int]]:
    """Return places of test images by what they are examples of; groups without any are left out.

    ``surest-finds`` have the highest scores, ``missed`` are judged OK, ``rejected`` NG, the worst
    first; ``typical-defective`` and ``typical-good`` lie around the middle of their scores.
    """
    order = np.argsort(tested.scores, kind="stable")
    bad = [int(i) for i in order if tested.samples[i].label == "ng"]
    good = [int(i) for i in order if tested.samples[i].label == "ok"]
    verdicts = [at.verdict(float(score)) for score in tested.scores]
    found = {
        "surest-finds": bad[::-1],
        "missed": [i for i in bad if verdicts[i] == "OK"],
        "rejected": [i for i in reversed(good) if verdicts[i] == "NG"],
        "typical-defective": _middle(bad),
        "typical-good": _middle(good),
    }
    return {name: places[:MOST] for name, places in found.items() if places}


def _middle(places: list[int]) -> list[int]:
    start = max(0, (len(places) - MOST) // 2)
    return places[start : start + MOST]
