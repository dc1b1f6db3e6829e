"""Batches cut by what their samples cost, so that no process waits for one with long samples."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kernels.runtime.accumulation import rows_of
from kernels.runtime.balance import Method, balance, share_out

logger = logging.getLogger(__name__)


class CostSplit:
    """Cuts batches into parts of about equal cost; give it to the Runner as ``split``.

    Attributes:
        before: For each batch so far, mean cost of parts of equal size over the largest.
        after: The same of the parts that it was cut into.
    """

    def __init__(
        self,
        costs: Callable[[Any], Sequence[float] | NDArray[np.float64]],
        method: Method = "differences",
    ) -> None:
        """Prepare.

        Args:
            costs: Returns what each sample of a batch costs: tokens, edges, pixels.
            method: See `balance.share_out`.
        """
        self._costs, self._method = costs, method
        self.before: list[float] = []
        self.after: list[float] = []

    def __call__(self, batch: Any, parts: int) -> list[Any]:
        """Cut a batch; every sample goes to one part, and parts without samples are left out.

        Args:
            batch: Tensors of one first dimension, in tuples, lists, mappings or dataclasses.
            parts: How many.
        """
        costs = np.asarray(self._costs(batch), np.float64)
        sets = share_out(costs, parts, self._method)
        equal = [list(each) for each in np.array_split(np.arange(len(costs)), parts)]
        self.before.append(balance(costs, equal))
        self.after.append(balance(costs, sets))
        if len(self.after) == 1:
            told = parts, self.after[0], self.before[0]
            logger.info("samples shared out over %d parts: balance %.3f, by number %.3f", *told)
        return [rows_of(batch, torch.tensor(each)) for each in sets if each]
