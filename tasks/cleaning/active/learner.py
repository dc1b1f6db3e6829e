"""Which cells are wrong, learned from labelled rows and from what the repair is sure of anyway.

Cells that the repair changed by itself are taken for errors, a draw of the others for right ones:
weak labels, which say what errors of this table look like before anybody was asked. Cells of
labelled rows count more. One logistic regression is shared by all columns. Changes themselves are
judged by rule: how many of a rule's labelled changes were right.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tasks.cleaning.active.signals import signals_of
from tasks.cleaning.contract.model import Contract
from tasks.cleaning.contract.rules import row_rules
from tasks.cleaning.detect.cells import doubtful_cells
from tasks.cleaning.detect.numbers import Bools, Floats
from tasks.cleaning.repair.engine import Repaired

MOST_WEAK = 500  # changed cells, and four times as many others, that weak labels are drawn from
LABEL_WEIGHT = 5.0
PRIOR_CHANGES = 2.0  # labelled changes that a rule's own confidence counts for
SUREST_RULE = 0.98
PULL = 1.0  # C of the regression
LEAST_SHOWN, DOUBT = 0.05, 0.25  # confidences of detectors that are features, and doubts
UNKNOWN, UNKNOWN_DOUBTED = 0.01, 0.3  # chances before any error is known
SEED = 0
ROUNDS, LOOKS_WRONG = 2, 0.2


@dataclass(frozen=True, slots=True)
class LabelledRows:
    """Rows whose right values somebody told.

    Attributes:
        rows: int64 [labelled rows] their numbers in the table, each once.
        truth: Texts [labelled rows], the table's columns.
    """

    rows: NDArray[np.int64]
    truth: pl.DataFrame

    def __post_init__(self) -> None:
        """Reject rows without their values and rows told twice."""
        if len(self.rows) != self.truth.height:
            raise ValueError(f"{len(self.rows)} labelled rows have {self.truth.height} truths")
        if len(np.unique(self.rows)) < len(self.rows):
            raise ValueError("a row is labelled twice; keep one of the two")

    def without(self, gone: Bools) -> LabelledRows:
        """Return the labels but for some rows: bool [labelled rows]."""
        return LabelledRows(self.rows[~gone], self.truth.filter(pl.Series(~gone)))


@dataclass(frozen=True, slots=True)
class Cells:
    """The cells of a table as the learner sees them.

    Attributes:
        dirty: Texts as they came, null as None: object [rows, columns].
        repaired: Texts after the repair without labels [rows, columns].
        rule: int64 [rows, columns] number of the rule that changed the cell first, -1 for none.
        rules: Column and name of every rule.
        confidence: float64 [rules] what each rule says of itself.
        before: float32 [rows, columns, F] features of the texts as they came.
        doubted: bool [rows, columns] cells that the repair left for a person.
    """

    dirty: NDArray[np.object_]
    repaired: NDArray[np.object_]
    rule: NDArray[np.int64]
    rules: tuple[tuple[str, str], ...]
    confidence: Floats
    before: NDArray[np.float32]
    doubted: Bools

    @property
    def changed(self) -> Bools:
        """Cells that the repair changed [rows, columns]."""
        return self.rule >= 0


def cells_of(frame: pl.DataFrame, done: Repaired, contract: Contract) -> Cells:
    """Describe a table and what the repair without labels made of it."""
    first = done.changes.sort("order").group_by("row", "column", maintain_order=True).first()
    sure = first.group_by("column", "rule", maintain_order=True).agg(pl.col("confidence").mean())
    names = tuple((column, name) for column, name, _ in sure.iter_rows())
    number = {name: i for i, name in enumerate(names)}
    rule = np.full(frame.shape, -1, np.int64)
    for row, column, name in first.select("row", "column", "rule").iter_rows():
        rule[row, frame.columns.index(column)] = number[column, name]
    # What was repaired is judged as it came, everything else among the repaired cells.
    shown = [doubtful_cells(its, least=LEAST_SHOWN) for its in (frame, done.frame)]
    at = pl.DataFrame({"row": first["row"], "column": first["column"]})
    found = pl.concat(
        [
            shown[0].join(at, on=["row", "column"], how="semi"),
            shown[1].join(at, on=["row", "column"], how="anti"),
        ]
    )
    before = signals_of(frame, done.frame, contract.dependencies, found).values
    doubted = _doubted(done, found, contract)
    return Cells(
        texts_of(frame), texts_of(done.frame), rule, names,
        sure["confidence"].to_numpy(), before, doubted,
    )  # fmt: skip


def _doubted(done: Repaired, found: pl.DataFrame, contract: Contract) -> Bools:
    """Return the cells that anything speaks against: no weak labels come from them."""
    doubted = np.zeros(done.frame.shape, bool)
    for part in (done.review, found.filter(pl.col("confidence") >= DOUBT)):
        for row, column in part.select("row", "column").iter_rows():
            doubted[row, done.frame.columns.index(column)] = True
    for rule in row_rules(contract.by_itself):
        if rule.column:
            broken = done.frame.select(rule.broken).to_series().to_numpy()
            doubted[:, done.frame.columns.index(rule.column)] |= broken
    return doubted


def texts_of(frame: pl.DataFrame) -> NDArray[np.object_]:
    """Return a frame's texts, missing ones as None: object [rows, columns]."""
    return np.column_stack([np.asarray(frame[name].to_list(), object) for name in frame.columns])


def wrong_of(cells: Cells, labels: LabelledRows) -> Bools:
    """Return which cells of labelled rows came wrong: bool [labelled rows, columns]."""
    return np.asarray(cells.dirty[labels.rows] != texts_of(labels.truth))


