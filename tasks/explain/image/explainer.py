"""Shapley values of segments of images, for any score function or torch module.

A coalition of segments is worth the score of the image in which the others are filled in
(``fills.py``), as a mean over the fills. Several layouts of segments, moved against each other, are
explained in turn: the mean of their maps is finer than any of them, and adds up as each does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from kernels.shapley.exact import MOST_PLAYERS, members_of, shapley_matrix
from kernels.shapley.paired import Pairs
from tasks.explain.additivity import check_additivity
from tasks.explain.deadline import Deadline
from tasks.explain.errors import ImageError, OptionsError, PlayersError
from tasks.explain.image.explanation import Float, ImageExplanation
from tasks.explain.image.fills import Fill, Image, filled
from tasks.explain.image.segments import Labels, grid_cells, grid_shift, superpixels
from tasks.explain.sampled import PAIRS_PER_PLAYER, SampledValues
from tasks.explain.scores import checked_scores, refuse_unstable

ImageFunction = Callable[[Image], NDArray[np.floating[Any]]]
"""Takes images float32 ``[n, C, H, W]``, returns scores ``[n]`` or ``[n, 1]``."""
Kind = Literal["grid", "superpixels"]
MOST_SUPERPIXEL_LAYOUTS = 15
"""Each has a sixteenth fewer superpixels than the one before: the next would have none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageOptions:
    """How images are explained.

    Attributes:
        segments: Wanted in each layout; up to 14 are counted exactly if the budget allows it.
        kind: Superpixels, or square cells.
        layouts: Divisions of the image, each moved against the others; at most 15 of superpixels,
            each of which has a sixteenth fewer segments than the one before.
        fills: What stands for absent segments.
        evaluations: Most images to score for one explanation.
        top: Segments of each layout to tell apart from the next one.
        seed: Of the draw.
        seconds: Time for one explanation; None for any.
        memory_bytes: Most that the images of one call of the function take.
    """

    segments: int = 49
    kind: Kind = "superpixels"
    layouts: int = 4
    fills: tuple[Fill, ...] = ("blur", "mean")
    evaluations: int = 2_500
    top: int = 4
    seed: int = 0
    seconds: float | None = None
    memory_bytes: int = 2**25

    def __post_init__(self) -> None:
        """Validate, naming the fix.

        Raises:
            OptionsError: On a value that makes no sense.
        """
        if min(self.segments, self.layouts, self.evaluations, self.top) < 1:
            raise OptionsError(
                f"segments {self.segments}, layouts {self.layouts}, evaluations "
                f"{self.evaluations}, top {self.top}: give at least 1 each"
            )
        if self.kind not in get_args(Kind):
            raise OptionsError(f"kind is {self.kind!r}; choose 'grid' or 'superpixels'")
        if self.kind == "superpixels" and self.layouts > MOST_SUPERPIXEL_LAYOUTS:
            raise OptionsError(
                f"{self.layouts} layouts of superpixels, of which the last would be one segment: "
                f"give at most {MOST_SUPERPIXEL_LAYOUTS}, or kind='grid'"
            )
        if self.seed < 0 or self.memory_bytes < 1:
            raise OptionsError(
                f"seed {self.seed}, memory_bytes {self.memory_bytes}: give a seed of 0 or more and "
                "memory of 1 byte or more"
            )
        if self.seconds is not None and not self.seconds >= 0:
            raise OptionsError(f"seconds are {self.seconds}; give 0 or more, or None for any time")
        if not self.fills or not set(self.fills) <= {"blur", "mean"}:
            raise OptionsError(f"fills are {self.fills}; give 'blur', 'mean' or both")


