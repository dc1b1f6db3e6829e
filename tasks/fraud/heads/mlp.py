"""Small MLP head on scaled features, trained by the loop of ``kernels.runtime``.

After training its weights are plain arrays: scoring and ONNX export need no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tasks.fraud.heads.head import Head, HeadError, check_features, check_labels
from tasks.fraud.heads.onnx_graph import GraphBuilder
from tasks.fraud.heads.scaling import Scaling, fit_scaling

if TYPE_CHECKING:
    from torch import Tensor, nn

    from kernels.runtime.callbacks import Callback
    from models.mlp import Mlp, MlpShape

Float = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class MlpConfig:
    """Settings of the MLP head.

    Attributes:
        hidden: Width of each hidden layer.
        dropout: Share of hidden units dropped in training.
        epochs: Passes over the training rows.
        batch: Rows per step.
        learning_rate: Peak of warm-up and cosine.
        weight_decay: Decoupled penalty (AdamW) on the weights, not the biases.
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
        widths = self.hidden if isinstance(self.hidden, tuple) else ()
        if not widths or not all(isinstance(w, int) and w >= 1 for w in widths):
            raise HeadError(f"mlp.hidden must list whole widths of at least 1, got {self.hidden!r}")
        if self.epochs < 1 or self.batch < 1 or not self.learning_rate > 0:
            raise HeadError("mlp.epochs, mlp.batch and mlp.learning_rate must be positive")
        if not 0 <= self.dropout < 1:
            raise HeadError(f"mlp.dropout must lie in [0, 1), got {self.dropout}")
        if self.weight_decay < 0 or self.seed < 0:
            raise HeadError("mlp.weight_decay and mlp.seed must not be negative")


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


class MlpBatches:
    """Batches by index: every epoch is a new shuffle of all rows, its last batch may be smaller.

    Args:
        inputs: float32 [n, G] encoded training rows.
        target: float32 [n] 1 fraud, 0 legitimate.
        size: Rows of a batch.
        seed: Seed of the shuffles.
    """

    def __init__(
        self, inputs: NDArray[np.float32], target: NDArray[np.float32], *, size: int, seed: int
    ) -> None:
        self._inputs, self._target = inputs, target
        self._size, self._seed = size, seed
        self._shuffled: tuple[int, NDArray[np.intp]] | None = None

    @property
    def per_epoch(self) -> int:
        """Batches of one pass over the rows."""
        return -(-len(self._target) // self._size)

    def __call__(self, index: int) -> tuple[Tensor, Tensor]:
        """Return inputs [m, G] and target [m] of batch ``index``."""
        import torch

        epoch, place = divmod(index, self.per_epoch)
        rows = self._order(epoch)[place * self._size : (place + 1) * self._size]
        return torch.from_numpy(self._inputs[rows]), torch.from_numpy(self._target[rows])

    def _order(self, epoch: int) -> NDArray[np.intp]:
        if self._shuffled is None or self._shuffled[0] != epoch:
            rng = np.random.default_rng([self._seed, epoch])
            self._shuffled = (epoch, rng.permutation(len(self._target)))
        return self._shuffled[1]


def mlp_loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, int]:
    """Return the summed log-loss of a batch, and its number of rows."""
    from torch.nn.functional import binary_cross_entropy_with_logits as bce

    inputs, target = batch
    return bce(model(inputs), target, reduction="sum"), len(target)


def fit_mlp(
    x: NDArray[np.float32],
    y: ArrayLike,
    config: MlpConfig | None = None,
    *,
    callbacks: Sequence[Callback] = (),
    checkpoint_dir: Path | None = None,
) -> Head:
    """Fit the network; the head is uncalibrated until ``Head.calibrated``.

    Args:
        x: float32 [n, F].
        y: [n] 1 fraud, 0 legitimate.
        config: Settings.
        callbacks: Listeners of the loop.
        checkpoint_dir: Folder from which a killed run continues.

    Raises:
        HeadError: On labels of one class, unknown labels, or features that are not finite.
    """
    from kernels.runtime.checkpoint import CheckpointConfig
    from kernels.runtime.config import RunConfig
    from kernels.runtime.optimizer import OptimizerConfig
    from kernels.runtime.runner import run
    from models.mlp import MlpShape

    settings = config or MlpConfig()
    values = check_features(x)
    target = check_labels(y, len(values)).astype(np.float32)
    scaling = fit_scaling(values)
    inputs = scaling.encode(values).astype(np.float32)
    batches = MlpBatches(inputs, target, size=settings.batch, seed=settings.seed)
    shape = MlpShape(scaling.outputs, settings.hidden, settings.dropout)
    network = _untrained(shape, float(target.mean()), settings.seed)
    steps = settings.epochs * batches.per_epoch
    plan = RunConfig(
        steps=steps,
        seed=settings.seed,
        optimizer=OptimizerConfig(
            learning_rate=settings.learning_rate, weight_decay=settings.weight_decay
        ),
        checkpoint=CheckpointConfig(every=max(steps // 4, 1) if checkpoint_dir else 0),
    )
    run(network, batches, mlp_loss, plan, callbacks, checkpoint_dir)
    layers = tuple(
        (w.detach().numpy().astype(np.float64), b.detach().numpy().astype(np.float64))
        for w, b in network.linear_layers()
    )
    return Head(MlpScorer(scaling, layers))


def _untrained(shape: MlpShape, share: float, seed: int) -> Mlp:
    """Return a network that starts at the base rate, not at one half."""
    import torch

    from models.mlp import Mlp

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Mlp(shape)
    with torch.no_grad():
        network.linear_layers()[-1][1].fill_(float(np.log(share / (1.0 - share))))
    return network
