"""Fits the heads of one fold and turns the newest fold into the model that ships.

Every fold fits the same heads on the same rows: ``tabular`` (trees), ``logistic``, ``mlp`` (small
network), and with a graph part ``graph`` (mail and embeddings alone) and ``both`` (trees on the
features and the graph net's signals). The shipped model is that of test fold 0. Its calibration and
thresholds come from the days between training and test, which no fitted weight has seen; the test
week stays untouched for the comparison with the champion. Their labels become known while the test
week runs: on the days after it, where the model serves, they are older than the delay, but a
probability shown for the test week itself (not its rank, which calibration keeps) has had help from
labels younger than that.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from kernels.runtime.callbacks import Listen, nobody
from tasks.explain.catalogue.files import house_catalogue, to_toml
from tasks.fraud.bundle import BundleParts
from tasks.fraud.bundle.embeddings import Embeddings
from tasks.fraud.bundle.heads import compose
from tasks.fraud.catalogue import CATALOGUE_FILE
from tasks.fraud.evaluation.protocol import FoldResult, evaluate_fold, judged_rows
from tasks.fraud.features import FEATURES_VERSION
from tasks.fraud.heads import (
    Head,
    LogisticConfig,
    MlpConfig,
    TreeConfig,
    fit_logistic,
    fit_mlp,
    fit_trees,
)
from tasks.fraud.heads.files import head_to_dict

if TYPE_CHECKING:
    from tasks.explain.catalogue.model import Catalogue
    from tasks.fraud.dataset import DatasetConfig
    from tasks.fraud.evaluation.protocol import Fold
    from tasks.fraud.evaluation.protocol import Protocol as Rules
    from tasks.fraud.features import FeatureSet
    from tasks.fraud.transactions import Transactions

logger = logging.getLogger(__name__)

Rows = NDArray[np.intp]

_HEAD_SETTINGS: Mapping[str, type[Any]] = {
    "trees": TreeConfig,
    "logistic": LogisticConfig,
    "mlp": MlpConfig,
}


class TrainingError(ValueError):
    """A fold that cannot be trained; the message names the fix."""


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """Settings of the heads.

    Attributes:
        trees: Trees of ``tabular`` and ``both``.
        logistic: Logistic regression.
        mlp: Small network on the scaled features.
        graph: Whether the graph part is trained.
        network: Settings of the graph part that differ from its defaults (``GraphSettings``).
        threads: CPU threads of the networks. Their matrices are small: on two cores a second
            thread gains nothing, and on a busy machine it waits most of the time.
        background_rows: Training rows kept as SHAP background.
        seed: Seed of the background's draw.
    """

    trees: TreeConfig = field(default_factory=TreeConfig)
    logistic: LogisticConfig = field(default_factory=LogisticConfig)
    mlp: MlpConfig = field(default_factory=MlpConfig)
    graph: bool = True
    network: Mapping[str, Any] = field(default_factory=dict)
    threads: int = 1
    background_rows: int = 512
    seed: int = 0

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if self.threads < 1:
            raise TrainingError(f"threads must be at least 1, got {self.threads}")
        if self.background_rows < 16:
            raise TrainingError(f"background_rows must be at least 16, got {self.background_rows}")

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TrainingConfig:
        """Read plain data.

        Raises:
            TrainingError: On unknown settings.
        """
        unknown = sorted(set(data) - {f.name for f in fields(cls)})
        if unknown:
            known = ", ".join(f.name for f in fields(cls))
            raise TrainingError(f"unknown training setting {unknown[0]!r}; known: {known}")
        values = dict(data)
        try:
            for name, kind in _HEAD_SETTINGS.items():
                if isinstance(values.get(name), Mapping):
                    # JSON and TOML know lists, the settings hold tuples.
                    given = values[name].items()
                    values[name] = kind(
                        **{k: tuple(v) if isinstance(v, list) else v for k, v in given}
                    )
            return cls(**values)
        except TypeError as error:
            raise TrainingError(f"training settings: {error}") from error


class GraphPart(Protocol):
    """A fitted network over graph and mailboxes, for the rows of one data set."""

    def hidden(self, rows: Rows) -> NDArray[np.float32]:
        """Return what the trees of ``both`` read beside the features, float32 [m, H]."""

    def predict(self, rows: Rows) -> NDArray[np.float64]:
        """Return the network's own probability [m]."""

    def inputs(self, rows: Rows) -> dict[str, NDArray[Any]]:
        """Return ``mail`` [m, T, d], ``mask`` [m, T], ``embeddings`` [m, C, E]."""

    def embeddings(self) -> Embeddings:
        """Return the embedding of every entity."""

    def to_onnx(self) -> bytes:
        """Return the network: features, mail, mask, embeddings -> hidden [n, H]."""

    def to_safetensors(self) -> bytes:
        """Return the weights, for retraining."""


