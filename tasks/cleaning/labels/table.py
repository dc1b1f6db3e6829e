"""Likely wrong labels of a table of texts, by cross-validation over its other columns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from tasks.cleaning.detect.numbers import numbers_of
from tasks.cleaning.findings import no_findings
from tasks.cleaning.labels.crossval import out_of_sample
from tasks.cleaning.labels.queue import label_findings, review_queue
from tasks.cleaning.labels.scores import Floats
from tasks.cleaning.repair.votes import MISSING, encoded

FOLDS = 5
LEAST_OF_CLASS = 2 * FOLDS
MOST_TREES_ROWS = 3_000_000
"""Rows times classes up to which the models are trained: about half a minute."""
MOST_WORDS_SHARE = 0.5  # a column of words with more distinct values per row names rows


def wrong_labels(
    frame: pl.DataFrame, column: str, features: Sequence[str], *, least: float = 0.5
) -> tuple[pl.DataFrame, list[str]]:
    """Return findings of labels that are likely wrong, and notes on what was not looked at.

    Rows without a label and of classes with fewer than LEAST_OF_CLASS rows are not judged.

    Args:
        frame: Texts.
        column: The column of labels.
        features: Columns that tell them.
        least: Findings less sure than this are left out.
    """
    labels = frame[column]
    counts = labels.drop_nulls().alias("label").value_counts()
    enough = counts.filter(pl.col("count") >= LEAST_OF_CLASS)["label"]
    if len(enough) < 2:
        return no_findings(), [
            f"labels in {column} not judged: fewer than two of them have {LEAST_OF_CLASS} rows"
        ]
    if frame.height * len(enough) > MOST_TREES_ROWS:
        size = f"{frame.height:,} rows of {len(enough)} classes"
        return no_findings(), [
            f"labels in {column} not judged: {size} are too many for a run; judge a sample"
        ]
    numbers = table_features(frame, features)
    if numbers.shape[1] == 0:
        return no_findings(), [f"labels in {column} not judged: no column tells them"]
    judged = labels.is_in(enough.implode()).fill_null(value=False).to_numpy()
    rows = np.flatnonzero(judged)
    judgement = out_of_sample(numbers[rows], labels.gather(rows).to_list(), folds=FOLDS)
    queue = review_queue(judgement.labels, judgement.probabilities, judgement.classes)
    found = label_findings(queue, column, least)
    found = found.with_columns(pl.Series("row", rows, pl.Int64).gather(found["row"]))
    few = counts.height - len(enough)
    notes = [f"{few} labels in {column} with fewer than {LEAST_OF_CLASS} rows not judged"]
    return found, notes if few else []


def table_features(frame: pl.DataFrame, columns: Sequence[str]) -> Floats:
    """Return columns as numbers [rows, features]: numbers as such, words by how often they occur.

    Words are ranked by frequency, missing cells are NaN; words that hardly repeat are left out.
    """
    made = []
    for name in columns:
        numbers = numbers_of(frame[name])
        values = np.full(frame.height, np.nan)
        if numbers is not None:
            values[numbers.rows] = numbers.values
        else:
            codes, texts = encoded(frame[name])
            filled = codes != MISSING
            if len(texts) < 2 or len(texts) > MOST_WORDS_SHARE * filled.sum():
                continue
            rank = np.argsort(np.argsort(-np.bincount(codes[filled]), kind="stable"))
            values[filled] = rank[codes[filled]]
        made.append(values)
    return np.column_stack(made) if made else np.empty((frame.height, 0))
