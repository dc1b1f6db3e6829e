"""A forest: the sum of many small trees, scored and explained exactly within microseconds.

A forest holds K models of one set of features, each a list of trees. Scores sum over all of
them; contributions are kept apart by model, so that their spread over the models can be told.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kernels.forest import cpu, paths
from kernels.forest.layout import build_layout
from kernels.forest.trees import ForestError, Tree

if TYPE_CHECKING:
    from kernels.forest.interventional import InterventionalForest

Rows = NDArray[np.float32] | NDArray[np.float64]
Ints = NDArray[np.int64]
Reals = NDArray[np.float64]

TABLE_BYTES = 64 * 2**20
"""Most memory of the tables of contributions; trees that find no room are followed path by path."""

_FEW = 10
"""Up to so many rows, one at a time is faster than a block."""


_LINE = 8
"""float64 per cache line."""


class _Tables(NamedTuple):
    """Tables of contributions, see ``cpu.explain_rows``, and the trees that have none.

    ``feature`` is the target of each entry when contributions are told by feature.
    """

    table: Reals
    places: Ints
    feature: Ints
    walked: Ints
    walked_model: Ints


class Forest:
    """K models over F features, compiled.

    Attributes:
        n_features: Number of features F.
        base: float64 [K], mean output of each model over its training rows.
    """

    _most_states = math.inf  # of a tree with a table
    _layers = 1  # of a table

    def __init__(
        self,
        models: Sequence[Sequence[Tree]],
        n_features: int,
        *,
        table_bytes: int = TABLE_BYTES,
    ) -> None:
        """Compile the trees.

        Args:
            models: Trees of every model.
            n_features: Features of a row.
            table_bytes: Most memory of the tables of contributions.

        Raises:
            ForestError: Without models, or when a tree tests a feature that rows do not have.
        """
        trees = list(chain.from_iterable(models))
        if not models or not trees:
            raise ForestError("a forest needs at least one model with a tree")
        highest = max((int(t.feature.max()) for t in trees if len(t.feature)), default=-1)
        if highest >= n_features:
            raise ForestError(
                f"a tree tests feature {highest}, rows have {n_features}; pass the number of "
                "features that the models were trained on"
            )
        self.n_features = n_features
        self._given = tuple(tuple(model) for model in models)
        self.base = np.array([sum(t.mean for t in model) for model in models])
        self._model = np.repeat(np.arange(len(models)), [len(m) for m in models]).astype(np.int64)
        self._layout = build_layout(trees)
        self._table_bytes = table_bytes

    @property
    def models(self) -> int:
        """Number of models K."""
        return len(self.base)

    @property
    def trees(self) -> int:
        """Number of trees, of all models."""
        return len(self._model)

    @property
    def tabulated(self) -> int:
        """Number of trees whose contributions come from tables."""
        return self.trees - len(self._tables.walked)

    def score(self, x: NDArray[Any]) -> Reals:
        """Return the sum over all trees, float64 [n].

        Args:
            x: Rows [n, F], float32 or float64; NaN and infinities as LightGBM takes them.

        Raises:
            ForestError: On another width.
        """
        rows, plan = self._rows(x), self._layout
        out, threshold = np.zeros(len(rows)), self._threshold(rows)
        if len(rows) <= _FEW:
            cpu.score_few(rows, plan.columns, plan.words, threshold, plan.leaf, out)
        else:
            cpu.score_rows(rows, plan.columns, plan.words, threshold, plan.used, plan.leaf, out)
        self._walk_scores(rows, out)
        return out

    def score_row(self, x: Rows) -> float:
        """Return the score of one row [F]: the same number as ``score`` gives it."""
        row, plan = self._row(x), self._layout
        score: float = cpu.score_row(row, plan.columns, plan.words, self._threshold(row), plan.leaf)
        return self._with_walked(row, score)

    def contributions(self, x: NDArray[Any], groups: ArrayLike | None = None) -> Reals:
        """Return exact path-dependent SHAP values, float64 [K, n, F], or [K, n, G] by group.

        For every model and row, ``base + contributions.sum()`` is the model's sum over its trees.

        Args:
            x: Rows as in ``score``.
            groups: int [F], group 0..G-1 of every feature; the values of its features are summed.

        Raises:
            ForestError: On another width, or groups that do not fit.
        """
        rows, group = self._rows(x), self._groups(groups)
        plan, tables = self._layout, self._tables
        out = np.zeros((self.models, len(rows), int(group.max(initial=-1)) + 1))
        cpu.explain_rows(
            rows,
            plan.columns,
            plan.words,
            self._threshold(rows),
            plan.used,
            tables.table,
            tables.places,
            group[tables.feature],
            out,
        )
        self._walk(rows, group, out)
        return out

    def explain_row(self, x: Rows) -> tuple[float, Reals]:
        """Return score and contributions float64 [K, F] of one row [F]."""
        score, out = self._explain_row(x, 1)
        return score, out[0]

    def _explain_row(self, x: Rows, layers: int) -> tuple[float, Reals]:
        """Return score and contributions float64 [L, K, F] by layer of the tables."""
        row = self._row(x)
        plan, tables = self._layout, self._tables
        out = np.zeros((layers, self.models, self.n_features))
        score: float = cpu.explain_row(
            row,
            plan.columns,
            plan.words,
            self._threshold(row),
            plan.leaf,
            tables.table,
            tables.places,
            tables.feature,
            out,
        )
        if len(tables.walked):
            for layer in range(layers):
                self._walk(row[None], np.arange(self.n_features), out[layer][:, None], layer)
        return self._with_walked(row, score), out

    def interventional(
        self, background: NDArray[Any], *, table_bytes: int = TABLE_BYTES, replicates: int = 0
    ) -> InterventionalForest:
        """Return a forest whose contributions are interventional SHAP values, exactly.

        For every model and row, ``base + contributions.sum()`` is the model's sum over its trees,
        and ``base`` its mean over the background rows. A row takes the same time whatever their
        number, but for paths that find no room in tables.

        Args:
            background: Rows [m, F] that features not known are taken from, as in ``score``.
            table_bytes: Most memory of tables, and again of paths that find no room there.
            replicates: Half samples of the background for each model, from which
                ``explain_row_with_replicates`` tells how far another background would move a value.

        Raises:
            ForestError: On another width, without background rows (without two of them where there
                are replicates), when paths without tables need more memory than allowed, or when
                one of them tests more than 62 features.
        """
        from kernels.forest.interventional import InterventionalForest

        return InterventionalForest(
            self._given,
            self.n_features,
            background,
            table_bytes=table_bytes,
            replicates=replicates,
        )

    def _threshold(self, x: Rows) -> Rows:
        return self._layout.single if x.dtype.char == "f" else self._layout.double

    def _walk_scores(self, rows: Rows, out: Reals) -> None:
        if len(self._layout.walked):
            paths.walk_scores(rows, self._layout.vertices, self._layout.walked, out)

    def _with_walked(self, row: Rows, score: float) -> float:
        if not len(self._layout.walked):
            return score
        out = np.array([score])
        self._walk_scores(row[None], out)
        return float(out[0])

    def _walk(self, rows: Rows, group: Ints, out: Reals, layer: int = 0) -> None:
        del layer  # path-dependent values have one
        tables = self._tables
        if len(tables.walked):
            paths.walk_contributions(
                rows,
                self._layout.vertices,
                tables.walked,
                tables.walked_model,
                group,
                self._weights,
                out,
            )

    @cached_property
    def _weights(self) -> Reals:
        return paths.shapley_weights(int(np.diff(self._layout.vertices.features).max()))

    @cached_property
    def _tables(self) -> _Tables:
        """Tabulate trees from the first on, while there is room."""
        plan, vertices = self._layout, self._layout.vertices
        masked = plan.masked
        width = np.diff(vertices.features)[masked]
        step = (
            -(-width * self._layers // _LINE) * _LINE
        )  # a state lies in as few cache lines as can be
        wanted = (width > 0) & (plan.states[masked] <= self._most_states)
        cells = np.where(wanted, plan.states[masked] * step, 0.0)
        fits = wanted & (np.cumsum(cells) * 8 <= self._table_bytes)
        chosen, places = masked[fits], np.zeros((5, len(masked)), np.int64)
        places[cpu.START, fits] = _starts(cells[fits].astype(np.int64))
        places[cpu.STEP] = step
        places[cpu.FIRST, fits] = _starts(width[fits])
        places[cpu.WIDTH, fits] = width[fits]
        places[cpu.MODEL] = self._model[masked]
        table = _aligned(int(cells[fits].sum()))
        self._fill(chosen, places[cpu.START, fits], step[fits], table)
        kept = [vertices.distinct[vertices.features[t] : vertices.features[t + 1]] for t in chosen]
        feature = np.concatenate([*kept, np.zeros(0)]).astype(np.int64)
        walked = np.setdiff1d(np.arange(self.trees), chosen)
        return _Tables(table, places, feature, walked, self._model[walked])

    def _fill(self, chosen: Ints, start: Ints, step: Ints, table: Reals) -> None:
        """Write the contributions of every state of some trees, see ``paths.fill_tables``."""
        plan = self._layout
        states = plan.states[chosen].astype(np.int64)
        paths.fill_tables(plan.vertices, chosen, states, start, step, self._weights, table)

    def _rows(self, x: NDArray[Any]) -> Rows:
        if x.ndim != 2 or x.shape[1] != self.n_features:
            raise ForestError(f"rows of shape {x.shape} do not fit [n, {self.n_features}]")
        return _plain(x)

    def _row(self, x: Rows) -> Rows:
        if x.shape != (self.n_features,):
            raise ForestError(f"a row of shape {x.shape} does not fit [{self.n_features}]")
        return _plain(x)

    def _groups(self, groups: ArrayLike | None) -> Ints:
        if groups is None:
            return np.arange(self.n_features)
        group = np.asarray(groups, dtype=np.int64)
        if group.shape != (self.n_features,) or group.min(initial=0) < 0:
            raise ForestError(
                f"groups must hold one number from 0 for each of {self.n_features} features"
            )
        return group


def _plain(x: NDArray[Any]) -> Rows:
    """Return contiguous, writable float32 or float64: other arrays would be compiled for anew."""
    char = x.dtype.char
    if char in "fd" and x.flags.carray and x.dtype.isnative:
        return x
    kind = np.dtype(char) if char in "fd" else np.dtype(np.float64)
    return np.require(x, dtype=kind, requirements=["C", "W", "A"])


def _starts(lengths: Ints) -> Ints:
    return np.cumsum(lengths) - lengths


def _aligned(size: int) -> Reals:
    """Return zeros that begin with a cache line."""
    room = np.zeros(size + _LINE)
    skipped = (-room.ctypes.data // 8) % _LINE
    return room[skipped : skipped + size]
