"""Gradient-boosted trees: the mean log-odds of LightGBM models grown from several seeds.

Ke et al., "LightGBM: a highly efficient gradient boosting decision tree", NeurIPS 2017. Models
live as text (LightGBM's own format) and as ONNX, never as pickles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tasks.fraud.heads.calibration import Calibration
from tasks.fraud.heads.head import Head, HeadError, check_features, check_labels
from tasks.fraud.heads.onnx_graph import GraphBuilder

if TYPE_CHECKING:
    import lightgbm

_FLOOR_SAMPLE = 100_000
"""Training rows, evenly spaced, whose scores set the floor."""


@dataclass(frozen=True, slots=True)
class TreeConfig:
    """Settings of the trees, chosen on the validation folds of the public protocol.

    Attributes:
        rounds: Boosting rounds of each model.
        learning_rate: Shrinkage.
        leaves: Leaves of a tree.
        min_rows: Fewest training rows in a leaf (sampled rows, see ``legitimate_rows``).
        l2: Penalty on leaf values.
        columns: Share of features each tree may use.
        bins: Histogram bins per feature. Fine bins resolve the tails, where frauds are.
        legitimate_rows: Legitimate rows each model learns from, drawn anew for each seed and
            weighted to stand for all; frauds are always kept.
        floor: Share of the training rows, lowest scores first, that are tied to one score. Where
            the features say nothing about a row, its order among others like it is noise; choose
            the share on validation folds. 0: no ties.
        seeds: Models averaged; seeds are ``seed .. seed + seeds - 1``.
        seed: First seed.
        threads: CPU threads of training.
    """

    rounds: int = 150
    learning_rate: float = 0.05
    leaves: int = 8
    min_rows: int = 25
    l2: float = 1.0
    columns: float = 0.5
    bins: int = 4095
    legitimate_rows: int = 100_000
    floor: float = 0.0
    seeds: int = 5
    seed: int = 0
    threads: int = 1

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        for name in ("rounds", "min_rows", "legitimate_rows", "seeds", "threads"):
            if getattr(self, name) < 1:
                raise HeadError(f"trees.{name} must be at least 1, got {getattr(self, name)}")
        if self.leaves < 2 or self.bins < 2:
            raise HeadError("trees.leaves and trees.bins must be at least 2")
        if not 0 < self.columns <= 1 or not 0 < self.learning_rate <= 1:
            raise HeadError("trees.columns and trees.learning_rate must lie in (0, 1]")
        if self.l2 < 0 or not 0 <= self.floor < 1:
            raise HeadError("trees.l2 must not be negative and trees.floor must lie in [0, 1)")


class TreeScorer:
    """Mean log-odds of LightGBM models.

    Attributes:
        boosters: The models (``lightgbm.Booster``), for exact explanations.
    """

    def __init__(self, boosters: Sequence[Any], threads: int = 1) -> None:
        if not boosters:
            raise HeadError("a tree head needs at least one model")
        self.boosters = tuple(boosters)
        self._threads = threads

    @property
    def width(self) -> int:
        """Number of features F."""
        return int(self.boosters[0].num_feature())

    def logit(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return log-odds [n]."""
        total = np.zeros(len(x))
        if len(x) == 0:
            return total
        for booster in self.boosters:
            total += booster.predict(x, raw_score=True, num_threads=self._threads)
        return total / len(self.boosters)

    def to_text(self) -> tuple[str, ...]:
        """Return every model in LightGBM's text format."""
        return tuple(b.model_to_string() for b in self.boosters)

    @classmethod
    def from_text(cls, models: Sequence[str], threads: int = 1) -> TreeScorer:
        """Rebuild from ``to_text``."""
        import lightgbm

        return cls([lightgbm.Booster(model_str=m) for m in models], threads)

    def add_to(self, graph: GraphBuilder, features: str) -> str:
        """Add one TreeEnsembleRegressor that holds every tree of every seed."""
        nodes = _Nodes()
        tree = 0
        for booster in self.boosters:
            for info in booster.dump_model()["tree_info"]:
                nodes.add_tree(tree, info["tree_structure"], 1.0 / len(self.boosters))
                tree += 1
        return graph.node(
            "TreeEnsembleRegressor",
            [features],
            domain="ai.onnx.ml",
            n_targets=1,
            aggregate_function="SUM",
            post_transform="NONE",
            **nodes.attributes(),
        )


