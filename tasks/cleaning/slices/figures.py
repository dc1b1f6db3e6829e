"""Figures of a cleaning run by row: what is missing, what cleaning did, which labels look wrong."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tasks.cleaning.detect.numbers import numbers_of
from tasks.cleaning.repair.number_texts import read_numbers
from tasks.cleaning.slices.groups import SliceError
from tasks.cleaning.slices.intervals import Bools
from tasks.cleaning.slices.table import Figure

CHANGED_FLOOR, HARM_FLOOR = 0.01, 0.005
MOST_CLASSES, SHOWN_CLASSES = 20, 5
MOST_LABELLED = 50_000
"""Labels that are judged at most, evenly spaced: every one is predicted by cross-validation."""


@dataclass(frozen=True, slots=True)
class RunRows:
    """All rows that a run could read, before and after.

    Attributes:
        numbers: int64 [rows] number of each in its source.
        came: Texts as they came.
        left: The same rows after all changes, quarantined ones too.
        quarantined: bool [rows] which were set aside.
    """

    numbers: NDArray[np.int64]
    came: pl.DataFrame
    left: pl.DataFrame
    quarantined: Bools


def missing_figures(frame: pl.DataFrame) -> dict[str, Figure]:
    """Return whether each cell is missing, for every column in which some are and some are not."""
    made = {}
    for name in frame.columns:
        empty = frame[name].is_null().to_numpy()
        if empty.any() and not empty.all():
            made[f"missing {name}"] = Figure(empty.astype(np.float64))
    return made


def cleaning_figures(rows: RunRows, truth: pl.DataFrame | None = None) -> dict[str, Figure]:
    """Return what cleaning did to every row.

    Args:
        rows: Of the run.
        truth: True texts of the same rows and columns, where they are known.

    Returns:
        ``quarantined`` (a rate), shares of the row's cells ``cells changed`` and ``cells emptied``;
        with the truth ``wrong before``, ``wrong after`` (rows that were kept) and ``harmed``, the
        share of the right cells that were made wrong.

    Raises:
        ValueError: When the truth has another shape.
    """
    before, after = _texts(rows.came), _texts(rows.left)
    changed = before != after
    made = {
        "quarantined": Figure(rows.quarantined.astype(np.float64)),
        "cells changed": Figure(changed.mean(axis=1), floor=CHANGED_FLOOR),
        "cells emptied": Figure((changed & (after == "")).mean(axis=1), floor=CHANGED_FLOOR),
    }
    if truth is None:
        return made
    if truth.shape != rows.came.shape:
        raise ValueError(
            f"the truth is {truth.shape}, the rows {rows.came.shape}; give the same rows and "
            "columns"
        )
    true = _texts(truth)
    right = before == true
    kept = np.where(rows.quarantined, np.nan, 1.0)
    cells = right.sum(axis=1)
    harmed = (right & (after != true)).sum(axis=1) / np.maximum(cells, 1)
    made["wrong before"] = Figure((~right).mean(axis=1), floor=CHANGED_FLOOR)
    made["wrong after"] = Figure((after != true).mean(axis=1) * kept, floor=CHANGED_FLOOR)
    made["harmed"] = Figure(np.where(cells > 0, harmed, np.nan), floor=HARM_FLOOR)
    return made


def target_figures(rows: RunRows, target: str) -> dict[str, Figure]:
    """Return what a target looks like before and after: does cleaning take one kind of rows away?

    A mean where the target has many numbers, else the share of every value (the most common ones).

    Raises:
        SliceError: For a column that is not there, or of too many texts.
    """
    _require(rows.came, target)
    kept = np.where(rows.quarantined, np.nan, 1.0)
    if is_amount(rows.left[target]):
        before, after = (read_numbers(frame[target]) for frame in (rows.came, rows.left))
        return {
            f"mean {target}, as it came": Figure(before, worse="neither"),
            f"mean {target}, clean rows": Figure(after * kept, worse="neither"),
        }
    counts = rows.left[target].drop_nulls().alias("text").value_counts()
    values = counts.sort("count", "text", descending=[True, False])["text"]
    if not 2 <= len(values) <= MOST_CLASSES:
        raise SliceError(
            f"target {target!r} has {len(values):,} different values; give a column of numbers or "
            f"of 2 to {MOST_CLASSES} values"
        )
    made = {}
    for value in values.head(1 if len(values) == 2 else SHOWN_CLASSES):
        for frame, words, part in (
            (rows.came, "as it came", np.ones(len(kept))),
            (rows.left, "clean rows", kept),
        ):
            is_it = frame[target].eq_missing(value).to_numpy().astype(np.float64)
            known = np.where(frame[target].is_null().to_numpy(), np.nan, is_it)
            made[f"{target} = {value}, {words}"] = Figure(known * part, worse="neither")
    return made


def is_amount(column: pl.Series) -> bool:
    """Tell whether a column of texts holds many numbers, and no classes."""
    numbers = numbers_of(column)
    return numbers is not None and numbers.distinct > MOST_CLASSES


def wrong_label_figure(
    queue: pl.DataFrame, rows: int, at: NDArray[np.int64] | None = None
) -> Figure:
    """Return how likely every row's label is wrong.

    The mean of a slice is its estimated rate of wrong labels. Its interval knows of the sample, not
    of the noise model: where a model is unsure of a group for other reasons, its labels look wrong.
    Reviewed rows (``labels.queue.with_reviews``) tell the two apart.

    Args:
        queue: Of ``labels.queue.review_queue``.
        rows: Rows of the table.
        at: int64 [rows of the queue] the table's row of each number in the queue; the same if None.
    """
    scores = np.full(rows, np.nan)
    places = queue["row"].to_numpy()
    scores[places if at is None else at[places]] = queue["wrong_probability"].to_numpy()
    return Figure(scores, floor=0.02)


def judged_labels(
    frame: pl.DataFrame, target: str, *, without: Collection[str] = (), seed: int = 0
) -> Figure:
    """Judge a table's labels by cross-validation over the other columns.

    Args:
        frame: Texts.
        target: Column of labels.
        without: Columns that the model does not see. Leave those out by which labels are compared:
            a model that knows the group takes a share of wrong labels there for how things are.
        seed: Of the folds and the model.

    Returns:
        Scores; rows without a label, and of classes too small to be held out, have none.

    Raises:
        SliceError: For a column that is not there, or without at least two classes of enough rows.
    """
    from tasks.cleaning.labels.crossval import out_of_sample
    from tasks.cleaning.labels.queue import review_queue
    from tasks.cleaning.labels.table import FOLDS, LEAST_OF_CLASS, table_features

    _require(frame, target)
    counts = frame[target].drop_nulls().alias("label").value_counts()
    enough = counts.filter(pl.col("count") >= LEAST_OF_CLASS)["label"]
    if not 2 <= len(enough) <= MOST_CLASSES:
        raise SliceError(
            f"target {target!r} has {len(enough):,} values in {LEAST_OF_CLASS} rows or more; "
            f"labels can be judged for 2 to {MOST_CLASSES}"
        )
    at = np.flatnonzero(frame[target].is_in(enough.to_list()).fill_null(value=False).to_numpy())
    if len(at) > MOST_LABELLED:
        at = at[np.linspace(0, len(at) - 1, MOST_LABELLED).astype(np.int64)]
    labels = frame[target].gather(at).to_list()
    seen = table_features(frame, frame.drop(target, *without).columns)[at]
    held = out_of_sample(seen, labels, folds=FOLDS, seed=seed)
    queue = review_queue(held.labels, held.probabilities, held.classes)
    return wrong_label_figure(queue, frame.height, at)


def _texts(frame: pl.DataFrame) -> NDArray[np.object_]:
    """Return texts [rows, columns]; missing equals empty."""
    return frame.select(pl.all().fill_null("")).to_numpy().astype(object)


def _require(frame: pl.DataFrame, column: str) -> None:
    if column not in frame.columns:
        raise SliceError(f"no column {column!r}; there are {', '.join(frame.columns)}")
