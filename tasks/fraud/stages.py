"""Stages of a training job: read finished folders, write one new folder, report JSON data.

Each takes a draft folder and plain arguments, so a stage can run in another process or on another
day; ``steps.py`` wraps them as Prefect tasks.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kernels.bundle.arrays import load_arrays, save_arrays
from kernels.runtime.callbacks import Listen, nobody
from tasks.explain.catalogue.binding import bind
from tasks.explain.catalogue.files import from_toml, house_catalogue
from tasks.explain.catalogue.unmatched import warn_unmatched
from tasks.explain.groups import FeatureGroups
from tasks.fraud.bundle import write_bundle
from tasks.fraud.dataset import DatasetConfig
from tasks.fraud.evaluation.choice import choose_head
from tasks.fraud.evaluation.figures import (
    StoredFold,
    by_head,
    figures,
    result_from_json,
    result_to_json,
)
from tasks.fraud.evaluation.leak_alarm import check_leak
from tasks.fraud.evaluation.plan import Plan, make_plan
from tasks.fraud.evaluation.protocol import DAY_MS
from tasks.fraud.training import (
    FittedFold,
    GraphPart,
    JudgedFold,
    TrainingConfig,
    TrainingError,
    bundle_parts,
    calibrate,
    calibration_rows,
    fit_fold,
    judge_fold,
)
from tasks.fraud.workspace import load_features, load_transactions_file, save_features
from tasks.workspace import DONE

if TYPE_CHECKING:
    from tasks.explain.catalogue.model import Catalogue
    from tasks.fraud.evaluation.protocol import Fold
    from tasks.fraud.features import FeatureSet
    from tasks.fraud.transactions import Transactions

logger = logging.getLogger(__name__)


def build_features_stage(
    draft: Path,
    *,
    data: Path,
    config: Mapping[str, Any],
    categories: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Any]:
    """Compute the feature table of checked transactions."""
    from tasks.fraud.features import build_features

    tx = load_transactions_file(data)
    began = time.perf_counter()
    known = None if categories is None else {c: tuple(v) for c, v in categories.items()}
    features = build_features(tx, DatasetConfig.from_dict(config), categories=known)
    seconds = time.perf_counter() - began
    save_features(draft, features)
    rate = len(tx) / max(seconds, 1e-9)
    logger.info("%d features of %d rows, %.0f rows/s", len(features.names), len(tx), rate)
    return {"features": len(features.names), "rows": len(tx), "seconds": seconds}


def plan_stage(draft: Path, *, data: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """Lay the folds."""
    plan = make_plan(load_transactions_file(data), DatasetConfig.from_dict(config))
    (draft / "plan.json").write_text(json.dumps(plan.to_dict()), encoding="utf-8")
    for note in plan.notes:
        logger.warning("%s", note)
    return {"test": len(plan.test), "validation": len(plan.validation), "notes": list(plan.notes)}


def read_plan(folder: Path) -> Plan:
    """Read what ``plan_stage`` wrote."""
    return Plan.from_dict(json.loads((folder / "plan.json").read_text(encoding="utf-8")))


def judge_stage(
    draft: Path,
    *,
    data: Path,
    features: Path,
    plan: Path,
    config: Mapping[str, Any],
    settings: Mapping[str, Any],
    kind: str,
    index: int,
    listen: Listen = nobody,
    checkpoints: Path | None = None,
) -> dict[str, Any]:
    """Fit and judge one fold; fold 0 of the test also keeps what the shipped model needs."""
    tx, table = load_transactions_file(data), load_features(features)
    training, folds = TrainingConfig.from_dict(settings), read_plan(plan)
    fold = next(f for f in getattr(folds, kind) if f.index == index)
    began = time.perf_counter()
    with network_threads(training):
        graph = fit_graph_part(
            tx, table, fold, DatasetConfig.from_dict(config), training, listen, checkpoints
        )
        fitted = fit_fold(tx, table, fold, training, graph, listen=listen, checkpoints=checkpoints)
        record = save_fold(draft, judge_fold(tx, table, fitted, folds.protocol), kind, fold)
    return record | {"seconds": time.perf_counter() - began}


def save_fold(draft: Path, judged: JudgedFold, kind: str, fold: Fold) -> dict[str, Any]:
    """Keep the scores of a judged fold; return its figures."""
    arrays = {"rows": judged.rows} | {f"score:{h}": s for h, s in judged.scores.items()}
    save_arrays(draft / "scores.npz", arrays)
    results = {head: result_to_json(r) for head, r in judged.results.items()}
    said = ", ".join(f"{head} AP {r['ap']:.3f}" for head, r in results.items())
    logger.info("%s fold %d (%s): %s", kind, fold.index, fold.describe(), said)
    return {"kind": kind, "index": fold.index, "results": results}


@contextmanager
def network_threads(settings: TrainingConfig) -> Iterator[None]:
    """Run the networks on the threads of the settings, then set torch's number back."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(settings.threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def fit_graph_part(
    tx: Transactions,
    features: FeatureSet,
    fold: Fold,
    config: DatasetConfig,
    settings: TrainingConfig,
    listen: Listen = nobody,
    checkpoints: Path | None = None,
) -> GraphPart | None:
    """Train the network of one fold, or return None where the settings leave it out."""
    if not settings.graph:
        return None
    from tasks.fraud.graph import GraphSettings, fit_graph
    from tasks.fraud.graph.entity_training import EntitySettings
    from tasks.fraud.graph.snapshots import SnapshotConfig

    given = settings.network
    try:
        entities = EntitySettings(**given.get("entities", {}))
        snapshots = SnapshotConfig(**given.get("snapshots", {}))
        chosen = GraphSettings(**{**given, "entities": entities, "snapshots": snapshots})
    except TypeError as error:
        raise TrainingError(f"network settings: {error}") from error
    part: GraphPart = fit_graph(
        tx, features, fold, config, settings=chosen, listen=listen, checkpoint_dir=checkpoints
    )
    return part


