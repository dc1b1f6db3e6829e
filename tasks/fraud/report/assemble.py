"""Turns results of checks, folds, heads and explanations into the rows a report shows."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tasks.explain.reasons import Reason
from tasks.fraud.report.curves import finite
from tasks.fraud.report.model import (
    CheckSummary,
    DatasetSummary,
    EntityCount,
    Environment,
    Promotion,
    RuleCount,
    Verdict,
)
from tasks.fraud.report.rows import (
    AlertRow,
    DayPrecision,
    FoldRow,
    HeadRow,
    Metric,
    ReasonRow,
    Scores,
)

if TYPE_CHECKING:
    import pyarrow as pa

    from tasks.fraud.dataset import DatasetConfig
    from tasks.fraud.evaluation.paired import PairedResult
    from tasks.fraud.evaluation.protocol import FoldResult
    from tasks.fraud.ingest.check_report import CheckReport
    from tasks.fraud.transactions import Transactions

DAY_MS = 86_400_000
LIBRARIES = ("numpy", "lightgbm", "torch", "torch-geometric", "onnxruntime", "mlflow", "prefect")


def iso_instant(milliseconds: int) -> str:
    """Return an instant as ISO text, UTC; any int64 that a calendar holds."""
    return (
        datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=int(milliseconds))
    ).isoformat()


def dataset_summary(
    tx: Transactions, config: DatasetConfig, *, source: str, digest: str = ""
) -> DatasetSummary:
    """Describe the transactions a model was made of.

    Args:
        tx: Checked transactions.
        config: What their columns mean.
        source: Path or name of the input; only its last part is shown.
        digest: SHA-256 of the input.
    """
    first, last = (int(tx.time[0]), int(tx.time[-1])) if len(tx) else (0, 0)
    return DatasetSummary(
        name=config.name,
        source=Path(source).name,
        rows=len(tx),
        frauds=int((tx.label == 1).sum()),
        unlabelled=int((tx.label < 0).sum()),
        first=iso_instant(first) if len(tx) else "",
        last=iso_instant(last) if len(tx) else "",
        days=last // DAY_MS - first // DAY_MS + 1 if len(tx) else 0,
        entities=tuple(
            EntityCount(e.column, e.kind, len(np.unique(tx.entities[e.column])))
            for e in config.entities
        ),
        label_delay_days=float(config.label_delay_days),
        amount_median=float(np.median(tx.amount)) / 10**config.decimals if len(tx) else None,
        decimals=config.decimals,
        digest=digest,
    )


def check_summary(
    report: CheckReport, quarantine: pa.Table | None = None, *, limit: float | None = None
) -> CheckSummary:
    """Describe what the checks did.

    Args:
        report: Counts of the check.
        quarantine: Its records; give columns, severities and an example to every rule.
        limit: Share of quarantined rows that would have stopped the run.
    """
    notes = []
    if report.unsorted:
        notes.append(f"{report.unsorted:,} rows came out of time order and were sorted")
    if report.days_without_fraud and report.frauds:
        notes.append(f"{report.days_without_fraud:,} of {report.days:,} days hold no known fraud")
    notes += [f"{n:,} rows lack {column}" for column, n in report.missing.items() if n]
    return CheckSummary(
        rows_in=report.rows_in,
        rows_used=report.rows_used,
        quarantined=report.rows_quarantined,
        by_rule=_rule_counts(report, quarantine),
        limit=limit,
        notes=tuple(notes),
    )


def _rule_counts(report: CheckReport, quarantine: pa.Table | None) -> tuple[RuleCount, ...]:
    first: dict[str, dict[str, Any]] = {}
    if quarantine is not None:
        columns = quarantine.select(["rule", "column", "severity", "observed"])
        rules = columns.column("rule").to_pylist()
        seen = {rule: rules.index(rule) for rule in set(rules)}
        first = {rule: columns.slice(at, 1).to_pylist()[0] for rule, at in seen.items()}
    ranked = sorted(report.by_rule.items(), key=lambda item: (-item[1], item[0]))
    return tuple(
        RuleCount(
            rule=rule,
            column=first.get(rule, {}).get("column") or "",
            rows=rows,
            severity=first.get(rule, {}).get("severity") or "error",
            example=_example(first.get(rule)),
        )
        for rule, rows in ranked
        if rows
    )


def _example(record: Mapping[str, Any] | None) -> str:
    if record is None:
        return ""
    observed = record["observed"]
    return "(missing)" if observed is None else str(observed)


def fold_rows(results: Sequence[FoldResult]) -> tuple[FoldRow, ...]:
    """Return one row per fold; metrics that do not exist become None."""
    return tuple(
        FoldRow(r.fold, r.test, r.rows, r.frauds, *map(finite, (r.ap, r.auc, r.cp, r.r1)))
        for r in results
    )


def scores_of(results: Sequence[FoldResult]) -> Scores:
    """Return mean and population standard deviation over the folds of every metric."""
    return Scores(*(_metric([getattr(r, n) for r in results]) for n in ("ap", "auc", "cp", "r1")))


def _metric(values: Sequence[float]) -> Metric | None:
    known = [v for v in values if np.isfinite(v)]
    if not known or len(known) < len(values):
        return None
    return Metric(float(np.mean(known)), float(np.std(known)) if len(known) > 1 else None)


def head_rows(
    results: Mapping[str, Sequence[FoldResult]],
    *,
    active: str,
    gains: Mapping[str, PairedResult] | None = None,
) -> tuple[HeadRow, ...]:
    """Return one row per head.

    Args:
        results: Head name -> its folds, all judged on the same rows.
        active: Head that ships.
        gains: Head name -> paired comparison with the tabular head (head first).
    """
    rows = []
    for name, folds in results.items():
        pair = (gains or {}).get(name)
        ends = (pair.difference, pair.low, pair.high) if pair else (None, None, None)
        rows.append(HeadRow(name, scores_of(folds), name == active, *ends))
    return tuple(rows)


def precision_days(
    result: FoldResult, perfect: FoldResult | None = None
) -> tuple[DayPrecision, ...]:
    """Return the daily precision of a fold beside that of a perfect ranking.

    Args:
        result: The fold.
        perfect: The same fold judged with the labels as scores.
    """
    best: Sequence[float | None] = perfect.cp_days if perfect else [None] * len(result.cp_days)
    if len(best) != len(result.cp_days):
        raise ValueError("perfect ranking covers other days than the fold; judge the same fold")
    return tuple(
        DayPrecision(name, value, top)
        for name, value, top in zip(_day_names(result), result.cp_days, best, strict=True)
    )


def _day_names(result: FoldResult) -> list[str]:
    """Dates of the fold's days; numbers where a day without rows makes dates uncertain."""
    first, _, last = result.test.partition("..")
    count = len(result.cp_days)
    try:
        start, end = datetime.fromisoformat(first), datetime.fromisoformat(last)
    except ValueError:
        return [f"day {i + 1}" for i in range(count)]
    if (end - start).days + 1 != count:
        return [f"day {i + 1}" for i in range(count)]
    return [(start + timedelta(days=i)).date().isoformat() for i in range(count)]


