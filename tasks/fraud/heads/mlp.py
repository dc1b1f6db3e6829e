"""Small MLP head on scaled features, trained with Adam and a cosine schedule.

After training its weights are plain arrays: scoring and ONNX export need no torch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tasks.fraud.heads.head import Head, HeadError, check_features, check_labels
from tasks.fraud.heads.onnx_graph import GraphBuilder
from tasks.fraud.heads.scaling import Scaling, fit_scaling

Float = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class MlpConfig:
    """Settings of the MLP head.

    Attributes:
        hidden: Width of each hidden layer.
        dropout: Share of hidden units dropped in training.
        epochs: Passes over the training rows.
        batch: Rows per step.
        learning_rate: Peak of the cosine schedule.
        weight_decay: Decoupled penalty (AdamW).
        seed: Seed of weights, order and dropout.
    """

    hidden: tuple[int, ...] = (64, 32)
    dropout: float = 0.1
    epochs: int = 6
    batch: int = 2048
    learning_rate: float = 3e-3
    weight_decay: float = 1e-4
    seed: int = 0

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if self.epochs < 1 or self.batch < 1 or not self.learning_rate > 0:
            raise HeadError("mlp.epochs, mlp.batch and mlp.learning_rate must be positive")


@dataclass(frozen=True, slots=True)
class MlpScorer:
    """A fitted network as arrays.

    Attributes:
        scaling: Encoding of the features.
        layers: Weight [out, in] and bias [out] of every linear layer, float64.
    """

    scaling: Scaling
    layers: tuple[tuple[Float, Float], ...]

    @property
    def width(self) -> int:
        """Number of features F."""
        return self.scaling.width

    def logit(self, x: NDArray[np.float32]) -> Float:
        """Return log-odds [n]."""
        value = self.scaling.encode(x)
        for weight, bias in self.layers[:-1]:
            value = np.maximum(value @ weight.T + bias, 0.0)
        weight, bias = self.layers[-1]
        score: Float = (value @ weight.T + bias)[:, 0]
        return score

    def add_to(self, graph: GraphBuilder, features: str) -> str:
        """Add encoding and layers, in float64 up to the log-odds."""
        value = self.scaling.add_to(graph, features)
        for i, layer in enumerate(self.layers):
            weight, bias = (graph.constant(part, dtype=np.float64) for part in layer)
            value = graph.node("Gemm", [value, weight, bias], transB=1)
            if i < len(self.layers) - 1:
                value = graph.node("Relu", [value])
        return graph.cast(value, np.float32)


def fit_mlp(x: NDArray[np.float32], y: ArrayLike, config: MlpConfig | None = None) -> Head:
    """Fit the network; the head is uncalibrated until ``Head.calibrated``.

    Args:
        x: float32 [n, F].
        y: [n] 1 fraud, 0 legitimate.
        config: Settings.

    Raises:
        HeadError: On labels of one class, unknown labels, or features that are not finite.
    """
    import torch

    from models.mlp import Mlp, MlpShape

    settings = config or MlpConfig()
    values = check_features(x)
    labels = check_labels(y, len(values))
    scaling = fit_scaling(values)
    inputs = torch.from_numpy(scaling.encode(values).astype(np.float32))
    target = torch.from_numpy(labels.astype(np.float32))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        network = Mlp(MlpShape(scaling.outputs, settings.hidden, settings.dropout))
        with torch.no_grad():  # start at the base rate, not at one half
            share = float(target.mean())
            network.linear_layers()[-1][1].fill_(float(np.log(share / (1.0 - share))))
        steps = settings.epochs * -(-len(values) // settings.batch)
        optimizer = torch.optim.AdamW(
            network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        loss_of = torch.nn.BCEWithLogitsLoss()
        network.train()
        for _ in range(settings.epochs):
            order = torch.randperm(len(values))
            for start in range(0, len(values), settings.batch):
                rows = order[start : start + settings.batch]
                optimizer.zero_grad(set_to_none=True)
                loss = loss_of(network(inputs[rows]), target[rows])
                loss.backward()
                optimizer.step()
                schedule.step()
    layers = tuple(
        (w.detach().numpy().astype(np.float64), b.detach().numpy().astype(np.float64))
        for w, b in network.linear_layers()
    )
    return Head(MlpScorer(scaling, layers))
