"""Why there is no explanation: one error per cause, all of them `ExplanationError`."""

from __future__ import annotations


class ExplanationError(ValueError):
    """No explanation is given; the message says why and how to mend it."""


class AdditivityError(ExplanationError):
    """Contributions do not sum to the score they are meant to explain."""


class BackgroundError(ExplanationError):
    """Background, players and rows have other features, or values that float32 cannot hold."""


class HistoryError(ExplanationError):
    """Histories of another shape than the background's, with gaps in their values or no events."""


class OptionsError(ExplanationError):
    """A setting has a value that makes no sense."""


class PlayersError(ExplanationError):
    """Players overlap, leave features out, or are too many for the budget."""


class ScoreError(ExplanationError):
    """A score is missing, not finite, or of a shape that names no single output."""


class UnstableScoreError(ExplanationError):
    """The same row has two scores: the model draws random numbers or looks at its whole batch."""


class ExplanationTimeoutError(ExplanationError):
    """The time allowed was over before the values were known."""


class CatalogueError(ExplanationError):
    """A reason catalogue cannot be used; the message names the entry and the fix."""


class LetterError(ExplanationError):
    """A letter is not written: something a reader or an auditor would need is missing."""


class GraphInputError(ExplanationError):
    """The graph, the node or the edge inputs do not fit each other or the module."""


class ImageError(ExplanationError):
    """An image of a shape that the model does not take, or with pixels that are no numbers."""
