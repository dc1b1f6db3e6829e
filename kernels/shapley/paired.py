"""Shapley values of a mean of games by weighted least squares on pairs of coalitions.

The game of one background row is ``v_b(S)``; what is wanted are the Shapley values of its mean
over ``b``. Shapley values are the slopes of a weighted regression of ``v_b(S)`` on who is in S,
held to add up to ``v_b(all) - v_b(none)`` (Charnes et al. 1988; Lundberg and Lee 2017). A
coalition and its complement are drawn as a pair, which cancels every interaction of even order
(Covert and Lee 2021), so only ``v_b(S) - v_b(complement)`` is needed. Sizes are drawn uniformly
and weighted back, which is sampling by leverage (Musco and Witter 2025), here stratified.

Every background row has pairs and slopes of its own. Errors of different rows are independent and
average out; coalitions shared by all of them would repeat one error in each.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
MOST_TRIES = 16
TRIED_PLAYERS = 512
"""Coalitions looked at for each that is taken, and their players together: bounds the time."""


@dataclass(frozen=True)
class Pairs:
    """Coalitions that stand for themselves and their complements.

    Attributes:
        members: Who is in, bool ``[B, K, P]``: K pairs for each of B games of P players.
        weights: Weight of each pair in the regression ``[B, K]``.
    """

    members: NDArray[np.bool_]
    weights: Float

    def joined(self, more: Pairs) -> Pairs:
        """Return these pairs with more of the same games behind them."""
        return Pairs(
            np.concatenate([self.members, more.members], axis=1),
            np.concatenate([self.weights, more.weights], axis=1),
        )

    @cached_property
    def _signs(self) -> Float:
        return np.where(self.members, 1.0, -1.0)

    @cached_property
    def _fit(self) -> tuple[Float, Float, Float]:
        """Slopes per difference ``[B, P, K]``, per total ``[B, P]``, and leverages ``[B, K]``."""
        signs = self._signs
        weighted = signs * self.weights[..., None]
        # The sum of the slopes is held anyway: weighing it changes nothing but the conditioning.
        moments = weighted.transpose(0, 2, 1) @ signs + self.weights.sum(axis=1)[:, None, None]
        inverse = np.linalg.pinv(moments, hermitian=True)
        share = inverse.sum(axis=2)
        share /= share.sum(axis=1, keepdims=True)
        free = inverse - share[:, :, None] * inverse.sum(axis=1)[:, None, :]
        slopes = free @ weighted.transpose(0, 2, 1)
        leverage = np.einsum("bkp,bpk->bk", signs, slopes)
        return slopes, share, leverage

    def solve(self, differences: Float, totals: Float) -> tuple[Float, Float]:
        """Return Shapley values of the mean game and their standard errors, both ``[n, P]``.

        The error is that of the draw of coalitions, by leaving out each pair in turn (the
        jackknife, in closed form for least squares: residuals over one less the leverage).

        Args:
            differences: ``v(S) - v(complement)`` of every pair, ``[n, B, K]``.
            totals: ``v(all) - v(none)``, ``[n, B]``.
        """
        slopes, share, leverage = self._fit
        games = len(slopes)
        by_game = np.matmul(slopes, differences.transpose(1, 2, 0))  # [B, P, n]
        by_game += share[:, :, None] * totals.T[:, None, :]
        left = differences.transpose(1, 2, 0) - np.matmul(self._signs, by_game)
        left /= np.maximum(1.0 - leverage, 1e-6)[:, :, None]
        variance = np.matmul(slopes**2, left**2).sum(axis=0)
        return by_game.mean(axis=0).T, np.sqrt(variance).T / games


def draw_pairs(games: int, pairs: int, players: int, seed: tuple[int, ...]) -> Pairs:
    """Draw pairs for each game; the same seed gives the same pairs.

    Of several coalitions of one size the one least like those drawn before is taken: nearer to an
    orthogonal design, the slopes of one player take up less of another's interactions. No player
    is preferred, so each coalition of a size remains as likely as any other.

    Args:
        games: Number of games (background rows) B.
        pairs: Pairs for each, K.
        players: P, at least 2.
        seed: Whole numbers >= 0.
    """
    rng = np.random.default_rng(seed)
    half = np.arange(1, players // 2 + 1)
    # Sizes s and P - s are one pair; the middle size of an even number is its own partner.
    likely = np.where(2 * half == players, 1.0, 2.0) / (players - 1)
    kernel = likely / (half * (players - half))  # Shapley kernel summed over a size
    weight = kernel / likely
    weight /= weight.mean()
    place = (np.arange(pairs) + rng.random((games, 1))) / pairs
    chosen = np.minimum(np.searchsorted(np.cumsum(likely), place), len(half) - 1)
    sizes, weights = half[chosen], weight[chosen]
    members = np.empty((games, pairs, players), dtype=bool)
    tries = max(1, min(MOST_TRIES, TRIED_PLAYERS // players))
    moments = np.zeros((games, players, players) if tries > 1 else (games, 0, 0))
    for pair in rng.permutation(pairs):
        rank = rng.random((games, tries, players)).argsort(axis=2).argsort(axis=2)
        signs = np.where(rank < sizes[:, pair, None, None], 1.0, -1.0)
        best = signs[:, 0]
        if tries > 1:
            seen = ((signs @ moments) * signs).sum(axis=2)
            best = signs[np.arange(games), seen.argmin(axis=1)]
            moments += weights[:, pair, None, None] * best[:, :, None] * best[:, None, :]
        members[:, pair] = best > 0
    return Pairs(members, weights)
