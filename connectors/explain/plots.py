"""shap's plots of a record as PNG files."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from tasks.explain.record import ExplanationSet

KINDS = ("waterfall", "beeswarm", "bar", "scatter", "heatmap", "decision")
MOST_ROWS = 1_000
"""Rows of a plot of many; the decision plot takes a tenth."""

SHOWN = 12


def write_plots(found: ExplanationSet, folder: Path, *, case: int | None = None) -> list[Path]:
    """Draw a record by shap into ``waterfall.png``, ``beeswarm.png``, ``bar.png`` and so on.

    Args:
        found: At least one row; beeswarm and heat map need two.
        folder: Made if absent.
        case: Row of the waterfall; None: the one with the highest score.

    Returns:
        The files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    row = int(np.argmax(found.scores)) if case is None else case
    some = found
    if len(found) > MOST_ROWS:
        some = found.take(np.linspace(0, len(found) - 1, MOST_ROWS).astype(np.intp))
    draws = _draws(found, some, row)
    if len(found) < 2:
        draws = {kind: draw for kind, draw in draws.items() if kind in {"waterfall", "bar"}}
    written = []
    with _canvas() as plt:
        for kind, draw in draws.items():
            draw()
            path = folder / f"{kind}.png"
            plt.gcf().savefig(path, dpi=110, bbox_inches="tight")
            plt.close("all")
            written.append(path)
    return written


def _draws(
    found: ExplanationSet, some: ExplanationSet, row: int
) -> dict[str, Callable[[], Any]]:  # fmt: skip
    import shap

    one, many = found.take([row]).to_shap()[0], some.to_shap()
    # Of groups there is no single value: the scatter shows the strongest player that has one.
    strength = np.abs(some.values).mean(axis=0)
    alone = np.isfinite(some.shown_data()).any(axis=0)
    player = int(np.argmax(np.where(alone, strength, -1)))
    few = slice(0, MOST_ROWS // 10)
    drawn = {
        "waterfall": lambda: shap.plots.waterfall(one, max_display=SHOWN, show=False),
        "beeswarm": lambda: shap.plots.beeswarm(many, max_display=SHOWN, show=False),
        "bar": lambda: shap.plots.bar(many, max_display=SHOWN, show=False),
        "heatmap": lambda: shap.plots.heatmap(many, max_display=SHOWN, show=False),
        "decision": lambda: shap.plots.decision(
            found.contract.base, some.values[few], feature_names=list(found.contract.labels),
            show=False, ignore_warnings=True,
        ),
    }  # fmt: skip
    if alone.any():
        drawn["scatter"] = lambda: shap.plots.scatter(many[:, player], show=False)
    return drawn


@contextmanager
def _canvas() -> Iterator[Any]:
    """Draw without a screen; the caller's backend and random numbers stay as they were."""
    import matplotlib as mpl

    before = mpl.get_backend()
    numbers = np.random.get_state()  # noqa: NPY002 - shap shuffles points by the global generator
    np.random.seed(0)  # noqa: NPY002 - as above
    with warnings.catch_warnings():
        # shap 0.51 uses what matplotlib 3.11 and numpy 2 deprecate.
        warnings.simplefilter("ignore")
        mpl.use("Agg", force=True)
        import matplotlib.pyplot as plt

        try:
            yield plt
        finally:
            plt.close("all")
            mpl.use(before, force=True)
            np.random.set_state(numbers)  # noqa: NPY002 - as above
