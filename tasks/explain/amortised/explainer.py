"""Explains rows by the network where its gate allows, by the engine where it does not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from tasks.explain.additivity import check_additivity
from tasks.explain.amortised.config import AmortisedConfig
from tasks.explain.amortised.network import ValueNet
from tasks.explain.background import narrowed
from tasks.explain.engine import PlayerExplainer
from tasks.explain.errors import BackgroundError
from tasks.explain.player_explanation import PlayerExplanation
from tasks.explain.scores import Rows, checked_scores

ROWS_AT_ONCE = 1_024
"""Rows of one pass: activations stay in the processor's cache."""


@dataclass(frozen=True, slots=True)
class Gate:
    """Which rows the network explains: those unlike no row it learned from, of a small error.

    Attributes:
        low: Smallest value of each feature in training, ``[F]``.
        high: Largest value of each feature in training, ``[F]``.
        log_error: Largest log of the expected relative error that passes.
        rel_l2: Mean relative L2 error of the held-out rows that pass, against the engine.
        fallback: Share of the held-out rows that do not pass.
        held_out: Number of held-out rows.
        error_scale: What the network's errors are times before they are shown. It learns the mean
            log of the error, which is a median and too short; times this, the held-out rows that
            pass miss the engine's values by one error, as the root of the mean square.
    """

    low: NDArray[np.float32]
    high: NDArray[np.float32]
    log_error: float
    rel_l2: float
    fallback: float
    held_out: int
    error_scale: float = 1.0

    def passes(self, rows: Rows, log_errors: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return which rows ``[n, F]`` of some expected errors ``[n]`` pass; NaN never does.

        They are compared as float32: the network reads no more, and the file keeps no more.
        """
        with np.errstate(over="ignore"):  # what becomes infinite lies outside
            seen = np.asarray(rows, dtype=np.float32)
        inside = ((seen >= self.low) & (seen <= self.high)).all(axis=1)
        passes: NDArray[np.bool_] = inside & (log_errors <= self.log_error)
        return passes


class AmortisedExplainer:
    """A network that learned an engine's values, with the engine behind it.

    Attributes:
        engine: Explains what the gate holds back.
        net: The network, float32.
        gate: The gate.
        config: How the network was trained.
    """

    def __init__(
        self, engine: PlayerExplainer, net: ValueNet, gate: Gate, config: AmortisedConfig
    ) -> None:
        """Put the parts together; `build` and `load` do."""
        self.engine, self.net, self.gate, self.config = engine, net.eval(), gate, config

    def explain(self, rows: Rows) -> PlayerExplanation:
        """Explain rows ``[n, F]``.

        ``evaluations`` is 0 for rows that the network explained. Their ``errors`` are the row's
        expected error, spread evenly over the players and scaled by held-out rows, so that there
        the root of the mean square of what values miss the engine's by, in errors, is 1.

        Raises:
            BackgroundError: On another number of columns, or a value that float32 cannot hold.
            ExplanationError: As `PlayerExplainer.explain`.
        """
        engine = self.engine
        if rows.ndim != 2 or rows.shape[1] != len(engine.players.features):
            raise BackgroundError(
                f"rows of shape {rows.shape} for {len(engine.players.features)} features; pass the "
                "columns of the background in its order"
            )
        given, rows = rows, narrowed(rows, engine.background.names)
        scores = checked_scores(self._score, rows) if len(rows) else np.zeros(0)
        base = float(engine.background_scores.mean())
        values, log_errors = self.predict(rows, scores - base)
        errors = self.predicted_errors(values, log_errors)
        engine.settle(rows, values, errors)
        evaluations = np.zeros(len(rows), dtype=np.int64)
        back = np.flatnonzero(~self.gate.passes(rows, log_errors))
        if len(back):
            found = engine.explain(rows[back])
            values[back], errors[back] = found.values, found.errors
            evaluations[back] = found.evaluations
            # The model's float32 scores differ in the last digits from batch to batch.
            scores[back] = found.scores
        return PlayerExplanation(
            engine.players.names,
            values,
            errors,
            base,
            scores,
            check_additivity(values, base, scores),
            "amortised",
            evaluations,
            engine.background.sha256,
            self.config.seed,
            engine.players.shown(given),
        )

    def _score(self, rows: Rows) -> NDArray[np.float64]:
        """Return the model's scores, as the network's values by parts that stay in the cache."""
        parts = (rows[start : start + ROWS_AT_ONCE] for start in range(0, len(rows), ROWS_AT_ONCE))
        return np.concatenate([np.asarray(self.engine.function(part)) for part in parts])

    def predicted_errors(
        self, values: NDArray[np.float64], log_errors: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return the errors ``[n, P]`` that are shown, from values and log errors of `predict`."""
        size = np.sqrt((values**2).mean(axis=1)) * self.gate.error_scale
        return np.repeat((np.exp(log_errors) * size)[:, None], values.shape[1], axis=1)

    def predict(
        self, rows: Rows, totals: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the network's values ``[n, P]`` and log errors ``[n]``; no gate is asked.

        Args:
            rows: ``[n, F]``.
            totals: Score less base ``[n]``: the values add up to it in float64.
        """
        values = np.empty((len(rows), len(self.engine.players)))
        log_errors = np.empty(len(rows))
        with torch.inference_mode():
            for start in range(0, len(rows), ROWS_AT_ONCE):
                part = slice(start, start + ROWS_AT_ONCE)
                some = torch.tensor(rows[part], dtype=torch.float32)
                found, error = self.net(some, torch.tensor(totals[part], dtype=torch.float32))
                values[part], log_errors[part] = found.numpy(), error.numpy()
        values += ((totals - values.sum(axis=1)) / values.shape[1])[:, None]
        return values, log_errors
