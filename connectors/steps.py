"""Steps of the fraud job that touch files, MLflow or the registry, as Prefect tasks."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import task

from connectors.files import atomic_path, digest, write_table
from tasks.fraud import stages
from tasks.steps import HOUR, Record, at, cached_step, worth_retrying
from tasks.workspace import fill, source_digest

if TYPE_CHECKING:
    from kernels.runtime.callbacks import Callback, Listen
    from tasks.fraud.bundle import Bundle
    from tasks.fraud.report.model import Promotion as PromotionRow
    from tasks.fraud.transactions import Transactions

logger = logging.getLogger(__name__)

CONTRACT = "contract.toml"
"""What the rows of a checked file were held against, beside its quarantine."""


@task(name="fingerprint", retries=1, timeout_seconds=600, retry_condition_fn=worth_retrying)
def fingerprint(data: str, config: str, contract: str = "") -> Record:
    """Read the config and hash the input: what every later key is made of.

    ``contract`` is a file of own lines, "" for none; its text goes into the record, as
    ``contract``, if there is one. So does the reason catalogue beside the config, as ``catalogue``.
    """
    from connectors.tracking import git_commit
    from tasks.cleaning.contract.toml import read_contract, to_toml
    from tasks.explain.catalogue.files import to_toml as catalogue_text
    from tasks.fraud.catalogue import find_catalogue
    from tasks.fraud.contract import contract_of
    from tasks.fraud.dataset import find_config

    described, words = find_config(config), find_catalogue(config)
    record = {
        "data": str(Path(data).resolve()),
        "digest": digest(Path(data)),
        "config": json.loads(json.dumps(described.to_dict())),
        "source": source_digest(),
        "git_commit": git_commit(),
    }
    if contract:
        own = read_contract(Path(contract))
        contract_of(described, own)
        record["contract"] = to_toml(own)
    if words is not None:
        record["catalogue"] = catalogue_text(words)
    return record


def inputs_of(job: Record) -> Record:
    """Return what the checked rows of a job depend on, for the keys of its steps."""
    return {name: job[name] for name in ("digest", "config", "source", "contract") if name in job}


@cached_step("check data")
def check_data(
    place: str,
    *,
    data: str,
    config: Record,
    quarantine: str,
    contract: str = "",
    labels_required: bool = True,
) -> Record:
    """Read and check the input; bad rows go to quarantine before the good ones go on.

    ``contract`` is the text of a person's own lines, "" for none.
    """
    from connectors.transactions import load_transactions, write_contract
    from tasks.cleaning.contract.toml import from_toml
    from tasks.fraud.dataset import DatasetConfig
    from tasks.fraud.workspace import save_transactions

    def work(draft: Path) -> Record:
        checked = load_transactions(
            Path(data),
            DatasetConfig.from_dict(config),
            Path(quarantine),
            own=from_toml(contract) if contract else None,
            labels_required=labels_required,
        )
        save_transactions(draft, checked.transactions)
        write_table(checked.quarantine, draft / "quarantine.parquet")
        write_contract(checked.contract, draft / CONTRACT)
        return {"report": json.loads(json.dumps(checked.report.to_dict()))}

    return fill(at(place), work)


@cached_step("judge fold", timeout=2 * HOUR, retries=1)
def judge_fold(place: str, *, inputs: Record, kind: str, index: int, run_id: str) -> Record:
    """Fit every head on one fold and judge it."""

    def work(draft: Path) -> Record:
        with step_metrics(run_id, f"{kind}{index}.") as listen:
            return stages.judge_stage(
                draft,
                **_paths(inputs),
                kind=kind,
                index=index,
                listen=listen,
                checkpoints=at(place).checkpoints,
            )

    return fill(at(place), work)


@cached_step("train model", timeout=4 * HOUR, retries=1)
def train_model(
    place: str,
    *,
    inputs: Record,
    folds: list[str],
    data_digest: str,
    git_commit: str,
    run_id: str,
    catalogue: str = "",
) -> Record:
    """Fit the model that ships and write its bundle; ``catalogue`` words its reasons."""

    def work(draft: Path) -> Record:
        with step_metrics(run_id, "shipped.") as listen:
            return stages.train_stage(
                draft,
                **_paths(inputs),
                folds=[Path(f) for f in folds],
                data_digest=data_digest,
                git_commit=git_commit,
                catalogue=catalogue,
                listen=listen,
                checkpoints=at(place).checkpoints,
            )

    return fill(at(place), work)


def _paths(inputs: Record) -> dict[str, Any]:
    """Turn the JSON form of a stage's inputs into its arguments."""
    folders = {name: Path(inputs[name]) for name in ("data", "features", "plan")}
    return folders | {"config": inputs["config"], "settings": inputs["settings"]}


