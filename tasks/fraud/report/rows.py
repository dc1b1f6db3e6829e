"""The rows, points and bins of a report's tables and plots."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tasks.fraud.report.decode import ReportError


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure with its spread over folds.

    Attributes:
        mean: Mean over the folds.
        std: Population standard deviation over the folds.
    """

    mean: float
    std: float | None = None


@dataclass(frozen=True, slots=True)
class Scores:
    """The protocol's four metrics; None where one does not exist (no entity to count)."""

    ap: Metric | None = None
    auc: Metric | None = None
    cp: Metric | None = None
    r1: Metric | None = None


@dataclass(frozen=True, slots=True)
class FoldRow:
    """One test fold.

    Attributes:
        fold: Number; 0 is the newest.
        test: Test window, readable.
        rows: Transactions judged.
        frauds: Frauds among them.
        ap: Average precision.
        auc: Area under the ROC curve.
        cp: Mean daily precision among the top entities.
        r1: Recall at 1 % false-positive rate.
    """

    fold: int
    test: str
    rows: int
    frauds: int
    ap: float | None
    auc: float | None
    cp: float | None
    r1: float | None


@dataclass(frozen=True, slots=True)
class HeadRow:
    """One head of the comparison, judged on the same rows as the others.

    Attributes:
        name: For example ``"tabular"``, ``"graph"``, ``"both"``, ``"logistic"``.
        scores: Its metrics.
        active: Whether it is the head that ships.
        gain: AP gain over the tabular head; None for the reference itself.
        gain_low: Lower end of the paired 95 % interval of that gain.
        gain_high: Upper end.
    """

    name: str
    scores: Scores
    active: bool = False
    gain: float | None = None
    gain_low: float | None = None
    gain_high: float | None = None


@dataclass(frozen=True, slots=True)
class Curve:
    """A named line, for example one head's precision over recall.

    Attributes:
        name: Legend entry.
        x: Horizontal values, ascending.
        y: Vertical values, same length.
    """

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]

    def __post_init__(self) -> None:
        """Reject lines that cannot be drawn."""
        if len(self.x) != len(self.y):
            raise ReportError(f"curve {self.name!r}: {len(self.x)} x for {len(self.y)} y values")


@dataclass(frozen=True, slots=True)
class DayPrecision:
    """Precision among the top entities on one test day.

    Attributes:
        day: ISO date or a label such as ``"day 3"``.
        precision: Hits among the k highest entities / k.
        best: What a perfect ranking would reach that day; None if not known.
    """

    day: str
    precision: float
    best: float | None = None


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    """Transactions of similar predicted probability.

    Attributes:
        predicted: Mean predicted probability.
        observed: Share of frauds.
        rows: Transactions in the bin.
        low: Lower end of the 95 % (Wilson) interval of ``observed``.
        high: Upper end.
    """

    predicted: float
    observed: float
    rows: int
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class ScoreBin:
    """Scores between two edges.

    Attributes:
        low: Lower edge.
        high: Upper edge.
        genuine: Legitimate transactions.
        frauds: Frauds.
    """

    low: float
    high: float
    genuine: int
    frauds: int


@dataclass(frozen=True, slots=True)
class Importance:
    """A feature group and how far it moves scores.

    Attributes:
        label: Group in words.
        strength: Mean absolute contribution, log-odds.
    """

    label: str
    strength: float


@dataclass(frozen=True, slots=True)
class ThresholdRow:
    """A policy and what it would have done on the test days.

    Attributes:
        policy: For example ``"100 alerts a day"`` or ``"1 % false positives"``.
        threshold: Score from which a transaction is an alert; None when alerting never pays.
        alerts_per_day: Mean alerts a day.
        precision: Frauds among the alerts.
        recall: Share of the frauds caught.
        fpr: False-positive rate.
        cost: Expected cost a day, major units; None where no cost is configured.
    """

    policy: str
    threshold: float | None
    alerts_per_day: float | None = None
    precision: float | None = None
    recall: float | None = None
    fpr: float | None = None
    cost: float | None = None


@dataclass(frozen=True, slots=True)
class ReasonRow:
    """One reason of an alert.

    Attributes:
        text: Plain words.
        contribution: Log-odds it added.
        tie: Whether the next reason is equally strong within the error.
        code: Code of the catalogue.
    """

    text: str
    contribution: float
    tie: bool = False
    code: str = ""


@dataclass(frozen=True, slots=True)
class AlertRow:
    """A transaction a person should look at.

    Attributes:
        event_id: Id as in the user's data.
        time: ISO instant.
        amount: Major units.
        entities: Entity column -> id.
        score: Calibrated probability.
        truth: Label where it is known already: 1, 0, or None.
        reasons: Strongest first, at most four.
    """

    event_id: str
    time: str
    amount: float
    entities: Mapping[str, str]
    score: float
    truth: int | None = None
    reasons: tuple[ReasonRow, ...] = ()
