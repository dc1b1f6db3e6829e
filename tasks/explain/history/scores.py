"""Scores of histories by any function or torch module."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tasks.explain.scores import TorchScores

if TYPE_CHECKING:
    import torch

HistoryScores = Callable[[NDArray[np.floating[Any]], NDArray[np.bool_]], NDArray[np.floating[Any]]]
"""Takes histories ``[n, T, F]``, oldest event first and 0 in padding, and where events stand
``[n, T]``; returns scores ``[n]`` or ``[n, 1]``. All histories of a call have one mask."""


class TorchHistories:
    """A torch module in evaluation mode as a score function of histories."""

    def __init__(
        self, module: torch.nn.Module, output: int | None = None, *, takes_mask: bool = False
    ) -> None:
        """Take a module of ``[n, T, F]``.

        Args:
            module: Returns ``[n]``, ``[n, 1]`` or, with ``output``, ``[n, C]``.
            output: Which of several outputs is explained.
            takes_mask: Whether it takes a bool tensor ``[n, T]``, True where an event stands, as
                second argument; without it, it sees zeros in padding.

        Raises:
            UnstableScoreError: When the module is in training mode.
        """
        self._scores = TorchScores(module, output)
        self._takes_mask = takes_mask

    def __call__(
        self, histories: NDArray[np.floating[Any]], mask: NDArray[np.bool_]
    ) -> NDArray[np.float64]:
        """Return scores ``[n]``."""
        if not self._takes_mask:
            return self._scores(histories)
        import torch

        with torch.inference_mode():
            rows = self._scores.tensor(histories)
            there = torch.tensor(mask, device=rows.device)
            return self._scores.chosen(self._scores.module(rows, there))
