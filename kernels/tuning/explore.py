"""How a population changes its hyper-parameters: who copies whom, and what the copy tries.

Jaderberg, Dalibard, Osindero, Czarnecki, Donahue, Razavi, Vinyals, Green, Dunning, Simonyan,
Fernando and Kavukcuoglu, "Population based training of neural networks", 2017: exploit by
truncation, explore by perturbing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from kernels.tuning.space import Choice, Integer, Parameters, Space, Uniform, Value

FACTORS = (0.8, 1.25)
SHIFT = 0.1  # of the range, for numbers that are not on a logarithmic scale


def copies(values: Sequence[float], share: float, generator: np.random.Generator) -> dict[int, int]:
    """Return which members take over which others.

    Args:
        values: Figure of each member; low is good, NaN and infinity are worst.
        share: Share of the population at the bottom that copies, each one drawn from the same
            share at the top.
        generator: Draws.

    Returns:
        By member, the one it copies.
    """
    ranks = [value if math.isfinite(value) else math.inf for value in values]
    order = sorted(range(len(values)), key=ranks.__getitem__)
    count = max(int(len(values) * share), 1)
    top, bottom = order[:count], order[-count:]
    # Whoever diverged is of no use as a source, and stands still if it copies nobody.
    top = [i for i in top if math.isfinite(values[i])]
    lost = [i for i in order if not math.isfinite(values[i])]
    if not top:
        return {}
    return {i: int(generator.choice(top)) for i in sorted({*bottom, *lost} - set(top))}


def perturbed(
    parameters: Parameters, space: Space, redraw: float, generator: np.random.Generator
) -> Parameters:
    """Return parameters near the given ones.

    Args:
        parameters: The parameters.
        space: Where they lie.
        redraw: Chance that one is drawn anew instead.
        generator: Draws.
    """
    fresh = space.draw(generator)
    found: Parameters = {}
    for name, dimension in space.dimensions.items():
        if generator.random() < redraw:
            found[name] = fresh[name]
        else:
            found[name] = _neighbour(parameters[name], dimension, generator)
    return found


def _neighbour(
    value: Value, dimension: Uniform | Integer | Choice, generator: np.random.Generator
) -> Value:
    up = bool(generator.random() < 0.5)
    if isinstance(dimension, Choice):
        place = dimension.options.index(value) + (1 if up else -1)
        return dimension.options[min(max(place, 0), len(dimension.options) - 1)]
    number = float(value)
    if dimension.log:
        moved = number * FACTORS[up]
    else:
        moved = number + (1 if up else -1) * SHIFT * (dimension.high - dimension.low)
    near = dimension.nearest(moved)
    if isinstance(dimension, Integer) and near == value:
        near = dimension.nearest(number + (1 if up else -1))
    return near
