"""The review queue: every row with its given and suggested label, most doubtful first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
from numpy.typing import ArrayLike

from tasks.cleaning.findings import findings_of
from tasks.cleaning.labels.noise import fit_noise, logits, probability, reviewed_logits
from tasks.cleaning.labels.ranking import DEFAULT, doubts
from tasks.cleaning.labels.scores import Floats, checked, suggested

VERSION = "labels/1"


def review_queue(
    labels: ArrayLike,
    probabilities: ArrayLike,
    classes: Sequence[str] | None = None,
    *,
    score: str = DEFAULT,
) -> pl.DataFrame:
    """Return all rows in the order in which to review them.

    Args:
        labels: Class numbers [N].
        probabilities: Out-of-sample probabilities [N, K].
        classes: Names of the classes; their numbers if left out.
        score: A name of ``ranking.SCORES``; decides the order.

    Returns:
        ``row`` (from 0), ``given``, ``suggested``, ``score`` (doubt), ``wrong_probability``
        (:mod:`noise`; falls with the priority) and ``priority`` (1 is first; ties in row order).

    Raises:
        ValueError: What ``ranking.doubts`` refuses, or not one name per class.
    """
    y, p = checked(labels, probabilities)
    names = np.array([str(k) for k in range(p.shape[1])] if classes is None else list(classes))
    if len(names) != p.shape[1]:
        raise ValueError(f"{p.shape[1]} classes need as many names, not {len(names)}")
    doubt = doubts(y, p, score)
    order = np.argsort(-doubt, kind="stable")
    wrong = fit_noise(y, p).wrong(y, p)[order] if len(y) else doubt
    return pl.DataFrame(
        {
            "row": order.astype(np.int64),
            "given": names[y[order]].tolist(),
            "suggested": names[suggested(y, p)[order]].tolist(),
            "score": doubt[order],
            "wrong_probability": _falling(wrong),
            "priority": np.arange(1, len(y) + 1),
        },
        schema_overrides={"given": pl.String, "suggested": pl.String, "priority": pl.Int64},
    )


def _falling(wrong: Floats) -> Floats:
    """Return the closest values that never rise; sums, and so expected errors, are kept."""
    if not len(wrong):
        return wrong
    from sklearn.isotonic import IsotonicRegression

    fit = IsotonicRegression(increasing=False).fit_transform(np.arange(len(wrong)), wrong)
    return np.asarray(fit, dtype=np.float64)


def with_reviews(queue: pl.DataFrame, verdicts: Mapping[int, bool]) -> pl.DataFrame:
    """Return the queue with probabilities calibrated to reviewed rows; the order stays.

    Args:
        queue: What :func:`review_queue` returned.
        verdicts: Row -> whether the reviewer found its label wrong. Reviewing rows from all of
            the queue (not its top alone) calibrates all of it.

    Raises:
        ValueError: No verdict, or one for a row that is not in the queue.
    """
    unknown = sorted(set(verdicts) - set(queue["row"]))
    if unknown or not verdicts:
        what = f"rows {unknown[:5]} are not in the queue" if unknown else "there is no verdict"
        raise ValueError(f"cannot calibrate by reviews: {what}")
    before = logits(queue["wrong_probability"].to_numpy())
    seen = queue["row"].is_in(list(verdicts)).to_numpy()
    said = np.array([verdicts[row] for row in queue["row"].to_numpy()[seen]], dtype=bool)
    offset, slope = reviewed_logits(before[seen], said)
    after = probability(offset + slope * before)
    return queue.with_columns(pl.Series("wrong_probability", after))


def label_findings(queue: pl.DataFrame, column: str, least: float = 0.5) -> pl.DataFrame:
    """Return findings about the rows whose label is wrong with probability ``least`` or more."""
    doubtful = queue.filter(pl.col("wrong_probability") >= least).sort("row")
    return findings_of(
        doubtful.select(
            "row",
            pl.col("given").alias("observed"),
            pl.col("suggested").alias("suggestion"),
            pl.col("wrong_probability").alias("confidence"),
            pl.format("the model expects {}", "suggested").alias("expected"),
            pl.format("priority {} of {}", "priority", pl.lit(len(queue))).alias("premise"),
        ),
        column=column,
        rule="label-error",
        detector_version=VERSION,
    )