def alert_rows(
    tx: Transactions,
    rows: NDArray[np.intp],
    probability: NDArray[np.float64],
    reasons: Sequence[Sequence[Reason]],
    *,
    decimals: int,
    now: int | None = None,
) -> tuple[AlertRow, ...]:
    """Return alerts, highest score first.

    Args:
        tx: All transactions.
        rows: Row numbers of the alerts.
        probability: Their scores, same length.
        reasons: Their reasons, same length.
        decimals: Decimal places of the currency.
        now: Instant of the list, epoch milliseconds; a truth that became known later is hidden.
            None: no truth is shown.
    """
    if not len(rows) == len(probability) == len(reasons):
        raise ValueError(
            f"{len(rows)} alerts, {len(probability)} scores and {len(reasons)} lists of reasons; "
            "all must be equal"
        )
    alerts = []
    for place in np.argsort(-probability, kind="stable").tolist():
        row = int(rows[place])
        known = now is not None and tx.label[row] >= 0 and int(tx.label_time[row]) <= now
        alerts.append(
            AlertRow(
                event_id=str(tx.original_ids[row]),
                time=iso_instant(int(tx.time[row])),
                amount=int(tx.amount[row]) / 10**decimals,
                entities={
                    column: str(tx.index[tx.kinds[column]][codes[row]])
                    for column, codes in tx.entities.items()
                },
                score=float(probability[place]),
                truth=int(tx.label[row]) if known else None,
                reasons=tuple(
                    ReasonRow(r.text, r.contribution, r.tie, r.code) for r in reasons[place]
                ),
            )
        )
    return tuple(alerts)


def promotion_row(
    *,
    promoted: bool | None,
    reason: str,
    challenger: str = "",
    champion: str = "",
    week: str = "",
    comparison: PairedResult | None = None,
) -> Promotion:
    """Return the decision with its paired figures; None: no promotion was asked for."""
    ends = (comparison.difference, comparison.low, comparison.high) if comparison else ()
    verdict: Verdict = "none" if promoted is None else "promoted" if promoted else "kept"
    return Promotion(verdict, reason, challenger, champion, week, *ends)


def describe_environment(
    *,
    created: str,
    commit: str,
    durations: Mapping[str, float],
    run_url: str = "",
    libraries: Sequence[str] = LIBRARIES,
) -> Environment:
    """Describe this machine and the installed libraries.

    Args:
        created: ISO instant of the run.
        commit: Git commit of the code.
        durations: Step -> seconds.
        run_url: Page of the tracked run.
        libraries: Distributions to list; those not installed are left out.
    """
    versions = {"python": platform.python_version()}
    for library in libraries:
        try:
            versions[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            continue
    return Environment(created, commit, describe_machine(), versions, dict(durations), run_url)


def describe_machine() -> str:
    """Say CPU model, cores and memory in one line.

    >>> "core" in describe_machine()
    True
    """
    import psutil

    cores = (
        len(psutil.Process().cpu_affinity())
        if hasattr(psutil.Process, "cpu_affinity")
        else (psutil.cpu_count() or 1)
    )
    memory = psutil.virtual_memory().total / 2**30
    return f"{_cpu_name()}, {cores} core{'' if cores == 1 else 's'}, {memory:.0f} GiB memory"


def _cpu_name() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2] for line in text.splitlines() if line.startswith("model name")]
    return " ".join(names[0].split()) if names else platform.machine()
