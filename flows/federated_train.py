"""The flow that rehearses federated training: one file of transactions as several branches.

    federated_train("bank.parquet", "handbook", {"rounds": 30}, branches=10)

Every branch is a process of its own that holds its rows; this flow is the coordinator, which learns
sums. Real branches run the same process on their own machines (`connectors.private.federated`).
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from prefect import flow
from prefect.artifacts import create_table_artifact

from connectors import steps
from connectors.private.federated.branch_client import CoordinatorAddress
from connectors.private.federated.coordinator import Coordinator, CoordinatorSettings
from connectors.private.federated.local_branches import LocalBranches
from connectors.tracking import RunRequest, TrackedRun, tracked_run
from flows.artifacts import artifact_key
from infra.settings import get_settings
from tasks.fraud import steps as fraud_steps
from tasks.fraud.branch_features import branch_features
from tasks.fraud.dataset import DatasetConfig
from tasks.fraud.evaluation.metrics import average_precision, roc_auc
from tasks.fraud.evaluation.protocol import Fold, judged_rows
from tasks.fraud.features import build_features
from tasks.fraud.ingest.checks import require_trainable
from tasks.fraud.stages import read_plan
from tasks.fraud.transactions import Transactions
from tasks.fraud.workspace import load_transactions_file
from tasks.privacy.encoding import Encoding
from tasks.privacy.federated.model import FederatedModel
from tasks.privacy.federated.moments import encoding_from, row_sums
from tasks.privacy.federated.plan import TrainingPlan
from tasks.privacy.federated.split import split_by_entity
from tasks.privacy.federated.training import FederatedTraining
from tasks.workspace import place_of

Record = dict[str, Any]
Part = tuple[NDArray[np.float32], NDArray[np.int8]]

JOIN_SECONDS = 120.0


@flow(name="federated-train", timeout_seconds=4 * 3_600, validate_parameters=True)
def federated_train(
    data: str,
    config: str = "handbook",
    settings: Record | None = None,
    *,
    branches: int = 10,
    threshold: int | None = None,
    colluding: int = 0,
    entity: str = "",
    public: str = "",
    seed: int = 0,
    answer_seconds: float = 120.0,
) -> Record:
    """Train a fraud head over branches that show nobody their rows.

    Args:
        data: Parquet or CSV file, shared out over the branches; each computes its features from
            its own rows.
        config: Dataset config: a TOML file or the name of a shipped one.
        settings: Training settings (fields of ``TrainingPlan``; ``private`` switches noise on).
        branches: How many.
        threshold: Branches that must stay in every sum; None: two thirds of them, rounded up.
        colluding: Branches that may tell the coordinator all they know.
        entity: Column by whose entities rows are shared out; empty: the last of the config.
        public: File of public or simulated transactions that scales the features; private
            training needs it.
        seed: Of the sharing out.
        answer_seconds: Time for a branch to answer, training included.

    Returns:
        JSON record: figures, rounds, the model's file, run.
    """
    home = get_settings().home
    job = steps.fingerprint(data, config)
    tx, fold = _rows(home, job)
    dataset_config = DatasetConfig.from_dict(job["config"])
    names, parts, test = _shared_out(tx, fold, dataset_config, branches, entity, seed)
    scaling = _scaling(home, public, config, names) if public else None
    rows = sum(len(y) for _, y in parts.values())
    plan = TrainingPlan.from_settings(names, settings or {}, rows=rows, scaling=scaling)
    least = threshold or -(-2 * branches // 3)
    dataset = str(job["config"]["name"])
    request = RunRequest(
        dataset=dataset,
        name=f"federated train {Path(data).name}",
        data_digest=job["digest"],
        params={
            "federated": {
                k: v for k, v in plan.to_dict().items() if k not in {"columns", "scaling"}
            },
            "branches": branches,
            "threshold": least,
            "colluding": colluding,
        },
        tags={"protects": "a row of features" if plan.private else "nothing beyond sums"},
        git_commit=job["git_commit"],
    )
    folder = home / "federated" / f"{dataset}-{plan.digest.hex()[:8]}"
    shutil.rmtree(folder, ignore_errors=True)  # an earlier rehearsal of the same plan
    with tracked_run(request) as run:
        waiting = CoordinatorSettings(answer_seconds=answer_seconds)
        with (
            LocalBranches(folder, parts, threshold=least, colluding=colluding) as started,
            Coordinator(plan, started.roster, waiting) as coordinator,
        ):
            started.start(plan, CoordinatorAddress("127.0.0.1", coordinator.port))
            coordinator.wait_for(branches, JOIN_SECONDS)
            training = FederatedTraining(
                plan, started.roster, coordinator.ask, coordinator.present, coordinator.nonce
            )
            rounds = _rounds(training, run)
        figures = _figures(training.model, *test)
        run.log_metrics(figures)
        path = folder / "model.json"
        path.write_text(json.dumps(training.model.to_dict()), encoding="utf-8")
        run.log_file(path)
        record = {
            "dataset": dataset,
            "figures": figures,
            "epsilon": rounds[-1]["epsilon"] if plan.private else None,
            "rounds": rounds,
            "rows": rows,
            "model": str(path),
            "run_id": run.run_id,
            "run_page": run.page,
        }
    _publish(record)
    return record


def _rows(home: Path, job: Record) -> tuple[Transactions, Fold]:
    """Return checked transactions and their newest test fold."""
    work, config, inputs = home / "work", job["config"], steps.inputs_of(job)
    checked = steps.check_data(
        str(place_of(work, "checked", inputs).folder),
        data=job["data"],
        config=config,
        quarantine=str(home / "quarantine" / config["name"]),
    )
    require_trainable(checked["report"], job["data"])
    planned = fraud_steps.plan_folds(
        str(place_of(work, "plan", inputs).folder), data=checked["folder"], config=config
    )
    tx = load_transactions_file(Path(checked["folder"]))
    return tx, read_plan(Path(planned["folder"])).test[0]


def _scaling(home: Path, public: str, config: str, names: tuple[str, ...]) -> Encoding:
    job = steps.fingerprint(public, config)
    tx, _ = _rows(home, job)
    features = build_features(tx, DatasetConfig.from_dict(job["config"]))
    if features.names != names:
        raise ValueError(f"{public} gives other features than the data; use the same config")
    return encoding_from(names, row_sums(features.values))


def _shared_out(
    tx: Transactions, fold: Fold, config: DatasetConfig, branches: int, entity: str, seed: int
) -> tuple[tuple[str, ...], dict[str, Part], Part]:
    """Return names of features, training rows of each branch by name, and test rows of all.

    A branch's features, later rows' as well, come of its own payments and labels alone.
    """
    column = entity or list(tx.entities)[-1]
    if column not in tx.entities:
        raise ValueError(f"there is no entity column {column!r}; there are {list(tx.entities)}")
    rows = fold.train_rows(tx)
    training = np.zeros(len(tx), np.bool_)
    training[rows] = True
    home = split_by_entity(tx.entities[column], tx.label, branches, seed, training=training)
    features = branch_features(tx, home, config)
    values = features.values
    owned = {f"branch-{place:03d}": training & (home == place) for place in range(branches)}
    parts = {name: (values[own], tx.label[own]) for name, own in owned.items()}
    judged = judged_rows(tx, fold)
    return features.names, parts, (values[judged], tx.label[judged])


def _rounds(training: FederatedTraining, run: TrackedRun) -> list[Record]:
    """Train to the end; every round's numbers go to the run."""
    rounds = []
    while not training.finished:
        report = training.step()
        run.log_metrics(report.metrics(), step=report.round)
        numbers = {k: v if np.isfinite(v) else None for k, v in report.metrics().items()}
        rounds.append(numbers | {"round": report.round, "left_names": list(report.left)})
    return rounds


def _figures(model: FederatedModel, x: Any, label: Any) -> dict[str, float]:
    scores = model.logits(x)
    return {"auc": roc_auc(label, scores), "ap": average_precision(label, scores)}


def _publish(record: Record) -> None:
    """Show the figures on the flow's page."""
    last = record["rounds"][-1]
    told = {
        "AUC": f"{record['figures']['auc']:.4f}",
        "average precision": f"{record['figures']['ap']:.4f}",
        "rounds": str(len(record["rounds"])),
        "branches in the last sum": f"{last['survivors']:.0f}",
        "epsilon of a row of features": "none: sums are exact"
        if record["epsilon"] is None
        else f"{record['epsilon']:.2f}",
        "bytes a branch sends a round": f"{last['up_bytes']:,.0f}",
        "model": record["model"],
        "MLflow run": record["run_page"],
    }
    rows = [{"what": what, "value": value} for what, value in told.items()]
    create_table_artifact(rows, key=f"{artifact_key(record['dataset'])}-federated")