def fit_trees(x: NDArray[np.float32], y: ArrayLike, config: TreeConfig | None = None) -> Head:
    """Fit the trees; the head is uncalibrated until ``Head.calibrated``.

    Args:
        x: float32 [n, F].
        y: [n] 1 fraud, 0 legitimate.
        config: Settings.

    Raises:
        HeadError: On labels of one class, unknown labels, or features that are not finite.
    """
    settings = config or TreeConfig()
    values = check_features(x)
    labels = check_labels(y, len(values))
    boosters = [_grow(values, labels, settings, settings.seed + i) for i in range(settings.seeds)]
    scorer = TreeScorer(boosters, settings.threads)
    if settings.floor == 0:
        return Head(scorer)
    sample = scorer.logit(values[:: max(1, len(values) // _FLOOR_SAMPLE)])
    return Head(scorer, Calibration(floor=float(np.quantile(sample, settings.floor))))


def _grow(
    x: NDArray[np.float32], y: NDArray[np.int8], config: TreeConfig, seed: int
) -> lightgbm.Booster:
    """Grow one model on all frauds and a draw of legitimate rows that stands for all of them."""
    import lightgbm

    legitimate = np.flatnonzero(y == 0)
    rows = np.arange(len(y))
    weight = None
    if len(legitimate) > config.legitimate_rows:
        drawn = np.random.default_rng(seed).choice(
            legitimate, config.legitimate_rows, replace=False
        )
        rows = np.sort(np.concatenate([np.flatnonzero(y == 1), drawn]))
        weight = np.where(y[rows] == 1, 1.0, len(legitimate) / config.legitimate_rows)
    parameters = _parameters(config, seed)
    data = lightgbm.Dataset(x[rows], label=y[rows], weight=weight, params=parameters)
    return lightgbm.train(parameters, data, num_boost_round=config.rounds)


def _parameters(config: TreeConfig, seed: int) -> dict[str, Any]:
    return {
        "objective": "binary",
        "learning_rate": config.learning_rate,
        "num_leaves": config.leaves,
        "min_data_in_leaf": config.min_rows,
        "lambda_l2": config.l2,
        "feature_fraction": config.columns,
        "seed": seed,
        "max_bin": config.bins,
        "min_data_in_bin": 1,
        "bin_construct_sample_cnt": 1_000_000,
        "num_threads": config.threads,
        "deterministic": True,
        "force_row_wise": True,
        "use_missing": False,
        "feature_pre_filter": False,
        "verbosity": -1,
    }


class _Nodes:
    """Collects trees as the parallel lists of the ONNX tree operators."""

    def __init__(self) -> None:
        self._lists: dict[str, list[Any]] = {
            name: []
            for name in (
                "nodes_treeids",
                "nodes_nodeids",
                "nodes_featureids",
                "nodes_modes",
                "nodes_values",
                "nodes_truenodeids",
                "nodes_falsenodeids",
                "nodes_hitrates",
                "nodes_missing_value_tracks_true",
                "target_treeids",
                "target_nodeids",
                "target_ids",
                "target_weights",
            )
        }

    def attributes(self) -> dict[str, list[Any]]:
        return self._lists

    def add_tree(self, tree: int, root: Mapping[str, Any], scale: float) -> None:
        """Number the nodes breadth first and append them."""
        queue = [root]
        position = 0
        while position < len(queue):
            node = queue[position]
            if "split_feature" in node:
                left = len(queue)
                queue += [node["left_child"], node["right_child"]]
                self._append(tree, position, node, left)
            else:
                self._append(tree, position, None, 0)
                for name, value in (
                    ("target_treeids", tree),
                    ("target_nodeids", position),
                    ("target_ids", 0),
                    ("target_weights", float(node["leaf_value"]) * scale),
                ):
                    self._lists[name].append(value)
            position += 1

    def _append(self, tree: int, number: int, split: Mapping[str, Any] | None, left: int) -> None:
        if split is not None and split["decision_type"] != "<=":
            raise HeadError(f"tree split {split['decision_type']!r} cannot be exported")
        row = {
            "nodes_treeids": tree,
            "nodes_nodeids": number,
            "nodes_featureids": 0 if split is None else int(split["split_feature"]),
            "nodes_modes": "LEAF" if split is None else "BRANCH_LEQ",
            "nodes_values": 0.0 if split is None else float32_below(float(split["threshold"])),
            "nodes_truenodeids": left,
            "nodes_falsenodeids": 0 if split is None else left + 1,
            "nodes_hitrates": 1.0,
            "nodes_missing_value_tracks_true": 0,
        }
        for name, value in row.items():
            self._lists[name].append(value)


def float32_below(value: float) -> float:
    """Return the largest float32 not above ``value``: then x <= value is the same for float32 x."""
    largest = float(np.finfo(np.float32).max)
    clipped = min(max(value, -largest), largest)
    rounded = np.float32(clipped)
    if float(rounded) > clipped:
        rounded = np.nextafter(rounded, np.float32(-np.inf), dtype=np.float32)
    return float(rounded)