@dataclass(frozen=True, slots=True)
class FittedFold:
    """The heads of one fold.

    Attributes:
        fold: The cut.
        heads: Head name -> fitted head.
        graph: The graph part, None without one.
    """

    fold: Fold
    heads: Mapping[str, Head]
    graph: GraphPart | None = None

    def score(self, values: NDArray[np.float32], rows: Rows) -> dict[str, NDArray[np.float64]]:
        """Return probabilities by head for chosen rows of the feature table."""
        scores = {
            name: head.predict(self.head_inputs(name, values, rows))
            for name, head in self.heads.items()
        }
        if self.graph is not None:
            scores["graph"] = self.graph.predict(rows)
        return scores

    def head_inputs(
        self, name: str, values: NDArray[np.float32], rows: Rows
    ) -> NDArray[np.float32]:
        """Return what a head reads: the features, for ``both`` with the network's output."""
        chosen = np.ascontiguousarray(values[rows])
        if name != "both" or self.graph is None:
            return chosen
        return np.concatenate([chosen, self.graph.hidden(rows)], axis=1)


@dataclass(frozen=True, slots=True)
class JudgedFold:
    """Scores and figures of one fold.

    Attributes:
        rows: Judged rows of the data set.
        scores: Head -> probability of each.
        results: Head -> figures.
    """

    rows: Rows
    scores: Mapping[str, NDArray[np.float64]]
    results: Mapping[str, FoldResult]


def training_rows(tx: Transactions, fold: Fold) -> Rows:
    """Return the rows a fold learns from: labels known when its test begins.

    Raises:
        TrainingError: When a class is absent.
    """
    rows = fold.train_rows(tx)
    frauds = int((tx.label[rows] == 1).sum())
    if not 0 < frauds < len(rows):
        raise TrainingError(
            f"training days before {fold.describe()} hold {frauds} frauds in {len(rows)} labelled "
            "rows; both classes are needed: raise split.train_days or check the label column"
        )
    return rows


def fit_fold(
    tx: Transactions,
    features: FeatureSet,
    fold: Fold,
    config: TrainingConfig,
    graph: GraphPart | None = None,
    *,
    listen: Listen = nobody,
    checkpoints: Path | None = None,
) -> FittedFold:
    """Fit every head on one fold's training window; scores are not calibrated yet."""
    rows = training_rows(tx, fold)
    label = tx.label[rows]
    values = np.ascontiguousarray(features.values[rows])
    logger.info("fold %d: fitting on %d rows, %d frauds", fold.index, len(rows), (label == 1).sum())
    heads = {
        "tabular": fit_trees(values, label, config.trees),
        "logistic": fit_logistic(values, label, config.logistic),
        "mlp": fit_mlp(
            values,
            label,
            config.mlp,
            callbacks=listen("mlp"),
            checkpoint_dir=checkpoints / "mlp" if checkpoints else None,
        ),
    }
    if graph is not None:
        wide = np.concatenate([values, graph.hidden(rows)], axis=1)
        heads["both"] = fit_trees(wide, label, config.trees)
    return FittedFold(fold, heads, graph)


