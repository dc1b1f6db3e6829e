"""Repair with a few labelled rows: their corrections, and what these say about other cells.

Three things are added to the repair without labels. Labelled rows get the values that were told.
Rules that labels refute are taken back. Cells that the learner takes for wrong, and for which there
is a suggestion, are changed where the bound on harm holds: over the correct cells of labelled rows,
each judged by a learner that did not see its row, of n cells e that would be changed count as
(e + 1) / (n + 1), as everywhere (``repair/bound.py``). Rows that were asked for are the doubtful
ones, so that this errs on the safe side; it takes about a hundred correct cells before it can hold.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import replace

import numpy as np
import polars as pl

from tasks.cleaning.active.learner import (
    Cells,
    LabelledRows,
    cells_of,
    probabilities,
    refuted_rules,
    texts_of,
    wrong_of,
)
from tasks.cleaning.active.rewrites import Pair, Rewrites, learned, standins
from tasks.cleaning.contract.model import Contract
from tasks.cleaning.detect.numbers import Floats
from tasks.cleaning.findings import findings_of, joined
from tasks.cleaning.repair.bound import HarmBound
from tasks.cleaning.repair.changes import apply, extended, undo
from tasks.cleaning.repair.decisions import no_decisions, undecided
from tasks.cleaning.repair.engine import RepairConfig, Repaired, promise

VERSION = "few-labels/1"
RULE = "learned"
FOLDS = 5
THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)


def repair_by_labels(
    frame: pl.DataFrame,
    done: Repaired,
    contract: Contract,
    labels: LabelledRows,
    config: RepairConfig | None = None,
    cells: Cells | None = None,
    decisions: pl.DataFrame | None = None,
) -> Repaired:
    """Go on with a repair where labels allow it.

    Args:
        frame: Texts as they came.
        done: What :func:`tasks.cleaning.repair.engine.repair` made of them.
        contract: What the table must look like.
        labels: Labelled rows; without any, ``done`` comes back.
        config: How far to go.
        cells: What :func:`cells_of` returned for the same arguments, if it is at hand.
        decisions: What a person decided about its cells (``repair/decisions.py``): what was undone
            or rejected is neither carried out nor shown again, told by labels or not.
    """
    if not len(labels.rows):
        return done
    config = config or RepairConfig()
    decisions = no_decisions() if decisions is None else decisions
    cells = cells or cells_of(frame, done, contract)
    chance = probabilities(cells, labels)
    done = _without(done, refuted_rules(cells, labels))
    told = undecided(_told(done.frame, labels), decisions)
    suggested = undecided(_suggestions(done, cells, chance, labels), decisions)
    threshold, bound = _bound(cells, labels, config.alpha)
    labelled = pl.Series("row", labels.rows, pl.Int64)
    others = ~pl.col("row").is_in(labelled.implode())
    doubtful = suggested.filter((pl.col("confidence") > 0.5) & others)
    sure = doubtful.filter(pl.col("confidence") > threshold)
    changes = done.changes
    for found in (told, sure):
        changes = extended(changes, found)
    after = apply(done.frame, told.vstack(sure).rename({"suggestion": "after"}))
    review = joined([done.review, doubtful]).filter(others)
    review = review.join(sure, on=["row", "column"], how="anti")
    bounds = dict(done.bounds) | ({RULE: bound} if sure.height else {})
    harmed = done.harmed + (bound.rate * bound.cells if sure.height else 0.0)
    return replace(
        done,
        frame=after,
        changes=changes,
        review=review,
        bounds=bounds,
        harmed=harmed,
        promised_harm=promise(harmed, frame, changes, review),
    )


def _without(done: Repaired, refuted: list[tuple[str, str]]) -> Repaired:
    """Take back the changes of rules that labels refute."""
    for column, rule in refuted:
        chosen = (pl.col("column") == column) & (pl.col("rule") == rule)
        frame, changes = undo(done.frame, done.changes, chosen)
        done = replace(done, frame=frame, changes=changes)
    return done


def _told(frame: pl.DataFrame, labels: LabelledRows) -> pl.DataFrame:
    """Return findings of the cells of labelled rows that hold something else than was told."""
    parts = []
    for name in frame.columns:
        cells = pl.DataFrame(
            {
                "row": labels.rows,
                "observed": frame[name].gather(labels.rows),
                "suggestion": labels.truth[name],
            }
        ).filter(pl.col("observed").ne_missing(pl.col("suggestion")))
        parts.append(
            findings_of(
                cells, column=name, rule="labelled", repairable=True, confidence=1.0,
                expected="what was told", premise="told by a person", detector_version=VERSION,
            )
        )  # fmt: skip
    return joined(parts)


def _suggestions(
    done: Repaired, cells: Cells, chance: Floats, labels: LabelledRows
) -> pl.DataFrame:
    """Return a finding for every unchanged cell that there is a suggestion for, at any chance."""
    columns = done.frame.columns
    waiting: dict[tuple[int, str], tuple[str, str | None]] = {}
    ranked = done.review.filter("repairable").sort("confidence", descending=True)
    for row, column, rule, text in ranked.select("row", "column", "rule", "suggestion").iter_rows():
        waiting.setdefault((row, column), (rule, text))
    shared = standins(_corrections(cells, labels))
    found = []
    for place, name in enumerate(columns):
        rewrites = _rewrites(cells, place, chance, labels, shared)
        known: dict[str, tuple[str, str] | None] = {}
        for row in np.flatnonzero(~cells.changed[:, place]).tolist():
            text = cells.dirty[row, place]
            if text is not None and text not in known:
                known[text] = rewrites.suggest(text)
            one = (known[text] if text is not None else None) or waiting.get((row, name))
            if one is not None and one[1] != text:
                found.append((row, name, text, one[1], one[0], chance[row, place]))
    frame = pl.DataFrame(
        found,
        schema={
            "row": pl.Int64, "column": pl.String, "observed": pl.String, "suggestion": pl.String,
            "by": pl.String, "confidence": pl.Float64,
        },
        orient="row",
    )  # fmt: skip
    return findings_of(
        frame.with_columns(pl.format("learned from labelled rows; {}", "by").alias("premise")),
        rule=RULE, repairable=True, expected="what labelled rows say", detector_version=VERSION,
    )  # fmt: skip


def _rewrites(
    cells: Cells, place: int, chance: Floats, labels: LabelledRows, shared: frozenset[str]
) -> Rewrites:
    """Learn the rewrites of one column."""
    wrong = wrong_of(cells, labels)[:, place]
    before = cells.dirty[labels.rows, place]
    after = np.asarray(labels.truth[:, place].to_list(), object)
    pairs = [(a, b) for a, b in zip(before[wrong], after[wrong], strict=True) if a and b]
    changed = cells.changed[:, place]
    texts = Counter(t for t in cells.repaired[:, place] if t is not None)
    # A text is taken for right where most cells that came with it are.
    came: dict[str, list[float]] = defaultdict(list)
    for text, doubt in zip(cells.dirty[~changed, place], chance[~changed, place], strict=True):
        if text is not None:
            came[text].append(doubt)
    right = {t: n for t, n in texts.items() if not came[t] or np.mean(came[t]) < 0.5}
    return learned(pairs, [t for t in before[~wrong] if t is not None], shared, right)


def _corrections(cells: Cells, labels: LabelledRows) -> list[Pair]:
    """Return what labels, and the repair by itself, put right."""
    wrong = wrong_of(cells, labels)
    pairs = list(zip(cells.dirty[labels.rows][wrong], texts_of(labels.truth)[wrong], strict=True))
    changed = cells.changed.copy()
    changed[labels.rows] = False
    pairs += list(zip(cells.dirty[changed], cells.repaired[changed], strict=True))
    return [(a, b) for a, b in pairs if a and b]


def _bound(cells: Cells, labels: LabelledRows, alpha: float) -> tuple[float, HarmBound]:
    """Return the lowest threshold whose bound on harm holds (infinite for none) and the bound.

    Every labelled row is judged by a learner that did not see it.
    """
    wrong, unchanged = wrong_of(cells, labels), ~cells.changed[labels.rows]
    correct = ~wrong & unchanged
    n = int(correct.sum())
    chance = np.zeros(wrong.shape)
    fold = np.arange(len(labels.rows)) % min(FOLDS, len(labels.rows))
    for number in range(int(fold.max()) + 1):
        held = fold == number
        rest = labels.without(held)
        chance[held] = probabilities(cells, rest if len(rest.rows) else None)[labels.rows[held]]
    total = int((~cells.changed).sum())
    for threshold in THRESHOLDS:
        rate = (int((correct & (chance > threshold)).sum()) + 1) / (n + 1)
        bound = HarmBound(max(math.ceil(rate * (total + 1)) - 1, 0), total)
        if rate <= alpha:
            return threshold, bound
    return math.inf, HarmBound(total, total)
