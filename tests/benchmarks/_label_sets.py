"""Label sets of the label-errors benchmark: rater-checked ones, injected errors, made-up tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tasks.cleaning.labels.scores import checked, fitted_temperature, given, softened

SETS = ("cifar10", "mnist", "imdb", "20news")
KEPT = 3  # raters of five who must keep the given label, or it is an error
IMDB_INDEX = "imdb_test_set_index_to_filename.json"
INJECTIONS = ("uniform", "confusable", "anywhere", "ambiguous")


@dataclass(frozen=True)
class LabelSet:
    """Labels [N], probabilities [N, K]; rows the raters looked at [C] and what they found [C]."""

    y: np.ndarray
    p: np.ndarray
    rows: np.ndarray
    wrong: np.ndarray


def read_set(folder: Path, name: str) -> LabelSet:
    """Read one set; ``rows`` is empty where verdicts cannot be brought to rows."""
    y, p = checked(np.load(folder / f"{name}_labels.npy"), np.load(folder / f"{name}_pyx.npy"))
    verdicts = json.loads((folder / f"{name}_mturk.json").read_text(encoding="utf-8"))
    rows = _rows(folder, [v["id"] for v in verdicts])
    known = np.array([row is not None for row in rows])
    wrong = np.array([v["mturk"]["given"] < KEPT for v in verdicts])[known]
    return LabelSet(y, p, np.array([r for r in rows if r is not None], dtype=np.int64), wrong)


def _rows(folder: Path, ids: Sequence[int | str]) -> list[int | None]:
    """Return row numbers; names of files need the index that their publisher keeps apart."""
    if not any(isinstance(i, str) for i in ids):
        return [int(i) for i in ids]
    index = folder / IMDB_INDEX
    if not index.is_file():
        return [None] * len(ids)
    names = [Path(n).with_suffix("") for n in json.loads(index.read_text(encoding="utf-8"))]
    once = {n: row for row, n in enumerate(names) if names.count(n) == 1}
    return [once.get(Path(*Path(str(i)).parts[-2:])) for i in ids]


def inject(
    y: np.ndarray, p: np.ndarray, kind: str, rng: np.random.Generator, share: float = 0.02
) -> tuple[np.ndarray, np.ndarray]:
    """Return labels with ``share`` of them made wrong, and which [N].

    Args:
        y: Labels [N].
        p: Probabilities [N, K]; they stay, as if few wrong labels hardly moved the model.
        kind: ``uniform``: confident rows (all but the least confident fifth of their class that
            the model gets right), any other class; ``confusable``: the same rows, classes the
            model finds likely; ``anywhere``: all rows it gets right; ``ambiguous``: those by
            how unsure it is; both with likely classes.
        rng: Source of randomness.
        share: How many labels.
    """
    n, classes = p.shape
    chosen, right = given(y, p), p.argmax(axis=1) == y
    soft = softened(p, fitted_temperature(y, p))
    if kind == "anywhere":
        weight = right.astype(float)
    elif kind == "ambiguous":
        weight = right * (1 - given(y, soft))
    else:
        weight = np.zeros(n)
        for k in range(classes):
            mine = (y == k) & right
            if mine.any():
                weight[mine & (chosen >= np.quantile(chosen[mine], 0.2))] = 1
    rows = rng.choice(n, int(share * n), replace=False, p=weight / weight.sum())
    noisy, wrong = y.copy(), np.zeros(n, dtype=bool)
    for row in rows:
        to = np.ones(classes) if kind == "uniform" else np.sqrt(soft[row])
        to[y[row]] = 0
        noisy[row] = rng.choice(classes, p=to / to.sum())
    wrong[rows] = True
    return noisy, wrong


@dataclass(frozen=True)
class MadeUp:
    """A table with known label noise: features and labels to train on and, clean, to test on."""

    x: np.ndarray
    given: np.ndarray
    clean: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray


def made_up(rows: int, seed: int, rate: float = 0.15, classes: int = 4) -> MadeUp:
    """Return clusters of rows in ten columns; ``rate`` of labels moved, mostly to one neighbour.

    Two clusters make up a class, so that a straight line does not part them; columns have a few
    missing values. Twice as many rows as there are to train on test.
    """
    rng = np.random.default_rng(seed)
    centres = rng.normal(0, 1.0, (2 * classes, 10))
    cluster = rng.integers(0, 2 * classes, 3 * rows)
    x = centres[cluster] + rng.normal(0, 0.9, (3 * rows, 10))
    x[rng.random(x.shape) < 0.02] = np.nan
    y = cluster % classes
    step = np.where(rng.random(rows) < 0.7, 1, rng.integers(1, classes, rows))
    noisy = np.where(rng.random(rows) < rate, (y[:rows] + step) % classes, y[:rows])
    return MadeUp(x[:rows], noisy, y[:rows], x[rows:], y[rows:])