class ImageExplainer:
    """Explains images of one score function.

    >>> bright = ImageExplainer(lambda images: images.sum(axis=(1, 2, 3)))
    >>> found = bright.explain(np.eye(8, dtype=np.float32)[None])
    >>> bool(abs(found.base + found.map.sum() - found.score) < 1e-6)
    True
    """

    def __init__(
        self,
        function: ImageFunction,
        options: ImageOptions | None = None,
        shape: tuple[int, int, int] | None = None,
    ) -> None:
        """Take a score function.

        Args:
            function: Scores of images; a torch module goes in as a ``TorchScores``.
            options: How.
            shape: ``(C, H, W)`` that images must have; None for any that the function takes.
        """
        self._function = function
        self._options = options or ImageOptions()
        self._shape = shape

    def explain(self, image: Image) -> ImageExplanation:
        """Explain one image float32 ``[C, H, W]``.

        Raises:
            ImageError: On another shape than the function takes, or pixels that are not finite.
            PlayersError: When there are more segments than pixels, or than the budget allows.
            ScoreError: When the image, alone or partly filled, has no finite score.
            UnstableScoreError: When the image does not keep its score.
            AdditivityError: When the values miss the score.
            ExplanationTimeoutError: When the time is over.
        """
        options = self._options
        image = self._checked(image)
        layouts = tuple(self._layout(image, number) for number in range(options.layouts))
        for labels in layouts:
            self._require_budget(int(labels.max()) + 1)
        fills = np.stack([filled(image, fill) for fill in options.fills])
        game = _Game(self._function, image, fills, Deadline(options.seconds), options.memory_bytes)
        score, floors = self._first_scores(image, fills)
        found = [self._values(game, labels, score, floors, i) for i, labels in enumerate(layouts)]
        changed = (fills != image).any(axis=(0, 1))
        for labels, (each, errors, _) in zip(layouts, found, strict=True):
            _settle(np.bincount(labels.ravel(), changed.ravel()) == 0, each, errors)
        again = checked_scores(self._function, np.concatenate([image[None], fills]), "image")
        refuse_unstable(np.append(score, floors), again, 0, "image")
        base = float(floors.mean())
        values = tuple(each for each, _, _ in found)
        gaps = [check_additivity(each[None], base, np.array([score])) for each in values]
        return ImageExplanation(
            image,
            layouts,
            values,
            tuple(errors for _, errors, _ in found),
            base,
            score,
            max(gaps),
            "exact" if all(map(self._counted, map(len, values))) else "sampled",
            2 * (1 + len(fills)) + sum(spent for _, _, spent in found),
            options.fills,
            options.seed,
        )

    def _checked(self, image: Image) -> Image:
        if image.ndim != 3 or 0 in image.shape or self._shape not in {None, image.shape}:
            wanted = "[C, H, W]" if self._shape is None else f"of {self._shape}"
            raise ImageError(
                f"an image of shape {image.shape} is given; give one image {wanted}, channels "
                "first, as the score function takes it"
            )
        image = np.ascontiguousarray(image, dtype=np.float32)
        bad = int((~np.isfinite(image)).sum())
        if bad:
            raise ImageError(
                f"{bad} of {image.size} pixels are not finite: fill them in, or leave the image out"
            )
        return image

    def _layout(self, image: Image, number: int) -> Labels:
        wanted = self._options.segments
        if self._options.kind == "superpixels":
            # Layouts differ in their number of segments: the borders of an image stay its own.
            return superpixels(image, max(1, round(wanted * (1 - number / 16))))
        _, height, width = image.shape
        return grid_cells(height, width, wanted, grid_shift(number))

    def _counted(self, players: int) -> bool:
        """Say whether all coalitions fit the budget of a layout."""
        options = self._options
        share = options.evaluations // options.layouts
        return players <= MOST_PLAYERS and len(options.fills) * 2**players <= share

    def _require_budget(self, players: int) -> None:
        options = self._options
        least = 2 * len(options.fills) * int(np.ceil(PAIRS_PER_PLAYER * players))
        if not self._counted(players) and least * options.layouts > options.evaluations:
            raise PlayersError(
                f"{options.layouts} layouts, one of {players:,} segments, by {len(options.fills)} "
                f"fills need {least * options.layouts:,} images scored, the budget is "
                f"{options.evaluations:,}: choose fewer segments, layouts or fills, or allow more "
                "evaluations"
            )

    def _first_scores(self, image: Image, fills: Image) -> tuple[float, Float]:
        try:
            score = checked_scores(self._function, image[None], "image")
        except (RuntimeError, TypeError, IndexError) as error:
            raise ImageError(
                f"the score function takes no images of shape {(1, *image.shape)}: "
                f"{str(error).splitlines()[0][:200]}; bring the image to the model's size, "
                "channels first"
            ) from error
        return float(score[0]), checked_scores(self._function, fills, "filled image")

    def _values(
        self, game: _Game, labels: Labels, score: float, floors: Float, number: int
    ) -> tuple[Float, Float, int]:
        """Return values and errors ``[P]`` and the images scored."""
        options = self._options
        players = int(labels.max()) + 1
        if self._counted(players):
            inner = members_of(np.arange(1, 2**players - 1), players)
            worth = np.mean([game.worth(inner, labels, fill) for fill in range(len(floors))], 0)
            every = np.concatenate([[floors.mean()], worth, [score]])
            values: Float = shapley_matrix(players) @ every
            return values, np.zeros(players), len(inner) * len(floors)
        plan = SampledValues(
            players,
            len(floors),
            seed=options.seed + number,
            evaluations=options.evaluations // options.layouts,
            top=options.top,
        )

        def differences(_round: int, pairs: Pairs, _rows: NDArray[np.intp]) -> Float:
            both = [
                game.worth(np.concatenate([some, ~some]), labels, fill).reshape(2, -1)
                for fill, some in enumerate(pairs.members)
            ]
            return np.asarray([[inside - outside for inside, outside in both]])

        drawn, errors, spent = plan.solve(differences, (score - floors)[None])
        return drawn[0], errors[0], int(spent[0])


def _settle(idle: NDArray[np.bool_], values: Float, errors: Float) -> None:
    """Give segments that no fill changes exactly nothing, in place."""
    freed = values[idle].sum()
    values[~idle] += freed / max(1, (~idle).sum())
    values[idle] = errors[idle] = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class _Game:
    """What coalitions of segments of one image are worth, by each fill."""

    function: ImageFunction
    image: Image
    fills: Image
    deadline: Deadline
    memory_bytes: int

    def worth(self, members: NDArray[np.bool_], labels: Labels, fill: int) -> Float:
        """Return the scores ``[m]`` of coalitions ``[m, P]`` before one of the fills."""
        at_once = max(1, self.memory_bytes // self.image.nbytes)
        found = np.empty(len(members))
        for start in range(0, len(members), at_once):
            inside = members[start : start + at_once][:, None, labels]
            mixed = np.where(inside, self.image, self.fills[fill])
            found[start : start + at_once] = checked_scores(
                self.function, mixed, "partly filled image"
            )
            self.deadline.check(0, 1)
        return found
