"""What a fraud report shows, as plain typed data.

Everything the page says is in ``ReportInputs``: the renderer reads no file, no clock and no model,
so a report can be built again from what a flow stored between its steps (``to_dict`` gives JSON).
Metrics are NaN-free: a quantity that does not exist is ``None`` and shown as a dash.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from tasks.fraud.report.decode import ReportError, build
from tasks.fraud.report.rows import (
    AlertRow,
    CalibrationBin,
    Curve,
    DayPrecision,
    FoldRow,
    HeadRow,
    Importance,
    ScoreBin,
    Scores,
    ThresholdRow,
)

Verdict = Literal["promoted", "kept", "none"]


@dataclass(frozen=True, slots=True)
class EntityCount:
    """An entity column.

    Attributes:
        column: Name in the data.
        kind: Kind of entity.
        distinct: Number of different entities.
    """

    column: str
    kind: str
    distinct: int


@dataclass(frozen=True, slots=True)
class DatasetSummary:
    """The data behind the model.

    Attributes:
        name: Dataset config's name.
        source: Where the rows came from (a file name, not a full path).
        rows: Transactions used.
        frauds: Known frauds among them.
        unlabelled: Rows whose truth is unknown.
        first: First event, ISO instant.
        last: Last event, ISO instant.
        days: Calendar days covered.
        entities: Entity columns.
        label_delay_days: Days before a label may be used.
        amount_median: Major units.
        decimals: Decimal places of the currency.
        digest: SHA-256 of the input.
    """

    name: str
    source: str
    rows: int
    frauds: int
    unlabelled: int
    first: str
    last: str
    days: int
    entities: tuple[EntityCount, ...]
    label_delay_days: float
    amount_median: float | None = None
    decimals: int = 2
    digest: str = ""


@dataclass(frozen=True, slots=True)
class RuleCount:
    """Rows one check caught.

    Attributes:
        rule: Rule id.
        column: Column it looks at.
        rows: Rows caught.
        severity: For example ``"error"``.
        example: One observed value, as text.
    """

    rule: str
    column: str
    rows: int
    severity: str = "error"
    example: str = ""


@dataclass(frozen=True, slots=True)
class CheckSummary:
    """What the checks before training did.

    Attributes:
        rows_in: Rows read.
        rows_used: Rows that went on.
        quarantined: Rows set aside with a record.
        by_rule: Quarantined rows by rule.
        limit: Share of quarantined rows that would have stopped the run.
        notes: Tolerated oddities, counted.
    """

    rows_in: int
    rows_used: int
    quarantined: int
    by_rule: tuple[RuleCount, ...] = ()
    limit: float | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Hold the balance every check keeps."""
        if self.rows_in != self.rows_used + self.quarantined:
            raise ReportError(
                f"checks: {self.rows_in} rows in, but {self.rows_used} used and "
                f"{self.quarantined} quarantined; every row must be one or the other"
            )


@dataclass(frozen=True, slots=True)
class Promotion:
    """Whether the new model became the champion, and why.

    Attributes:
        verdict: ``"promoted"``, ``"kept"`` (the old champion stays) or ``"none"`` (not asked).
        reason: One sentence.
        challenger: Version of the new model.
        champion: Version that served before; empty for a first model.
        week: Days both were compared on.
        gain: AP of the challenger minus that of its rival.
        gain_low: Lower end of the paired 95 % interval.
        gain_high: Upper end.
    """

    verdict: Verdict
    reason: str
    challenger: str = ""
    champion: str = ""
    week: str = ""
    gain: float | None = None
    gain_low: float | None = None
    gain_high: float | None = None

    def __post_init__(self) -> None:
        """Reject verdicts nobody would understand."""
        if self.verdict not in get_args(Verdict):
            raise ReportError(f"verdict {self.verdict!r} must be one of {get_args(Verdict)}")


@dataclass(frozen=True, slots=True)
class Environment:
    """Where and with what the model was made.

    Attributes:
        created: ISO instant.
        commit: Git commit of the code.
        machine: CPU, cores, memory in words.
        versions: Library -> version.
        durations: Step -> seconds.
        run_url: Tracking page of the run; shown as text, never fetched.
    """

    created: str
    commit: str
    machine: str
    versions: Mapping[str, str] = field(default_factory=dict)
    durations: Mapping[str, float] = field(default_factory=dict)
    run_url: str = ""


@dataclass(frozen=True, slots=True)
class ReportInputs:
    """Everything a report shows; optional parts that are empty leave their section out.

    Attributes:
        title: Heading of the page.
        model: Registered name and version.
        dataset: The data.
        checks: What the checks did.
        scores: Metrics of the shipped head over the test folds.
        folds: Its test folds.
        heads: All heads on the same folds.
        pr: Precision over recall by head, pooled over the test folds.
        precision_by_day: Precision among the top entities, newest fold.
        top_k: Entities looked at per day.
        top_entity: Column whose entities are counted.
        calibration: Reliability bins.
        score_bins: Distribution of scores.
        importance: Feature groups by strength.
        thresholds: Policies.
        alert_day: Day of the alert list, ISO date.
        alerts: Alerts of that day, highest score first.
        alerts_total: Alerts that day when the list is cut short.
        promotion: The decision.
        environment: Where it was made.
        explained_by: How reasons were computed, one line.
    """

    title: str
    model: str
    dataset: DatasetSummary
    checks: CheckSummary
    scores: Scores
    environment: Environment
    folds: tuple[FoldRow, ...] = ()
    heads: tuple[HeadRow, ...] = ()
    pr: tuple[Curve, ...] = ()
    precision_by_day: tuple[DayPrecision, ...] = ()
    top_k: int = 100
    top_entity: str = ""
    calibration: tuple[CalibrationBin, ...] = ()
    score_bins: tuple[ScoreBin, ...] = ()
    importance: tuple[Importance, ...] = ()
    thresholds: tuple[ThresholdRow, ...] = ()
    alert_day: str = ""
    alerts: tuple[AlertRow, ...] = ()
    alerts_total: int = 0
    promotion: Promotion = field(default_factory=lambda: Promotion("none", "not asked"))
    explained_by: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return JSON data that ``from_dict`` reads back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ReportInputs:
        """Build from JSON data.

        Raises:
            ReportError: On unknown or missing fields or values of another type.
        """
        return build(cls, data, "report")
