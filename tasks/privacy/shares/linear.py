"""The linear layer: weighted sums of both parties' inputs.

For inputs X of one party, weights W of the other, masks A and B of theirs and shares of ``A B``:
the holder of the inputs sends ``E = X - A``, the holder of the weights once ``F = W - B``, and

    X W = E W + A F + A B

of which the first is computed where the weights are, the second where the inputs are. What either
sees is uniform. Nothing is cut: the sums keep all bits of their products, so nothing is lost or
wraps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kernels.ring64.products import product
from kernels.ring64.wire import packed, unpacked
from tasks.privacy.shares.dealing import names_of
from tasks.privacy.shares.material import SESSION, Material
from tasks.privacy.shares.part import Part
from tasks.privacy.shares.plan import JointPlan, Party
from tasks.privacy.shares.steps import NOTHING, Exchange, Steps

Words = NDArray[np.uint64]
Reals = NDArray[np.float64]


@dataclass(frozen=True)
class Layer:
    """A party's weights, ready for batches.

    Attributes:
        own: uint64 [H, G of the party]: its share of the weights of its own inputs.
        other: uint64 [H, G of the other]: its share of the weights of the other's inputs.
        start: uint64 [H], its share.
        masked: uint64 [H, G of the party] or None: the other's share of the weights of the party's
            inputs, masked.
    """

    own: Words
    other: Words
    start: Words
    masked: Words | None


def open_weights(plan: JointPlan, party: Party, part: Part, seed: bytes) -> Steps[Layer]:
    """Exchange masked weights, once for all batches of a deal.

    They are masked by what the deal fixes, so a deal serves one set of weights: it names the plan,
    the plan names the part.

    Args:
        plan: Of the model.
        party: Which this is.
        part: Its part of the weights.
        seed: Of its deal.
    """
    own, other = _columns(part.weights, plan, party)
    session = Material(seed, SESSION)
    outgoing, incoming = NOTHING, 0
    for crossing in plan.crossings:
        if crossing[1] == party:
            mask = session.words(names_of(crossing)[1], *other.shape)
            outgoing = packed(other - mask, plan.width)
        else:
            incoming = own.size * plan.width
    content = yield Exchange(outgoing, incoming)
    masked = unpacked(content, plan.width, own.shape) if incoming else None
    return Layer(own, other, part.start, masked)


def weighted_sums(
    plan: JointPlan, party: Party, layer: Layer, inputs: Reals, material: Material
) -> Steps[Words]:
    """Return a party's share of the weighted sums of one batch.

    Args:
        plan: Of the model.
        party: Which this is.
        layer: Its weights.
        inputs: float64 [n, G of the party], within the bounds of its encoding.
        material: Of the batch.

    Returns:
        uint64 [n, H] modulo ``2**(8 * plan.width)``.
    """
    rows, shape = len(inputs), (len(inputs), plan.inputs[1 - party])
    words = fixed(inputs, plan.input_bits)
    total = product(words, layer.own) + layer.start
    outgoing, incoming = NOTHING, 0
    for crossing in plan.crossings:
        input_name, _, name = names_of(crossing)
        total += material.words(name, rows, plan.units)
        if crossing[0] == party:
            mask = material.words(input_name, rows, words.shape[1])
            outgoing = packed(words - mask, plan.width)
            if layer.masked is not None:
                total += product(mask, layer.masked)
        else:
            incoming = rows * shape[1] * plan.width
    content = yield Exchange(outgoing, incoming)
    if incoming:
        total += product(unpacked(content, plan.width, shape), layer.other)
    return total


def fixed(numbers: Reals, bits: int) -> Words:
    """Return numbers as whole steps of ``2**-bits``, rounded, modulo 2**64.

    Example:
        >>> fixed(np.array([1.5, -0.25]), 2).view(np.int64).tolist()
        [6, -1]
    """
    words: Words = np.rint(numbers * 2.0**bits).astype(np.int64).view(np.uint64)
    return words


def _columns(weights: Words, plan: JointPlan, party: Party) -> tuple[Words, Words]:
    """Return the weights of the party's inputs and of the other's."""
    first, second = weights[:, : plan.inputs[0]], weights[:, plan.inputs[0] :]
    return (first, second) if party == 0 else (second, first)