@contextmanager
def step_metrics(run_id: str, prefix: str) -> Iterator[Listen]:
    """Send every training loop's figures to an MLflow run, without holding up its steps."""
    from connectors.tracking import MlflowCallback, resumed_run
    from kernels.runtime.callbacks import nobody

    if not run_id:
        yield nobody
        return
    with resumed_run(run_id) as run, ExitStack() as open_ones:

        def listen(loop: str) -> list[Callback]:
            callback = MlflowCallback(run, prefix=f"{prefix}{loop}.")
            open_ones.callback(callback.close)
            return [callback]

        yield listen


@task(name="promote model", timeout_seconds=HOUR)
def promote_model(
    *,
    bundle: str,
    inputs: Record,
    cache: str,
    run_id: str,
    margin: float = 0.0,
    embeddings_margin: float | None = None,
) -> Record:
    """Publish the bundle, compare it with the champion and let the better one serve.

    A failed promotion fails the step; the former champion serves on.
    """
    from connectors.comparison import PromotionRules, on_week
    from connectors.fraud_models import fraud_registry
    from connectors.promotion import promote
    from tasks.fraud.bundle import Bundle

    week = comparison_week(inputs)
    outcome = promote(
        fraud_registry(),
        Bundle.load(Path(bundle)),
        on_week(week, PromotionRules(margin, embeddings_margin)),
        cache=Path(cache),
        run_id=run_id,
    )
    logger.info("%s: %s", "promoted" if outcome.promoted else "not promoted", outcome.reason)
    days = f"{week.start}..{week.end}"
    return json.loads(json.dumps(outcome.to_dict() | {"week": days}))  # type: ignore[no-any-return]


def comparison_week(inputs: Record) -> Any:
    """Return the newest judged week, scored from the raw transactions by any bundle."""
    from connectors.comparison import ComparisonWeek
    from tasks.fraud.evaluation.protocol import judged_rows
    from tasks.fraud.score import fits, score_transactions
    from tasks.fraud.workspace import load_features, load_transactions_file

    tx = load_transactions_file(Path(inputs["data"]))
    table = load_features(Path(inputs["features"]))
    plan = stages.read_plan(Path(inputs["plan"]))
    rows = judged_rows(tx, plan.test[0], plan.protocol.entity)
    entity = next(iter(tx.entities.values()))

    def score(bundle: Bundle, head: str) -> Any:
        same = fits(bundle, table) and bundle.config.to_dict() == _as_config(inputs)
        return score_transactions(
            bundle, tx, rows=rows, features=table if same else None, head=head
        )

    fold = plan.test[0]
    return ComparisonWeek(fold.test_start, fold.test_end, tx.label[rows], entity[rows], score)


def _as_config(inputs: Record) -> dict[str, Any]:
    from tasks.fraud.dataset import DatasetConfig

    return DatasetConfig.from_dict(inputs["config"]).to_dict()


@task(name="fetch champion", retries=2, retry_delay_seconds=[1, 5], timeout_seconds=HOUR)
def fetch_champion(dataset: str, cache: str) -> Record:
    """Download the serving bundle, verified."""
    from connectors.fraud_models import fraud_registry

    version, bundle = fraud_registry().champion(dataset, Path(cache))
    return {
        "bundle": str(bundle.folder),
        "digest": bundle.digest,
        "model": version.name,
        "version": version.version,
        "config": json.loads(json.dumps(bundle.config.to_dict())),
        "categories": bundle.categories,
    }


