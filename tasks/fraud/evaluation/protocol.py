"""How a fraud model is judged: folds in time, label delay, known-entity removal, metrics.

The default is the protocol of the Fraud Detection Handbook (Le Borgne et al., 2022): a training
week, a delay in which labels are not known yet, a test week; entities whose fraud is already
known leave the test set day by day. Datasets without such an entity (transfers) use a plain
time split.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tasks.fraud.evaluation.metrics import (
    average_precision,
    entity_precision,
    recall_at_fpr,
    roc_auc,
)

if TYPE_CHECKING:
    from tasks.fraud.dataset import DatasetConfig
    from tasks.fraud.transactions import Transactions

DAY_MS = 86_400_000


class ProtocolError(ValueError):
    """Folds that do not fit the data, or scores that do not fit the rows."""


@dataclass(frozen=True, slots=True)
class Protocol:
    """Rules of a comparison.

    Attributes:
        name: Printed with every figure.
        entity: Column whose known frauds are removed and whose precision at k is measured; empty
            for a plain time split.
        train_days: Days a fold trains on; they end where the delay starts.
        delay_days: Days between training and test, and age at which a label is known.
        test_days: Length of a test fold.
        known_days: Days before the delay in which a fraud makes an entity known.
        top_k: Entities looked at per day (CP@k).
        alarm_ap: Mean average precision above which a leak is suspected; 1: no alarm.
        alarm_auc: The same for ROC AUC.
    """

    name: str = "known-entity-removal"
    entity: str = ""
    train_days: int = 7
    delay_days: int = 7
    test_days: int = 7
    known_days: int = 7
    top_k: int = 100
    alarm_ap: float = 1.0
    alarm_auc: float = 1.0

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        for name in ("train_days", "test_days", "known_days", "top_k"):
            if getattr(self, name) < 1:
                raise ProtocolError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.delay_days < 0:
            raise ProtocolError(f"delay_days must not be negative, got {self.delay_days}")
        for name in ("alarm_ap", "alarm_auc"):
            value = getattr(self, name)
            if not 0 < value <= 1:
                raise ProtocolError(f"{name} must lie in (0, 1], got {value}")


@dataclass(frozen=True, slots=True)
class Fold:
    """One train-delay-test cut; instants are int64 epoch milliseconds, ends exclusive.

    Attributes:
        index: 0 is the newest fold.
        train_start: First training instant.
        train_end: End of training, start of the delay.
        test_start: First test instant.
        test_end: End of the test.
        known_start: Frauds from here on make an entity known, once their labels are.
        delay: Age in milliseconds at which a label is known.
    """

    index: int
    train_start: int
    train_end: int
    test_start: int
    test_end: int
    known_start: int
    delay: int

    def train_rows(self, tx: Transactions) -> NDArray[np.intp]:
        """Return the rows of the training window whose label is known when the test begins."""
        inside = (tx.time >= self.train_start) & (tx.time < self.train_end)
        known = (tx.label >= 0) & (tx.label_time <= self.test_start)
        return np.flatnonzero(inside & known)

    def delay_rows(self, tx: Transactions) -> NDArray[np.intp]:
        """Return the rows between training and test, labelled or not."""
        return np.flatnonzero((tx.time >= self.train_end) & (tx.time < self.test_start))

    def describe(self) -> str:
        """Return the test window as ``2018-08-29..2018-09-04``."""
        return f"{iso_day(self.test_start)}..{iso_day(self.test_end - 1)}"


@dataclass(frozen=True, slots=True)
class FoldResult:
    """Metrics of one fold.

    Attributes:
        fold: Index of the fold.
        test: Test window, readable.
        rows: Judged transactions.
        frauds: Frauds among them.
        ap: Average precision.
        auc: ROC AUC.
        cp: Mean entity precision at k (NaN without an entity).
        r1: Recall at 1 % false-positive rate.
        cp_days: Entity precision of each day.
    """

    fold: int
    test: str
    rows: int
    frauds: int
    ap: float
    auc: float
    cp: float
    r1: float
    cp_days: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)


def instant(day: str | int) -> int:
    """Return epoch milliseconds of an ISO date or instant (UTC); integers pass through.

    >>> instant("1970-01-02")
    86400000
    """
    if isinstance(day, int):
        return day
    try:
        moment = datetime.fromisoformat(day)
    except ValueError as error:
        raise ProtocolError(f"{day!r} is no ISO date; write it as 2018-08-29") from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1000)


def iso_day(milliseconds: int) -> str:
    """Return the UTC date of an instant as ISO text."""
    return datetime.fromtimestamp(milliseconds / 1000, tz=UTC).date().isoformat()


def folds(test_start: str | int, count: int, protocol: Protocol | None = None) -> tuple[Fold, ...]:
    """Return folds: fold 0 tests from ``test_start``, each next one a test length earlier.

    Args:
        test_start: ISO date or epoch milliseconds of fold 0's first test day.
        count: Number of folds.
        protocol: Lengths; default the handbook's 7 + 7 + 7 days.
    """
    if count < 1:
        raise ProtocolError(f"at least one fold is needed, got {count}")
    rules = protocol or Protocol()
    first = instant(test_start)
    delay = rules.delay_days * DAY_MS
    cuts = []
    for k in range(count):
        start = first - k * rules.test_days * DAY_MS
        train_end = start - delay
        cuts.append(
            Fold(
                index=k,
                train_start=train_end - rules.train_days * DAY_MS,
                train_end=train_end,
                test_start=start,
                test_end=start + rules.test_days * DAY_MS,
                known_start=train_end - rules.known_days * DAY_MS,
                delay=delay,
            )
        )
    return tuple(cuts)


def validation_folds(
    test_start: str | int, test_folds: int, count: int, protocol: Protocol | None = None
) -> tuple[Fold, ...]:
    """Return folds for choosing settings, all before the delay of the earliest test fold.

    The newest validation test ends where the delay of the earliest test fold starts, so every
    validation label is known when that test begins.
    """
    rules = protocol or Protocol()
    earliest = folds(test_start, test_folds, rules)[-1]
    return folds(earliest.train_end - rules.test_days * DAY_MS, count, rules)


def protocol_for(config: DatasetConfig, *, train_days: int | None = None) -> Protocol:
    """Return the protocol a dataset config implies.

    The first entity column is judged with known-entity removal when its kind appears once; a
    dataset whose first entity plays two roles (sender and receiver) gets a plain time split.
    """
    first = config.entities[0]
    single = len(config.kinds[first.kind]) == 1
    split = config.split
    return Protocol(
        name="known-entity-removal" if single else "time-split",
        entity=first.column if single else "",
        train_days=train_days or split.train_days,
        delay_days=-int(-config.label_delay_days // 1),
        test_days=split.test_days,
        alarm_ap=config.alarm.ap,
        alarm_auc=config.alarm.auc,
    )


def newest_test_start(tx: Transactions, test_days: int) -> int:
    """Return the start of the newest ``test_days`` whole days that hold labelled rows."""
    labelled = tx.time[tx.label >= 0]
    if labelled.size == 0:
        raise ProtocolError("no labelled rows; a model needs labels to learn and be judged")
    end = (int(labelled[-1]) // DAY_MS + 1) * DAY_MS
    return end - test_days * DAY_MS


def judged_rows(tx: Transactions, fold: Fold, entity: str = "") -> NDArray[np.intp]:
    """Return the judged rows of a fold: labelled, in the test window, entity not yet known.

    Args:
        tx: All transactions.
        fold: The cut.
        entity: Column for known-entity removal; empty: keep every labelled row.

    Returns:
        Row numbers into ``tx``, ascending.
    """
    inside = (tx.time >= fold.test_start) & (tx.time < fold.test_end) & (tx.label >= 0)
    rows = np.flatnonzero(inside)
    if not entity:
        return rows
    if entity not in tx.entities:
        raise ProtocolError(f"entity column {entity!r} is not among {sorted(tx.entities)}")
    codes = tx.entities[entity]
    known_from = _first_known(tx, codes, fold)
    day = (tx.time[rows] - fold.test_start) // DAY_MS
    unknown: NDArray[np.bool_] = known_from[codes[rows]] >= fold.test_start + day * DAY_MS
    return rows[unknown]


def _first_known(tx: Transactions, codes: NDArray[np.int32], fold: Fold) -> NDArray[np.int64]:
    """Per entity code: when a fraud since ``known_start`` first became known (far future: none)."""
    first = np.full(int(codes.max(initial=-1)) + 1, np.iinfo(np.int64).max, dtype=np.int64)
    frauds = (tx.time >= fold.known_start) & (tx.time < fold.test_end) & (tx.label == 1)
    known = np.maximum(tx.label_time[frauds], tx.time[frauds] + fold.delay)
    np.minimum.at(first, codes[frauds], known)
    return first


def evaluate_fold(
    tx: Transactions,
    fold: Fold,
    score: NDArray[np.floating[Any]],
    protocol: Protocol,
    *,
    rows: NDArray[np.intp] | None = None,
) -> FoldResult:
    """Judge scores on one fold.

    Args:
        tx: All transactions.
        fold: The cut.
        score: One score per row of ``tx``, or per judged row when ``rows`` is given.
        protocol: Rules; its ``entity`` decides on removal and CP@k.
        rows: Judged rows as ``judged_rows`` gives them; None: found here.

    Raises:
        ProtocolError: When scores and rows do not fit, or the fold holds no fraud.
    """
    if rows is None:
        rows = judged_rows(tx, fold, protocol.entity)
        if len(score) != len(tx):
            raise ProtocolError(f"{len(score)} scores for {len(tx)} transactions")
        score = score[rows]
    elif len(score) != len(rows):
        raise ProtocolError(f"{len(score)} scores for {len(rows)} judged rows")
    label = tx.label[rows]
    if not (label == 1).any() or not (label == 0).any():
        raise ProtocolError(
            f"test window {fold.describe()} holds {int((label == 1).sum())} frauds in {len(rows)} "
            "rows; both classes are needed: choose another split.test_start or fewer folds"
        )
    days: tuple[float, ...] = ()
    if protocol.entity:
        day = (tx.time[rows] - fold.test_start) // DAY_MS
        entity = entity_order(tx, protocol.entity)[tx.entities[protocol.entity][rows]]
        days = tuple(float(v) for v in entity_precision(day, entity, label, score, protocol.top_k))
    return FoldResult(
        fold=fold.index,
        test=fold.describe(),
        rows=len(rows),
        frauds=int((label == 1).sum()),
        ap=average_precision(label, score),
        auc=roc_auc(label, score),
        cp=float(np.mean(days)) if days else float("nan"),
        r1=recall_at_fpr(label, score),
        cp_days=days,
    )


def entity_order(tx: Transactions, column: str) -> NDArray[np.int64]:
    """Return per entity code its rank among the original ids: numeric ids by value, else text."""
    ids = tx.index[tx.kinds[column]]
    try:
        keys: NDArray[Any] = ids.astype(np.int64)
    except (ValueError, OverflowError):
        keys = ids
    rank = np.empty(len(ids), dtype=np.int64)
    rank[np.argsort(keys, kind="stable")] = np.arange(len(ids))
    return rank


def summarise(results: Sequence[FoldResult]) -> dict[str, float]:
    """Return mean and population standard deviation over folds, as ``ap``, ``ap_std`` ..."""
    if not results:
        raise ProtocolError("no fold results to summarise")
    summary: dict[str, float] = {}
    for name in ("ap", "auc", "cp", "r1"):
        values = np.array([getattr(r, name) for r in results])
        summary[name] = float(values.mean())
        summary[f"{name}_std"] = float(values.std())
    return summary
