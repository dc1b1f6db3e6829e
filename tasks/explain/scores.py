"""Scores of any function or torch module as one checked float64 vector."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tasks.explain.errors import ScoreError, UnstableScoreError

if TYPE_CHECKING:
    import torch

Rows = NDArray[np.floating[Any]]
ScoreFunction = Callable[[Rows], NDArray[np.floating[Any]]]
"""Takes rows ``[n, F]``, returns scores ``[n]`` or ``[n, 1]``; called in batches."""
REPEATED = 1e-5
"""Difference of two scores of one row, relative to ``1 + |score|``, that float32 may explain."""


def checked_scores(function: ScoreFunction, rows: Rows, what: str = "row") -> NDArray[np.float64]:
    """Return the scores ``[n]`` of rows ``[n, F]``.

    Args:
        function: What is explained.
        rows: The rows.
        what: What a row is called in errors.

    Raises:
        ScoreError: On another shape than ``[n]`` or ``[n, 1]``, or a score that is not finite.
    """
    scores = shaped_scores(function, rows)
    refuse_unfinite(scores, what)
    return scores


def shaped_scores(function: ScoreFunction, rows: Rows) -> NDArray[np.float64]:
    """Return the scores ``[n]`` of rows ``[n, F]``, finite or not.

    Raises:
        ScoreError: On another shape than ``[n]`` or ``[n, 1]``.
    """
    scores = np.asarray(function(rows), dtype=np.float64)
    if scores.shape not in {(len(rows),), (len(rows), 1)}:
        raise ScoreError(
            f"{len(rows)} rows have scores of shape {scores.shape}; an explanation is of one "
            "output: return [n] or [n, 1], of several outputs the one that is meant"
        )
    return scores.reshape(len(rows))


def refuse_mixtures(scores: NDArray[np.float64], numbers: NDArray[np.intp]) -> None:
    """Raise a `ScoreError` that names the first row of a score ``[n, m]`` that is not finite.

    Args:
        scores: Of m mixtures with each row.
        numbers: Numbers of the rows ``[n]``, for the error.
    """
    with np.errstate(invalid="ignore"):  # both infinities together are no number
        extreme = scores.min(axis=1) + scores.max(axis=1)
    refuse_unfinite(extreme, "a mixture with row", numbers)


def refuse_unfinite(
    scores: NDArray[np.float64], what: str, numbers: NDArray[np.intp] | None = None
) -> None:
    """Raise a `ScoreError` that names the first score ``[n]`` that is not finite.

    Args:
        scores: The scores.
        what: What a row is called in errors.
        numbers: Numbers of the rows ``[n]``; None: their places.
    """
    bad = np.flatnonzero(~np.isfinite(scores))
    if len(bad):
        number = bad[0] if numbers is None else numbers[bad[0]]
        raise ScoreError(
            f"the score of {what} {number} is {scores[bad[0]]} ({len(bad)} of {len(scores)} are "
            "not finite): mend the row's inputs or leave it out"
        )


def refuse_unstable(
    scores: NDArray[np.float64], again: NDArray[np.float64], first: int, what: str = "row"
) -> None:
    """Raise an `UnstableScoreError` where scores ``[n]`` are others when they are asked for again.

    Args:
        scores: At first.
        again: The second time.
        first: Number of the first row, for the error.
        what: What a row is called in errors.
    """
    unstable = np.flatnonzero(~(np.abs(again - scores) <= REPEATED * (1 + np.abs(scores))))
    if len(unstable):
        row = unstable[0]
        raise UnstableScoreError(
            f"{what} {first + row} scored {scores[row]:.6g} and then {again[row]:.6g}: the model "
            "draws random numbers (dropout), looks at other rows of its batch, or is too coarse "
            "for float32; call .eval() on it, or .double()"
        )


class TorchScores:
    """A torch module in evaluation mode as a score function; gradients are never asked for."""

    def __init__(self, module: torch.nn.Module, output: int | None = None) -> None:
        """Take a module of ``[n, F]`` rows.

        Args:
            module: Returns ``[n]``, ``[n, 1]`` or, with ``output``, ``[n, C]``.
            output: Which of several outputs is explained, counted from 0.

        Raises:
            ScoreError: On an output below 0.
            UnstableScoreError: When the module is in training mode.
        """
        if output is not None and output < 0:
            raise ScoreError(
                f"output {output} is asked for; count the module's outputs from 0, the first"
            )
        if any(part.training for part in module.modules()):
            raise UnstableScoreError(
                "the module is in training mode, in which dropout draws anew and batch "
                "normalisation looks at the other rows; call .eval() on it first"
            )
        self.module = module
        self.output = output
        self._sample = next(module.parameters(), None)

    def tensor(self, rows: NDArray[Any]) -> torch.Tensor:
        """Return rows as a tensor of the module's own kind and place."""
        import torch

        # torch takes no foreign byte order and no negative stride, and warns of frozen arrays.
        own = np.ascontiguousarray(rows, rows.dtype.newbyteorder("="))
        own = own if own.flags.writeable else own.copy()
        made = torch.as_tensor(own)
        return made.float() if self._sample is None else made.to(self._sample)

    def __call__(self, rows: Rows) -> NDArray[np.float64]:
        """Return scores ``[n]`` of rows ``[n, F]``."""
        import torch

        with torch.inference_mode():
            return self.chosen(self.module(self.tensor(rows)))

    def chosen(self, made: torch.Tensor) -> NDArray[np.float64]:
        """Return the explained output of what the module made.

        Raises:
            ScoreError: When there are several and none, or one that is not there, is asked for.
        """
        width = made.shape[1] if made.ndim == 2 else 1
        if made.ndim > 2 or (self.output is None and width != 1) or (self.output or 0) >= width:
            raise ScoreError(
                f"the module returns {tuple(made.shape)} and output {self.output} is asked for; "
                "name one of its outputs by TorchScores(module, output=...)"
            )
        one = made[:, self.output or 0] if made.ndim == 2 else made
        scores: NDArray[np.float64] = one.double().cpu().numpy()
        return scores
