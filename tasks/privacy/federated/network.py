"""A small fully connected network as one vector of numbers, so that it can be summed and averaged.

No batch normalisation: its running statistics are means over rows of one branch, which neither
average well nor stay within what the sums protect.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Reals = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Network:
    """ReLU layers that end in one log-odds; without hidden layers it is logistic regression.

    Attributes:
        inputs: Number of inputs F.
        hidden: Width of each hidden layer.
    """

    inputs: int
    hidden: tuple[int, ...] = (32,)

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if self.inputs < 1 or any(width < 1 for width in self.hidden):
            raise ValueError("network.inputs and every width of network.hidden must be at least 1")

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """Inputs and outputs of every layer."""
        return tuple(itertools.pairwise((self.inputs, *self.hidden, 1)))

    @property
    def parameters(self) -> int:
        """Number of parameters d: weights and biases of all layers."""
        return sum((fan_in + 1) * fan_out for fan_in, fan_out in self.shapes)

    def initial(self, seed: int) -> Reals:
        """Return first parameters, float64 [d]: He et al. 2015, biases zero."""
        rng = np.random.default_rng(seed)
        parts = [
            np.append(
                rng.normal(scale=math.sqrt(2 / fan_in), size=fan_in * fan_out)
                * (0.1 if fan_out == 1 else 1.0),
                np.zeros(fan_out),
            )
            for fan_in, fan_out in self.shapes
        ]
        return np.concatenate(parts)

    def layers(self, parameters: Reals) -> list[tuple[Reals, Reals]]:
        """Return weight [in, out] and bias [out] of every layer, as views."""
        found, start = [], 0
        for fan_in, fan_out in self.shapes:
            middle = start + fan_in * fan_out
            end = middle + fan_out
            weight = parameters[start:middle].reshape(fan_in, fan_out)
            found.append((weight, parameters[middle:end]))
            start = end
        return found

    def name(self, place: int) -> str:
        """Return what the parameter at a place is, for messages."""
        for layer, (fan_in, fan_out) in enumerate(self.shapes):
            if place < fan_in * fan_out:
                row, column = divmod(place, fan_out)
                return f"layer {layer} weight [{row}, {column}]"
            place -= fan_in * fan_out
            if place < fan_out:
                return f"layer {layer} bias [{place}]"
            place -= fan_out
        raise IndexError(f"the network has {self.parameters} parameters")

    def logits(self, parameters: Reals, x: Reals) -> Reals:
        """Return log-odds [n] of rows [n, F]."""
        return self._activations(parameters, x)[-1][:, 0]

    def gradient(
        self, parameters: Reals, x: Reals, y: Reals, *, clip: float = math.inf
    ) -> tuple[float, Reals]:
        """Return the summed log-loss of rows and the sum of their gradients.

        Each row's gradient is scaled down to Euclidean norm ``clip`` before it is added (Abadi et
        al. 2016). Its norm needs no gradient of its own: a layer's is the outer product of what
        goes in and what comes back (Goodfellow 2015).

        Args:
            parameters: float64 [d].
            x: float64 [n, F].
            y: float64 [n], 1 fraud, 0 legitimate.
            clip: Largest norm.

        Returns:
            Loss, and float64 [d]. With a clip a row whose gradient is no number adds nothing.
        """
        with np.errstate(over="ignore", invalid="ignore"):  # of parameters that are absurd
            return self._gradient(parameters, x, y, clip)

    def _gradient(self, parameters: Reals, x: Reals, y: Reals, clip: float) -> tuple[float, Reals]:
        inputs = self._activations(parameters, x)
        logit = inputs.pop()[:, 0]
        layers = self.layers(parameters)
        back = (0.5 * (1.0 + np.tanh(0.5 * logit)) - y)[:, None]
        backs = [back]
        for (weight, _), value in zip(layers[:0:-1], inputs[:0:-1], strict=True):
            back = (back @ weight.T) * (value > 0)
            backs.insert(0, back)
        if math.isfinite(clip):
            inputs, backs = _clipped(inputs, backs, clip)
        parts = [
            np.append((value.T @ part).ravel(), part.sum(axis=0))
            for value, part in zip(inputs, backs, strict=True)
        ]
        loss = float(np.sum(np.logaddexp(0.0, logit) - y * logit))
        return loss, np.concatenate(parts)

    def _activations(self, parameters: Reals, x: Reals) -> list[Reals]:
        """Return the input of every layer, then the log-odds [n, 1]."""
        values = [x]
        layers = self.layers(parameters)
        for i, (weight, bias) in enumerate(layers):
            value = values[-1] @ weight + bias
            values.append(np.maximum(value, 0.0) if i < len(layers) - 1 else value)
        return values


def _clipped(
    inputs: list[Reals], backs: list[Reals], clip: float
) -> tuple[list[Reals], list[Reals]]:
    """Return what goes in and comes back with each row's gradient brought down to the norm.

    A row whose norm is no number is left out. Were it refused instead, parameters that are chosen
    for it would tell whether it is there, and no noise would cover that.
    """
    squares = sum(
        np.square(back).sum(axis=1) * (np.square(value).sum(axis=1) + 1.0)
        for value, back in zip(inputs, backs, strict=True)
    )
    kept = np.isfinite(squares)[:, None]
    factor = np.minimum(1.0, clip / np.sqrt(np.maximum(squares, 1e-300)))[:, None]
    return (
        [np.where(kept, value, 0.0) for value in inputs],
        [np.where(kept, back * factor, 0.0) for back in backs],
    )
