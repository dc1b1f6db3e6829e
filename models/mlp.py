"""A small multilayer perceptron: scaled features in, one log-odds value out."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class MlpShape:
    """Sizes of the network.

    Attributes:
        inputs: Width of the input.
        hidden: Width of each hidden layer.
        dropout: Share of hidden units dropped in training.
    """

    inputs: int
    hidden: tuple[int, ...] = (64, 32)
    dropout: float = 0.1

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if self.inputs < 1 or not self.hidden or min(self.hidden) < 1:
            raise ValueError("an MLP needs at least one input and one hidden layer of width >= 1")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must lie in [0, 1), got {self.dropout}")


class Mlp(nn.Module):
    """ReLU layers and a linear output."""

    def __init__(self, shape: MlpShape) -> None:
        super().__init__()
        self.shape = shape
        layers: list[nn.Module] = []
        width = shape.inputs
        for hidden in shape.hidden:
            layers += [nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(shape.dropout)]
            width = hidden
        layers.append(nn.Linear(width, 1))
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Return log-odds [n] of inputs [n, inputs]."""
        out: Tensor = self.layers(x)
        return out.squeeze(-1)

    def linear_layers(self) -> list[tuple[Tensor, Tensor]]:
        """Return weight [out, in] and bias [out] of every linear layer, input to output."""
        return [(m.weight, m.bias) for m in self.layers if isinstance(m, nn.Linear)]
