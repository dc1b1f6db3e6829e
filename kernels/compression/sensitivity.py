"""What each layer loses and saves in 8 and in 4 bits, each alone: numbers to choose by.

The losses are those by which `kernels.compression.qdq` and `kernels.compression.mixed` choose
themselves; here they are measured for every layer and put side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from kernels.compression.mixed import MixedConfig
from kernels.compression.mixed import Trial as MixedTrial
from kernels.compression.qdq import Loss, QdqConfig
from kernels.compression.qdq import Trial as QdqTrial
from kernels.compression.ranges import Inputs


@dataclass(frozen=True, slots=True)
class LayerSensitivity:
    """One layer.

    Attributes:
        layer: Name of its node.
        operator: What it computes.
        weights: Numbers of its weights.
        loss_int8: When it alone is int8 and all others float.
        loss_int4: When its weights have 4 bits beside; NaN where they cannot, as in products of two
            activations.
        saved_int8: Bytes that its weights take less in 8 bits than in 32.
        saved_int4: Bytes that they take less in 4 bits than in 8.
    """

    layer: str
    operator: str
    weights: int
    loss_int8: float
    loss_int4: float
    saved_int8: int
    saved_int4: int

    def as_dict(self) -> dict[str, str | int | float]:
        """Return its entries by name."""
        return asdict(self)


def measure_sensitivity(
    model: bytes, calibration: Sequence[Inputs], loss: Loss, config: QdqConfig | None = None
) -> list[LayerSensitivity]:
    """Return all layers that can be int8, in the order of the graph.

    Args:
        model: float32 ONNX file.
        calibration: Inputs like those to come.
        loss: How much two lists of answers differ.
        config: How to quantise; its first rule sets the ranges.

    Raises:
        ExportError: When nothing can be quantised, or there are no calibration inputs.
    """
    config = config or QdqConfig()
    trial = QdqTrial(model, calibration, loss, config)
    settings = MixedConfig(ranking_inputs=config.ranking_inputs, threads=config.threads)
    count = config.ranking_inputs
    sizes = {t.name: int(np.prod(t.dims)) for t in trial.proto.graph.initializer}
    found = []
    for node in trial.nodes:
        if node.name not in trial.weighted:
            continue
        alone = trial.build(config.rules[0], only=(node.name,))
        weights = sizes.get(node.input[1], 0)  # a product of two activations has none
        four, saved = float("nan"), 0
        if weights:
            mixed = MixedTrial(alone, calibration, trial.reference, loss, settings)
            if node.name in mixed.layers:
                four = mixed.loss(mixed.build((node.name,)), count)
                saved = mixed.saved(node.name)
        eight = trial.loss(alone, count)
        found.append(
            LayerSensitivity(node.name, node.op_type, weights, eight, four, 3 * weights, saved)
        )
    return found
