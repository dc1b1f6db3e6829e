"""A forest whose contributions are measured against background rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.forest import backgrounds, paths
from kernels.forest.backgrounds import Sets
from kernels.forest.cuts import cut
from kernels.forest.forest import TABLE_BYTES, Forest, Rows
from kernels.forest.half_samples import half_sample_weights
from kernels.forest.trees import ForestError, Tree

Ints = NDArray[np.int64]
Reals = NDArray[np.float64]

PIECE_STATES = 512
"""Most states of a piece of several leaves. A tree of eight leaves has at most 128: one piece."""

LEAF_STATES = 4096
"""States of a piece that is tabulated: filling it takes up to the 1.6th power of them."""

_BLOCK = 1024
"""Rows whose way through walked pieces is held at a time."""


class InterventionalForest(Forest):
    """A forest with exact interventional SHAP values; ``Forest.interventional`` makes it.

    Trees of many states are cut into pieces that add up to them, and ``trees`` and ``tabulated``
    count pieces. Scores are those of the forest; where trees were cut, to the last digits.

    Attributes:
        base: float64 [K], mean output of each model over the background rows.
        background_rows: Number of background rows.
        replicates: Half samples of the background for each model.
    """

    _most_states = LEAF_STATES

    def __init__(
        self,
        models: Sequence[Sequence[Tree]],
        n_features: int,
        background: NDArray[Any],
        *,
        table_bytes: int = TABLE_BYTES,
        replicates: int = 0,
    ) -> None:
        """Tabulate the contributions; see ``Forest.interventional``."""
        pieces = [[p for tree in model for p in cut(tree, PIECE_STATES)] for model in models]
        super().__init__(pieces, n_features, table_bytes=table_bytes)
        self._background = self._rows(background)
        self.background_rows = len(background)
        if not self.background_rows:
            raise ForestError("the background is empty; contributions need at least one row")
        self.replicates, self._layers = replicates, 1 + replicates
        self._shares = half_sample_weights(self.background_rows, self.models, replicates)
        self.base = self._mean_outputs()
        self._sets = self._counted(self._tables.walked)
        # Its rows are counted: a later change of them must not matter.
        del self._background, self._shares

    def explain_row_with_replicates(self, x: Rows) -> tuple[float, Reals, Reals]:
        """Return score, contributions float64 [K, F] and replicates float64 [R * K, F] of one row.

        Replicates are differences between halves of the background. Their squares add up to the
        variance of a mean contribution over backgrounds of this size; so do, for the variance of a
        sum over features, the squares of their sums.
        """
        score, out = self._explain_row(x, self._layers)
        return score, out[0], out[1:].reshape(-1, self.n_features)

    def _mean_outputs(self) -> Reals:
        means = []
        for k in range(self.models):
            outputs = np.zeros(self.background_rows)
            own = np.flatnonzero(self._model == k)
            paths.walk_scores(self._background, self._layout.vertices, own, outputs)
            means.append(outputs.mean())
        return np.array(means)

    def _fill(self, chosen: Ints, start: Ints, step: Ints, table: Reals) -> None:
        plan = self._layout
        for t, begin, entries in zip(chosen.tolist(), start.tolist(), step.tolist(), strict=True):
            states = int(plan.states[t])
            right = paths.turns(self._background, plan.vertices, np.array([t]))
            own = table[begin : begin + states * entries]
            share = self._shares[self._model[t]]
            backgrounds.fill_table(
                right, plan.vertices, t, states, self._weights, share, entries, own
            )

    def _counted(self, walked: Ints) -> Sets:
        """Count the background rows by the features at which they pass, leaf by leaf."""
        trees = self._layout.vertices
        lengths, words, shares = [0], [], []
        room = self._table_bytes // (8 + 8 * self._layers)
        for t in walked.tolist():
            right = paths.turns(self._background, trees, np.array([t]))
            for leaf in range(right.shape[1] + 1):
                place, features = backgrounds.path_features(trees, t, leaf)
                if len(features) > backgrounds.WORD_FEATURES:
                    raise ForestError(
                        f"a path tests {len(features)} distinct features, at most "
                        f"{backgrounds.WORD_FEATURES} are explained against a background; limit "
                        "max_depth in training, or use path-dependent contributions"
                    )
                silent = trees.value[trees.nodes[t] + t + leaf] == 0.0
                found = np.empty(0 if silent else len(right), np.int64)
                backgrounds.pack(right, trees, t, leaf, place, found)
                distinct, place_of = np.unique(found, return_inverse=True)
                room -= len(distinct)
                if room < 0:
                    raise ForestError(
                        f"the background of {self.background_rows} rows needs more than "
                        f"{self._table_bytes:,} bytes for paths that find no room in the tables; "
                        "pass fewer background rows or more table_bytes"
                    )
                lengths.append(len(distinct))
                words.append(distinct)
                shares.append(_by_set(place_of, len(distinct), self._shares[self._model[t]]))
        return Sets(
            np.cumsum(lengths),
            np.concatenate([*words, np.zeros(0, np.int64)]),
            np.concatenate([*shares, np.zeros((self._layers, 0))], axis=1),
        )

    def _walk(self, rows: Rows, group: Ints, out: Reals, layer: int = 0) -> None:
        tables, trees = self._tables, self._layout.vertices
        if not len(tables.walked):
            return
        for begin in range(0, len(rows), _BLOCK):
            backgrounds.walk_contributions(
                paths.turns(rows[begin : begin + _BLOCK], trees, tables.walked),
                begin,
                trees,
                tables.walked,
                tables.walked_model,
                group,
                self._sets,
                layer,
                self._weights,
                out,
            )


def _by_set(place: Ints, sets: int, share: Reals) -> Reals:
    """Return float64 [L, sets], added weights of rows; of none where there are no sets."""
    if not sets:
        return np.zeros((len(share), 0))
    return np.stack([np.bincount(place, layer, sets) for layer in share])