def read_fold(folder: Path) -> StoredFold:
    """Read what ``judge_stage`` wrote."""
    record = json.loads((folder / DONE).read_text(encoding="utf-8"))
    arrays = load_arrays((folder / "scores.npz").read_bytes(), "scores.npz")
    rows: NDArray[np.intp] = np.asarray(arrays.pop("rows"), dtype=np.intp)
    scores = {k.partition(":")[2]: np.asarray(v, dtype=np.float64) for k, v in arrays.items()}
    results = {head: result_from_json(r) for head, r in record["results"].items()}
    return StoredFold(record["kind"], rows, scores, results)


def read_words(
    catalogue: str, features: FeatureSet, config: DatasetConfig, settings: TrainingConfig
) -> Catalogue:
    """Read the catalogue of a training run and log what of it no group of the model fits.

    Raises:
        tasks.explain.errors.CatalogueError: When it is none, or prohibits a feature.
    """
    words = from_toml(catalogue) if catalogue else house_catalogue()
    names, entities = features.names, [e.column for e in config.entities]
    bind(words, FeatureGroups.of(names, entities))
    if settings.graph:
        from tasks.fraud.graph import SIGNALS

        names = (*names, *SIGNALS)
    warn_unmatched(words, FeatureGroups.of(names, entities))
    return words


def train_stage(
    draft: Path,
    *,
    data: Path,
    features: Path,
    plan: Path,
    folds: Sequence[Path],
    config: Mapping[str, Any],
    settings: Mapping[str, Any],
    data_digest: str,
    git_commit: str,
    catalogue: str = "",
    listen: Listen = nobody,
    checkpoints: Path | None = None,
) -> dict[str, Any]:
    """Choose the head, fit the model that ships, calibrate it and write its bundle.

    ``catalogue`` is the TOML of the reasons' codes and words, "" for the house's.

    Raises:
        LeakSuspected: When the figures are better than the data can give.
        tasks.explain.errors.CatalogueError: When the catalogue prohibits a feature.
    """
    tx, table = load_transactions_file(data), load_features(features)
    described, training = DatasetConfig.from_dict(config), TrainingConfig.from_dict(settings)
    words = read_words(catalogue, table, described, training)
    cuts = read_plan(plan)
    fold = cuts.test[0]
    with network_threads(training):
        graph = fit_graph_part(tx, table, fold, described, training, listen, checkpoints)
        fitted = fit_fold(tx, table, fold, training, graph, listen=listen, checkpoints=checkpoints)
        newest = draft / "fold-0"
        newest.mkdir()
        record = save_fold(newest, judge_fold(tx, table, fitted, cuts.protocol), "test", fold)
        (newest / DONE).write_text(json.dumps(record), encoding="utf-8")
        stored = [read_fold(newest), *(read_fold(folder) for folder in folds)]
        test = [f for f in stored if f.kind == "test"]
        validation = [f for f in stored if f.kind == "validation"]
        active, reason = choose_head([f.results for f in validation])
        logger.info("head '%s' ships: %s", active, reason)
        check_leak(by_head(test)[active], cuts.protocol)
        fitted = calibrate(tx, table, fitted)
        metrics = figures(tx, test, validation, active=active, reason=reason)
        parts = bundle_parts(
            tx,
            table,
            described,
            fitted,
            active=active,
            settings=training,
            thresholds=thresholds_of(tx, table, fitted, described, active),
            metrics=metrics,
            data_digest=data_digest,
            git_commit=git_commit,
            catalogue=words,
        )
    bundle = write_bundle(draft / "bundle", parts)
    return {"active": active, "reason": reason, "digest": bundle.digest, "metrics": metrics}


def thresholds_of(
    tx: Transactions,
    features: FeatureSet,
    fitted: FittedFold,
    config: DatasetConfig,
    active: str,
) -> dict[str, Any]:
    """Fit thresholds on the days between training and test.

    Without such days the last training rows serve, which the model knows: thresholds come out a
    little too high.
    """
    from tasks.fraud.evaluation.thresholds import fit_thresholds

    rows = fitted.fold.delay_rows(tx)
    if not len(calibration_rows(tx, fitted.fold)):
        rows = fitted.fold.train_rows(tx)[-200_000:]
    score = fitted.score(features.values, rows)[active]
    found = fit_thresholds(
        score,
        tx.label[rows],
        tx.amount[rows] / 10**config.decimals,
        tx.time[rows] // DAY_MS,
        tx.entities[config.entities[0].column][rows],
    ).to_dict()
    # Scores end at 1: "never alert" is a threshold just above, which JSON can hold.
    found["cost"] = min(found["cost"], 1.000001)
    return found
