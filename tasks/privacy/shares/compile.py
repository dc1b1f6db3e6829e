"""Compiles a model for joint scoring: bits, bytes, parts of the weights, a proved error.

The compiler takes the narrowest words whose rounding keeps the tolerance and in which nothing can
wrap, for any row that the encodings let through. What it can prove for no width it refuses.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kernels.ring64.signs import MOST_BITS
from tasks.privacy.model import PrivateModel
from tasks.privacy.shares.bounds import (
    Bounds,
    Folded,
    Rounding,
    bound_any,
    bound_rows,
    fold,
    rounded,
)
from tasks.privacy.shares.columns import split_encoding
from tasks.privacy.shares.linear import fixed
from tasks.privacy.shares.part import Part, split
from tasks.privacy.shares.plan import HIDDEN_WIDTH, Holder, JointPlan, PlanError, Receivers, Reveal

Words = NDArray[np.uint64]
Reals = NDArray[np.float64]

_INPUT_BITS = range(10, 37)
_MOST_WEIGHT_BITS = 40
_MOST_KEPT_BITS = 30
_COMPUTED = 0.5
"""Part of the tolerance of revealed scores that computing them may take."""
_LEAST_UNCUT = 32
"""Shares of what corrects a cut are kept modulo 2**32: ``cut <= 8 * width - 32``."""


@dataclass(frozen=True)
class JointOptions:
    """Settings of the compiler.

    Attributes:
        holder: Who knows the weights.
        reveal: What is opened.
        receivers: To whom.
        tolerance: Largest error of a score, proved for the calibration rows. A revealed score is
            told no finer than a quarter of it, so the coarser, the less it tells of a row.
        threshold: Score from which a decision is yes; ``reveal="decision"`` only.
    """

    holder: Holder = "party-0"
    reveal: Reveal = "score"
    receivers: Receivers = "party-0"
    tolerance: float = 1e-5
    threshold: float = 0.0

    def __post_init__(self) -> None:
        """Validate, naming the fix.

        Raises:
            ValueError: On a setting that cannot be.
        """
        if not 0 < self.tolerance < math.inf or not math.isfinite(self.threshold):
            raise ValueError("tolerance must be positive, and threshold a number")
        if self.threshold and self.reveal == "score":
            raise ValueError("threshold is for reveal='decision'; scores are revealed as they are")


@dataclass(frozen=True)
class Proof:
    """What is proved about a compiled model, in units of its scores.

    Attributes:
        certain: Error that no row exceeds, of scores as they are revealed.
        calibration: Error that no calibration row exceeds.
        largest: Largest absolute score of any row, as it is revealed.
        spare_bits: Bits of the ring above the largest number that can occur.
        step: Width of the interval that a receiver learns of a score; 0: decisions are revealed.
    """

    certain: float
    calibration: float
    largest: float
    spare_bits: float
    step: float = 0.0


@dataclass(frozen=True)
class JointModel:
    """A compiled model.

    Attributes:
        plan: For both parties and the dealer.
        parts: Of the weights, each for its party alone.
        proof: What is proved.
    """

    plan: JointPlan
    parts: tuple[Part, Part]
    proof: Proof


def compile_joint(
    model: PrivateModel,
    first: Sequence[str],
    calibration: ArrayLike,
    options: JointOptions | None = None,
) -> JointModel:
    """Compile a model for two parties.

    Whoever calls this sees the weights: the party that holds them, or, if they are shared, whoever
    trained the model and then forgets it.

    Args:
        model: Linear, or with squares between two layers and one score.
        first: Columns of party 0; the rest are party 1's.
        calibration: [n, F] raw rows such as will be scored, all columns.
        options: Settings.

    Raises:
        PlanError: When the model is of another kind, or no width keeps the tolerance.
        RowError: On calibration rows that cannot be encoded.
    """
    options = options or JointOptions()
    if model.power == 3 or (model.power == 2 and model.scores != 1):
        raise PlanError(
            "joint scoring takes linear models and squares with one score; distil the model"
        )
    inputs = model.encoding.encode(calibration)
    if not len(inputs):
        raise PlanError("there are no calibration rows; give some such as will be scored")
    encodings, places = split_encoding(model.encoding, first)
    folded = fold(model, options.threshold)
    order = np.concatenate(places)
    folded = replace(folded, weights=folded.weights[:, order])
    limits = model.encoding.bounds[order]
    chosen = _choose(folded, limits, inputs[:, order], options)
    cut = _cut(chosen.rounding) if folded.signs else 0
    plan = JointPlan(
        encodings,
        options.holder,
        options.reveal,
        options.receivers,
        scores=model.scores,
        input_bits=chosen.rounding.input_bits,
        weight_bits=chosen.rounding.weight_bits,
        width=chosen.width,
        signs=folded.signs,
        cut=cut,
    )
    plan, proof = _coarse(plan, chosen.proof, options.tolerance)
    parts = split(*_whole(folded, chosen.rounding), options.holder)
    plan = replace(plan, parts=(parts[0].digest, parts[1].digest))
    return JointModel(plan, parts, proof)


def _coarse(plan: JointPlan, proof: Proof, tolerance: float) -> tuple[JointPlan, Proof]:
    """Drop as many bits of revealed scores as the tolerance leaves, and add that to the errors."""
    if plan.reveal == "decision":
        return plan, proof
    unit = 2.0**-plan.score_bits
    dropped = math.floor(math.log2((tolerance - proof.calibration) / unit))
    error = (2.0**dropped - 1) * unit
    coarse = replace(
        proof,
        certain=proof.certain + error,
        calibration=proof.calibration + error,
        step=2.0**dropped * unit,
    )
    return replace(plan, dropped=dropped), coarse


@dataclass(frozen=True)
class _Choice:
    width: int
    rounding: Rounding
    proof: Proof


def _choose(folded: Folded, limits: Reals, inputs: Reals, options: JointOptions) -> _Choice:
    """Return the narrowest choice that keeps the tolerance, at its width the one of least error."""
    best, tolerance = math.inf, options.tolerance
    # The other part of the tolerance is for the bits of a score that are not revealed.
    # Those of both parties together may not carry a score out of the ring: that takes a margin.
    part, margin = (_COMPUTED, 2 * tolerance) if options.reveal == "score" else (1.0, 0.0)
    for width in range(1, 9):
        found = [
            _Choice(width, rounding, proof)
            for rounding, any_row in _fitting(folded, limits, width, margin)
            for proof in [_proof(folded, rounding, any_row, inputs, width)]
        ]
        choice = min(found, key=lambda one: one.proof.calibration, default=None)
        if choice is not None:
            best = min(best, choice.proof.calibration)
            if best <= part * tolerance:
                return choice
    if best == math.inf:
        raise PlanError("sums of this model do not fit 64 bits; lower the limits of its encoding")
    raise PlanError(
        f"no width keeps the tolerance of {tolerance:g}: the best proves {best / part:.2g}"
    )


def _fitting(
    folded: Folded, limits: Reals, width: int, margin: float
) -> Iterator[tuple[Rounding, Bounds]]:
    """Yield the roundings with which no row wraps in words of a width, scores with a margin."""
    for input_bits in _INPUT_BITS:
        rough = bound_any(folded, Rounding(input_bits, _MOST_WEIGHT_BITS, 1), limits)
        kept_bits = _kept(rough.score) if folded.signs else 0
        most = _room(folded, width) - math.ceil(math.log2(rough.sums))
        if folded.signs:
            most = min(most, kept_bits + 8 * width - _LEAST_UNCUT)
        first = min(most - input_bits, _MOST_WEIGHT_BITS)
        # Rounding a weight up may need one bit more than the rough bound has.
        for weight_bits in (first, first - 1):
            rounding = Rounding(input_bits, weight_bits, kept_bits)
            if weight_bits < 1 or (folded.signs and _cut(rounding) < 1):
                continue
            any_row = bound_any(folded, rounding, limits)
            any_row = replace(any_row, score=any_row.score + margin)
            if _fits(folded, rounding, any_row, width):
                yield rounding, any_row
                break


def _fits(folded: Folded, rounding: Rounding, any_row: Bounds, width: int) -> bool:
    """Whether no weighted sum and no score of any row wraps."""
    sums = math.log2(any_row.sums) + rounding.input_bits + rounding.weight_bits
    return sums < _room(folded, width) and _spare(folded, rounding, any_row, width) > 0


def _room(folded: Folded, width: int) -> int:
    """Return the bits that a weighted sum may have."""
    # A hidden unit must lie in the middle half of its ring to be cut exactly.
    return 8 * width - 2 if folded.signs else min(8 * width, MOST_BITS) - 1


def _kept(score: float) -> int:
    """Return how many bits hidden units keep, so that the sum of their squares fits."""
    # Signs are taken in 61 bits; two bits of room for what rounding adds.
    return min((58 - math.ceil(math.log2(score + 1))) // 2, _MOST_KEPT_BITS)


def _cut(rounding: Rounding) -> int:
    return rounding.input_bits + rounding.weight_bits - rounding.kept_bits


def _spare(folded: Folded, rounding: Rounding, any_row: Bounds, width: int) -> float:
    """Return the bits between the largest score and half of the ring in which signs are taken."""
    if folded.signs:
        bits, steps = 8 * HIDDEN_WIDTH, 2 * rounding.kept_bits
    else:
        bits, steps = 8 * width, rounding.input_bits + rounding.weight_bits
    return min(bits, MOST_BITS) - 1 - steps - math.log2(any_row.score)


def _proof(folded: Folded, rounding: Rounding, any_row: Bounds, inputs: Reals, width: int) -> Proof:
    return Proof(
        certain=any_row.error,
        calibration=bound_rows(folded, rounding, inputs).error,
        largest=any_row.score,
        spare_bits=_spare(folded, rounding, any_row, width),
    )


def _whole(folded: Folded, rounding: Rounding) -> tuple[Words, Words, Words]:
    """Return weights, start and offset as whole numbers modulo 2**64."""
    product_bits = rounding.input_bits + rounding.weight_bits
    weights = fixed(rounded(folded, rounding), rounding.weight_bits)
    return weights, fixed(folded.start, product_bits), fixed(folded.offset, 2 * rounding.kept_bits)
