"""Candidate rules: the paths of small trees grown on a teacher's scores.

Every path from a root to a node of a boosted or bagged tree is a conjunction of thresholds
(Friedman and Popescu, "Predictive learning via rule ensembles", Annals of Applied Statistics 2008).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.explain.rules.engine import Bools

Reals = NDArray[np.float64]
Floats = NDArray[np.float32]
Cut = tuple[int, bool, float]
"""Place of a feature, whether the value must exceed the threshold (else it must not), threshold."""

Path = tuple[Cut, ...]


@dataclass(frozen=True, slots=True)
class Grower:
    """One way of growing trees.

    Attributes:
        leaves: Of each tree.
        rounds: Trees.
        bagged: Grown side by side on drawn rows, else each on what is left by those before.
        columns: Share of the features that a tree may use.
    """

    leaves: int
    rounds: int
    bagged: bool = False
    columns: float = 0.5


GROWERS = (Grower(8, 40), Grower(24, 40, columns=0.4), Grower(48, 40, bagged=True, columns=0.4))


def grow_paths(
    rows: Floats,
    target: Reals,
    weights: Reals,
    longest: int,
    seed: int,
    importance: Reals | None = None,
    growers: Sequence[Grower] = GROWERS,
) -> list[Path]:
    """Return distinct paths of trees, in a fixed order.

    Args:
        rows: float32 [n, F], finite.
        target: float64 [n], what the trees shall tell.
        weights: float64 [n], how many rows each stands for.
        longest: Most cuts of a path.
        seed: Of the draws.
        importance: float64 [F], such as mean absolute SHAP values: features by which trees would
            rather cut. None: all alike.
        growers: How trees are grown.
    """
    import lightgbm

    shared: dict[str, Any] = {
        "objective": "regression",
        "num_threads": 1,
        "deterministic": True,
        "verbose": -1,
        "max_bin": 1_023,
        "min_data_in_leaf": 10,
        "feature_pre_filter": False,
    }
    if importance is not None:
        # The least of them keeps a tenth of its gain: it may still be what parts a few rows.
        shared["feature_contri"] = (0.1 + 0.9 * importance / max(importance.max(), 1e-300)).tolist()
    data = lightgbm.Dataset(rows, target, weight=weights, params=shared, free_raw_data=False)
    found: dict[Path, None] = {}
    for place, one in enumerate(growers):
        how = {
            "num_leaves": one.leaves,
            "learning_rate": 0.3,
            "feature_fraction": one.columns,
            "seed": seed + place,
            **(
                {"boosting": "rf", "bagging_fraction": 0.6, "bagging_freq": 1} if one.bagged else {}
            ),
        }
        grown = lightgbm.train(shared | how, data, one.rounds)
        for tree in grown.dump_model()["tree_info"]:
            for path in _paths(tree["tree_structure"], ()):
                if len(path) <= longest:
                    found[path] = None
    return list(found)


def holds_where(path: Path, columns: NDArray[Any]) -> Bools:
    """Return where every cut of a path holds, bool [n], of columns [F, n]."""
    found = np.ones(columns.shape[1], dtype=np.bool_)
    for place, above, value in path:
        found &= (columns[place] > value) if above else (columns[place] <= value)
    return found


def readable(path: Path, columns: NDArray[Any]) -> Path:
    """Return the path with the shortest decimals that part the columns [F, n] in the same way."""
    return tuple((place, above, _shortest(columns[place], value)) for place, above, value in path)


def _shortest(values: NDArray[Any], value: float) -> float:
    below, beyond = values[values <= value], values[values > value]
    if not len(below) or not len(beyond):
        return value
    low, high = float(below.max()), float(beyond.min())
    for digits in range(1, 17):
        short = float(f"{(low + high) / 2:.{digits}g}")
        if low <= short < high:
            return short
    return value


def _paths(node: dict[str, Any], above: Path) -> Iterator[Path]:
    if above:
        yield above
    if "split_feature" in node:
        place, value = int(node["split_feature"]), float(node["threshold"])
        yield from _paths(node["left_child"], _with(above, (place, False, value)))
        yield from _paths(node["right_child"], _with(above, (place, True, value)))


def _with(path: Path, cut: Cut) -> Path:
    """Return a path with one cut more; on the same side of a feature the stricter one stays."""
    kept = {(place, over): value for place, over, value in path}
    place, over, value = cut
    before = kept.get((place, over), value)
    kept[place, over] = max(before, value) if over else min(before, value)
    return tuple((where, side, kept[where, side]) for where, side in sorted(kept))