@cached_step("score transactions")
def score_file(place: str, *, data: str, features: str, bundle: str, days: float) -> Record:
    """Score the last days of checked transactions into a Parquet file."""
    from tasks.fraud.bundle import Bundle
    from tasks.fraud.score import last_days, score_transactions
    from tasks.fraud.workspace import load_features, load_transactions_file

    def work(draft: Path) -> Record:
        import numpy as np

        tx = load_transactions_file(Path(data))
        model = Bundle.load(Path(bundle))
        rows = last_days(tx, days)
        scores = score_transactions(model, tx, rows=rows, features=load_features(Path(features)))
        table = score_table(model, tx, rows, scores)
        write_table(table, draft / "scores.parquet")
        alerts = int(np.sum(table.column("alert").to_numpy(zero_copy_only=False)))
        return {"rows": len(rows), "alerts": alerts, "highest": float(scores.max(initial=0.0))}

    return fill(at(place), work)


def score_table(bundle: Bundle, tx: Transactions, rows: Any, scores: Any) -> Any:
    """Return event id as in the user's data, time, entities, score and alert flag as a table."""
    import pyarrow as pa

    from tasks.fraud.report.inputs import alert_threshold

    columns: dict[str, Any] = {
        "event_id": pa.array(tx.original_ids[rows]),
        "time": pa.array(tx.time[rows], type=pa.timestamp("ms", tz="UTC")),
        "amount": pa.array(tx.amount[rows]),
    }
    for column, codes in tx.entities.items():
        columns[column] = pa.array(tx.index[tx.kinds[column]][codes[rows]])
    columns["score"] = pa.array(scores)
    columns["alert"] = pa.array(scores >= alert_threshold(bundle))
    metadata = {"bundle_sha256": bundle.digest, "head": bundle.active}
    return pa.table(columns).replace_schema_metadata(metadata)


@task(name="copy result", retries=1, timeout_seconds=600, retry_condition_fn=worth_retrying)
def copy_table(source: str, target: str) -> str:
    """Write a finished table where the user wants it, as Parquet or CSV."""
    from connectors.files import read_table

    return str(write_table(read_table(Path(source)), Path(target)))


@task(name="write report", retries=1, timeout_seconds=HOUR, retry_condition_fn=worth_retrying)
def write_report(
    *,
    out: str,
    inputs: Record,
    folds: list[str],
    trained: str,
    checks: Record,
    source: str,
    promotion: Record | None,
    durations: dict[str, float],
    run_page: str,
) -> str:
    """Write the HTML report and attach nothing: the caller logs the file."""
    from connectors.files import read_table
    from tasks.fraud.bundle import Bundle
    from tasks.fraud.ingest.check_report import CheckReport
    from tasks.fraud.report import build_report
    from tasks.fraud.report.inputs import ReportSources, collect_report
    from tasks.fraud.workspace import load_features, load_transactions_file

    stored = [stages.read_fold(Path(trained) / "fold-0")]
    stored += [stages.read_fold(Path(f)) for f in folds]
    report = {k: v for k, v in checks["report"].items() if k in CheckReport.__dataclass_fields__}
    quarantine = Path(checks["folder"]) / "quarantine.parquet"
    sources = ReportSources(
        bundle=Bundle.load(Path(trained) / "bundle"),
        tx=load_transactions_file(Path(inputs["data"])),
        features=load_features(Path(inputs["features"])),
        plan=stages.read_plan(Path(inputs["plan"])),
        test=[f for f in stored if f.kind == "test"],
        checks=CheckReport(**report),
        quarantine=read_table(quarantine) if report["rows_quarantined"] else None,
        source=source,
        model=f"{promotion['model']} version {promotion['version']}" if promotion else "",
        promotion=promotion_of(promotion),
        durations=durations,
        run_page=run_page,
    )
    text = build_report(collect_report(sources))
    with atomic_path(Path(out)) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return out


def promotion_of(record: Record | None) -> PromotionRow | None:
    """Return the report's row of a promotion's JSON record."""
    from tasks.fraud.evaluation.paired import PairedResult
    from tasks.fraud.evaluation.protocol import iso_day
    from tasks.fraud.report.assemble import promotion_row

    if record is None:
        return None
    start, _, end = record["week"].partition("..")
    comparison = record["comparison"]
    return promotion_row(
        promoted=record["promoted"],
        reason=record["reason"],
        challenger=record["version"],
        champion=record["rival"],
        week=f"{iso_day(int(start))}..{iso_day(int(end) - 1)}",
        comparison=PairedResult(**comparison) if comparison else None,
    )