def judge_fold(
    tx: Transactions, features: FeatureSet, fitted: FittedFold, protocol: Rules
) -> JudgedFold:
    """Score a fold's test window and judge every head on the same rows."""
    rows = judged_rows(tx, fitted.fold, protocol.entity)
    scores = fitted.score(features.values, rows)
    results = {
        name: evaluate_fold(tx, fitted.fold, score, protocol, rows=rows)
        for name, score in scores.items()
    }
    return JudgedFold(rows, scores, results)


def calibration_rows(tx: Transactions, fold: Fold) -> Rows:
    """Return labelled rows between training and test; empty without both classes or delay."""
    rows = fold.delay_rows(tx)
    rows = rows[tx.label[rows] >= 0]
    label = tx.label[rows]
    usable = (label == 1).any() and (label == 0).any()
    return rows if usable else rows[:0]


def calibrate(tx: Transactions, features: FeatureSet, fitted: FittedFold) -> FittedFold:
    """Calibrate every head on the days between training and test.

    Without such days (no label delay) the heads keep their own probabilities; all of them are
    trained on log-loss, so these are usable.
    """
    rows = calibration_rows(tx, fitted.fold)
    if not len(rows):
        logger.warning("no labelled days between training and test: scores are not calibrated")
        return fitted
    heads = {
        name: head.calibrated(fitted.head_inputs(name, features.values, rows), tx.label[rows])
        for name, head in fitted.heads.items()
    }
    return replace(fitted, heads=heads)


def background_rows(tx: Transactions, fold: Fold, config: TrainingConfig) -> Rows:
    """Draw the SHAP background from the training rows."""
    rows = training_rows(tx, fold)
    rng = np.random.default_rng(config.seed)
    count = min(config.background_rows, len(rows))
    return np.sort(rng.choice(rows, size=count, replace=False))


def onnx_heads(fitted: FittedFold) -> dict[str, bytes]:
    """Export every head; ``both`` is network and trees in one file."""
    graphs = {}
    for name, head in fitted.heads.items():
        graphs[name] = head.to_onnx()
        if name == "both" and fitted.graph is not None:
            graphs[name] = compose(fitted.graph.to_onnx(), graphs[name])
    return graphs


def bundle_parts(
    tx: Transactions,
    features: FeatureSet,
    config: DatasetConfig,
    fitted: FittedFold,
    *,
    active: str,
    settings: TrainingConfig,
    thresholds: Mapping[str, Any],
    metrics: Mapping[str, Any],
    data_digest: str,
    git_commit: str,
    catalogue: Catalogue | None = None,
) -> BundleParts:
    """Collect what the bundle of a fitted, calibrated fold holds.

    The reason catalogue (None: the house's) is kept whole, so that words of another version of
    Penstock never stand beside an old model.
    """
    fold, graph = fitted.fold, fitted.graph
    background = background_rows(tx, fold, settings)
    example = background[:: max(1, len(background) // 16)][:16]
    inputs: dict[str, NDArray[Any]] = {"features": features.values[example]}
    words = to_toml(catalogue or house_catalogue())
    extras = {"heads.json": _heads_json(fitted), CATALOGUE_FILE: words.encode()}
    if graph is not None:
        inputs |= graph.inputs(example)
        extras["graph.safetensors"] = graph.to_safetensors()
    return BundleParts(
        config=config,
        feature_names=features.names,
        features_version=FEATURES_VERSION,
        heads=onnx_heads(fitted),
        active=active,
        thresholds=thresholds,
        metrics=metrics,
        background=np.ascontiguousarray(features.values[background]),
        example=inputs,
        trained_until=fold.test_start,
        data_digest=data_digest,
        git_commit=git_commit,
        embeddings=graph.embeddings() if graph is not None else Embeddings(),
        background_signals=graph.hidden(background) if graph is not None else None,
        categories={c: list(values) for c, values in features.categories.items()},
        extras=extras,
    )


def _heads_json(fitted: FittedFold) -> bytes:
    data = {name: head_to_dict(head) for name, head in fitted.heads.items()}
    return json.dumps(data, sort_keys=True).encode()
