"""A training run as a process of its own: ``python killed_run.py FOLDER STEPS [SLOW_MS]``.

It prints a line per step, so that a test knows when to kill it, and the digest of the weights at
the end.
"""

from __future__ import annotations

import hashlib
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

import numpy as np
import torch

from kernels.runtime.checkpoint import CheckpointConfig
from kernels.runtime.clipping import ClippingConfig
from kernels.runtime.ema import EmaConfig
from kernels.runtime.precision import PrecisionConfig
from kernels.runtime.runner import run
from tests.kernels.runtime.small import batches, config, make_model, squared, weights


def noisy(model, batch):
    """A loss that draws from NumPy and Python beside torch's dropout."""
    value, count = squared(model, batch)
    import random

    return value * (1 + 0.01 * np.random.rand() + 0.01 * random.random()), count  # noqa: NPY002


class Tell:
    def __init__(self, slow_ms: float) -> None:
        self.slow = slow_ms / 1_000

    def on_step(self, metrics) -> None:
        print(metrics.step, flush=True)  # noqa: T201
        time.sleep(self.slow)


def main() -> None:
    folder, steps = Path(sys.argv[1]), int(sys.argv[2])
    slow_ms = float(sys.argv[3]) if len(sys.argv) > 3 else 0.0
    torch.set_num_threads(1)
    plan = config(
        steps,
        0.02,
        batches=2,
        clipping=ClippingConfig(kind="auto", quantile=0.5, window=7),
        ema=EmaConfig(decay=0.9),
        precision=PrecisionConfig(compute="fp16", growth_steps=5),
        checkpoint=CheckpointConfig(every=3, memory_every=2),
    )
    model = make_model(norm=True)
    run(model, batches, noisy, plan, [Tell(slow_ms)], folder)
    state = b"".join(t.numpy().tobytes() for t in model.state_dict().values())
    print("done", hashlib.sha256(state).hexdigest(), len(weights(model)))  # noqa: T201


if __name__ == "__main__":
    main()