def probabilities(cells: Cells, labels: LabelledRows | None) -> Floats:
    """Return the probability that each cell came wrong [rows, columns]."""
    chance = _learned(cells, labels)
    rules = _rule_chance(cells, labels)
    chance = np.where(cells.changed, rules[cells.rule] if len(rules) else 0.0, chance)
    if labels is not None:
        chance[labels.rows] = wrong_of(cells, labels)
    return np.asarray(chance, np.float64)


def next_row(
    chance: Floats, labelled: NDArray[np.int64], among: NDArray[np.int64] | None = None
) -> int:
    """Return the row to label next: the uncertain one in the most uncertain columns.

    Args:
        chance: Result of :func:`probabilities`.
        labelled: Rows that have labels.
        among: Rows that may be asked for; all if left out.

    Raises:
        ValueError: Every one of them has a label.
    """
    from scipy.special import xlogy

    open_rows = np.setdiff1d(np.arange(len(chance)) if among is None else among, labelled)
    if len(open_rows) == 0:
        raise ValueError("every row has a label: there is none left to ask for")
    doubt = -(xlogy(chance, chance) + xlogy(1 - chance, 1 - chance))
    doubt[labelled] = 0.0
    gain = (doubt * np.sqrt(doubt.sum(0))).sum(1) + 1e-9 * chance.sum(1)
    return int(open_rows[gain[open_rows].argmax()])


def next_rows(
    cells: Cells, chance: Floats, labelled: NDArray[np.int64], number: int
) -> NDArray[np.int64]:
    """Return several rows to label before anything is learned again, the most telling first.

    What a row asked for would tell about equal texts of its columns is not asked twice.
    """
    chance, asked = chance.copy(), labelled.tolist()
    for _ in range(min(number, len(chance) - len(asked))):
        row = next_row(chance, np.array(asked, np.int64))
        asked.append(row)
        equal = cells.dirty == cells.dirty[row]
        chance[equal] = chance[equal] > 0.5
    return np.array(asked[len(labelled) :], np.int64)


def refuted_rules(cells: Cells, labels: LabelledRows) -> list[tuple[str, str]]:
    """Return column and name of the rules whose changes are rather wrong than right by labels."""
    chance = _rule_chance(cells, labels)
    return [its for its, right in zip(cells.rules, chance, strict=True) if right < 0.5]


def _rule_chance(cells: Cells, labels: LabelledRows | None) -> Floats:
    """Return how likely a cell that each rule changed was wrong [rules]."""
    right = np.minimum(cells.confidence, SUREST_RULE) * PRIOR_CHANGES
    seen = np.full(len(right), PRIOR_CHANGES)
    if labels is not None:
        rule, wrong = cells.rule[labels.rows], wrong_of(cells, labels)
        judged = rule >= 0
        right = right + np.bincount(rule[judged], wrong[judged], len(right))
        seen = seen + np.bincount(rule[judged], minlength=len(right))
    return np.asarray(right / np.maximum(seen, 1e-9), np.float64)


def _learned(cells: Cells, labels: LabelledRows | None) -> Floats:
    """Return the regression's probability that each text as it came is wrong [rows, columns]."""
    from sklearn.linear_model import LogisticRegression

    n, width, _ = cells.before.shape
    draw = np.random.default_rng(SEED)
    labelled = np.zeros(n, bool)
    if labels is not None:
        labelled[labels.rows] = True
    free = ~labelled[:, None] & np.ones((n, width), bool)
    changed, kept = (
        np.flatnonzero(cells.changed & free),
        np.flatnonzero(~cells.changed & ~cells.doubted & free),
    )
    some = draw.permutation(changed)[:MOST_WEAK]
    others = draw.permutation(kept)[: 4 * MOST_WEAK]
    x = [cells.before.reshape(n * width, -1)[np.r_[some, others]]]
    columns = [np.r_[some, others] % width]
    y = [np.r_[np.ones(len(some), bool), np.zeros(len(others), bool)]]
    weight = [
        np.r_[np.ones(len(some)), np.full(len(others), max(1.0, len(kept) / max(len(others), 1)))]
    ]
    if labels is not None and len(labels.rows):
        told = (labels.rows[:, None] * width + np.arange(width)).ravel()
        x.append(cells.before.reshape(n * width, -1)[told])
        columns.append(told % width)
        y.append(wrong_of(cells, labels).ravel())
        weight.append(np.full(len(told), LABEL_WEIGHT))
    target = np.concatenate(y)
    if not target.any() or target.all():  # no error is known yet, or nothing else
        return np.where(cells.doubted, UNKNOWN_DOUBTED, UNKNOWN)
    features = np.concatenate(x)
    middle, spread = features.mean(0), features.std(0) + 1e-3
    one = np.eye(width, dtype=np.float32)

    def scaled(part: NDArray[np.float32], column: NDArray[np.int64]) -> NDArray[np.float32]:
        return np.hstack([(part - middle) / spread, one[column]])

    everything = scaled(cells.before.reshape(n * width, -1), np.tile(np.arange(width), n))
    design, weights = scaled(features, np.concatenate(columns)), np.concatenate(weight)
    weak = np.arange(len(target)) < len(some) + len(others)
    kept_rows = np.ones(len(target), bool)
    for _ in range(ROUNDS):
        model = LogisticRegression(C=PULL, max_iter=300)
        model.fit(design[kept_rows], target[kept_rows], weights[kept_rows])
        # Among the cells drawn as right ones are errors that nobody found: what looks like one
        # says nothing the second time.
        looks_wrong = model.predict_proba(design)[:, 1] > LOOKS_WRONG
        kept_rows = ~(weak & ~target & looks_wrong)
    return np.asarray(model.predict_proba(everything)[:, 1].reshape(n, width), np.float64)
