"""Which head ships: the one that wins on the validation folds, never looking at test folds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tasks.fraud.evaluation.protocol import FoldResult

DEFAULT_HEAD = "tabular"
CANDIDATES = ("tabular", "both")
"""Heads that may ship, simplest first: at equal figures the simpler one wins. The graph part
alone is reported beside them but never ships. Logistic regression is the baseline. The small
network is in every bundle and scores where it is asked for, but does not ship either: alerts need
reasons, and a network has no exact contributions."""


def choose_head(validation: Sequence[Mapping[str, FoldResult]]) -> tuple[str, str]:
    """Choose by mean average precision over the validation folds.

    Args:
        validation: Per fold, head name -> result.

    Returns:
        The head and the reason in words.
    """
    if not validation:
        return DEFAULT_HEAD, "no validation fold fits the data: the default head"
    present = [h for h in CANDIDATES if all(h in fold for fold in validation)]
    if not present:
        return DEFAULT_HEAD, "no candidate was judged on every validation fold: the default head"
    mean = {h: float(np.mean([fold[h].ap for fold in validation])) for h in present}
    best = max(present, key=lambda h: (mean[h], -present.index(h)))
    figures = ", ".join(f"{h} {mean[h]:.4f}" for h in present)
    return best, f"mean AP on {len(validation)} validation folds: {figures}"
