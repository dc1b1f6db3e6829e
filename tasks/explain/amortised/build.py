"""Trains the network on an engine's values and sets its gate by rows that it never saw.

Noisy targets suffice, since the network learns their mean (Covert et al. 2024, "Stochastic
amortization").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kernels.runtime.config import RunConfig
from kernels.runtime.optimizer import OptimizerConfig
from kernels.runtime.runner import Runner
from tasks.explain.amortised.config import AmortisedConfig, AmortisedError
from tasks.explain.amortised.explainer import AmortisedExplainer, Gate
from tasks.explain.amortised.network import ValueNet, value_loss
from tasks.explain.background import narrowed
from tasks.explain.engine import PlayerExplainer
from tasks.explain.scores import Rows

LEAST_HELD_OUT = 100
"""Fewer held-out rows say too little about a mean error."""


def build(
    engine: PlayerExplainer, rows: Rows, config: AmortisedConfig | None = None
) -> AmortisedExplainer:
    """Train a network for rows like these.

    Args:
        engine: Gives the values to learn and explains what the gate holds back; with
            ``method="sampled"`` both are cheap.
        rows: Rows of the kind that will be explained, without labels ``[n, F]``.
        config: Settings.

    Raises:
        AmortisedError: When the rows are too few or not finite, or no held-out rows keep the
            promise.
        ExplanationError: When the engine cannot explain a row.
    """
    config = config or AmortisedConfig()
    held = round(config.held_out * len(rows))
    if held < LEAST_HELD_OUT:
        raise AmortisedError(
            f"{held} of {len(rows)} rows would be held out, the gate needs {LEAST_HELD_OUT}: give "
            "more rows or a larger held_out"
        )
    rows = narrowed(rows, engine.background.names)
    _refuse_unfinite_rows(rows, engine.background.names)
    found = engine.explain(rows)
    totals = found.scores - found.base
    order = np.random.default_rng(config.seed).permutation(len(rows))
    learned, kept = order[held:], order[:held]
    net = _trained(rows[learned], totals[learned], found.values[learned], config)
    low, high = rows[learned].min(axis=0), rows[learned].max(axis=0)
    open_gate = Gate(low, high, np.inf, np.nan, 0.0, held)
    fast = AmortisedExplainer(engine, net, open_gate, config)
    gate = _measured(fast, rows[kept], totals[kept], found.values[kept])
    return AmortisedExplainer(engine, net, gate, config)


def _measured(
    fast: AmortisedExplainer, rows: Rows, totals: NDArray[np.float64], true: NDArray[np.float64]
) -> Gate:
    """Set an open gate by held-out rows.

    Args:
        fast: With the open gate, of which the range of training is kept.
        rows: Held-out rows ``[n, F]``.
        totals: Their scores less the base ``[n]``.
        true: The engine's values ``[n, P]``.
    """
    values, log_errors = fast.predict(rows, totals)
    size = np.linalg.norm(true, axis=1)
    missed = np.linalg.norm(values - true, axis=1) / np.where(size > 0, size, 1.0)
    inside = fast.gate.passes(rows, log_errors)
    limit, mean = limit_of(log_errors[inside], missed[inside], fast.config.promise)
    passed = inside & (log_errors <= limit)
    told, shown = values[passed], fast.predicted_errors(values[passed], log_errors[passed])
    fast.engine.settle(rows[passed], told, shown)
    return replace(
        fast.gate,
        log_error=limit,
        rel_l2=mean,
        fallback=float(1 - passed.mean()),
        error_scale=_scale_of(told - true[passed], shown),
    )


def _scale_of(missed: NDArray[np.float64], shown: NDArray[np.float64]) -> float:
    """Return what errors ``[n, P]`` must be times for their mean square miss to be theirs.

    Args:
        missed: Values less the engine's.
        shown: Errors that would be shown without it.
    """
    told = shown > 0
    if not told.any():
        return 1.0
    scale = float(np.sqrt(np.mean((missed[told] / shown[told]) ** 2)))
    return scale if scale > 0 else 1.0


def _refuse_unfinite_rows(rows: Rows, names: Sequence[str]) -> None:
    bad = np.argwhere(~np.isfinite(rows))
    if len(bad):
        row, feature = bad[0]
        count = len(np.unique(bad[:, 0]))
        raise AmortisedError(
            f"row {row} has {rows[row, feature]} as {names[feature]!r} ({count} of {len(rows)} "
            "rows have values that are not finite): the network reads finite rows only, leave "
            "these out; the gate gives such rows to the engine"
        )


def limit_of(
    expected: NDArray[np.float64], missed: NDArray[np.float64], promise: float
) -> tuple[float, float]:
    """Return the largest expected error that may pass, and the mean error of what passes.

    The mean and two standard errors of it stay within the promise. Rows of one expected error pass
    together or not at all, as the gate lets them.

    Args:
        expected: What the gate sees of each held-out row, ``[n]``.
        missed: The row's relative L2 error, ``[n]``.
        promise: Largest mean of those that pass.

    Raises:
        AmortisedError: On fewer rows than `LEAST_HELD_OUT`, or when those of smallest expected
            error miss the promise.

    >>> limit_of(np.arange(200.0), np.full(200, 0.01), 0.05)
    (199.0, 0.01)
    """
    if len(missed) < LEAST_HELD_OUT:
        raise AmortisedError(
            f"{len(missed)} held-out rows lie within what was learned, the gate needs "
            f"{LEAST_HELD_OUT}: give more rows or a larger held_out"
        )
    order = np.argsort(expected, kind="stable")
    count = np.arange(1, len(order) + 1)
    mean = np.cumsum(missed[order]) / count
    square = np.cumsum(missed[order] ** 2) / count
    error = np.sqrt(np.maximum(square - mean**2, 0.0) / count)
    ordered = expected[order]
    last = np.append(ordered[1:] != ordered[:-1], True)  # of those of one expected error
    kept = np.flatnonzero(last & (mean + 2 * error <= promise) & (count >= LEAST_HELD_OUT))
    if not len(kept):
        raise AmortisedError(
            f"held-out rows miss the engine's values by {missed.mean():.3f} in the mean, promised "
            f"are {promise:g}: give more rows or steps, a wider network, or promise less"
        )
    return float(ordered[kept[-1]]), round(float(mean[kept[-1]]), 12)


def _trained(
    rows: Rows,
    totals: NDArray[np.float64],
    values: NDArray[np.float64],
    config: AmortisedConfig,
) -> ValueNet:
    """Train a network by the loop of ``kernels.runtime``."""
    tensors = tuple(torch.tensor(each, dtype=torch.float32) for each in (rows, totals, values))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        net = ValueNet(rows.shape[1], values.shape[1], config.hidden)
    net.fit_scaling(tensors[0], tensors[2])
    run = RunConfig(
        steps=config.steps,
        seed=config.seed,
        optimizer=OptimizerConfig(
            learning_rate=config.learning_rate, weight_decay=config.weight_decay
        ),
    )
    Runner(net, _Batches(tensors, config.batch, config.seed), value_loss, run).run()
    return net


class _Batches:
    """Batches by index: every epoch is a new shuffle of all rows, what is over is left out."""

    def __init__(self, tensors: tuple[Tensor, ...], size: int, seed: int) -> None:
        self._rows, self._totals, self._values = tensors
        self._size, self._seed = min(size, len(self._rows)), seed
        self._shuffled: tuple[int, Tensor] | None = None

    def __call__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return rows, totals and values of batch ``index``."""
        epoch, place = divmod(index, len(self._rows) // self._size)
        if self._shuffled is None or self._shuffled[0] != epoch:
            order = np.random.default_rng([self._seed, epoch]).permutation(len(self._rows))
            self._shuffled = (epoch, torch.from_numpy(order))
        some = self._shuffled[1][place * self._size : (place + 1) * self._size]
        return self._rows[some], self._totals[some], self._values[some]
