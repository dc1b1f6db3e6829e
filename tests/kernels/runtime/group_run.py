"""A run as one of several processes: ``python group_run.py FOLDER STEPS [KILL_RANK KILL_STEP]``.

Without a group in the environment it is the run of one process. Writes the weights it ends with to
FOLDER/weights-RANK.pt.json, which the test compares.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import nullcontext
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

import torch
from torch import nn

from kernels.runtime.accumulation import AccumulationConfig
from kernels.runtime.clipping import ClippingConfig
from kernels.runtime.group import Group
from kernels.runtime.runner import Runner
from tests.kernels.runtime.small import batches, config, weights


def make_model() -> nn.Module:
    """Without dropout, whose numbers would differ between numbers of processes."""
    torch.manual_seed(int(os.environ.get("RANK", "0")))  # the first one's weights are everybody's
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1), nn.Linear(1, 1)).double()


def ragged(model, batch):
    """Every process has another number of items that count."""
    x, y = batch
    valid = x[:, 0] > 0.2
    return ((model(x) - y)[valid] ** 2).sum(), int(valid.sum())


def wide(index):
    return tuple(t.double() for t in batches(index))


def main() -> None:
    folder, steps = Path(sys.argv[1]), int(sys.argv[2])
    doomed, at = (int(a) for a in sys.argv[3:5]) if len(sys.argv) > 3 else (-1, -1)
    torch.set_num_threads(1)
    plan = config(
        steps,
        0.02,
        every=2,
        clipping=ClippingConfig(kind="auto", quantile=0.5),
        accumulation=AccumulationConfig(batches=2, parts=2, max_parts=4),
    )
    with Group.join(timeout=30) if "RANK" in os.environ else nullcontext():
        group = Group.current()

        def source(index):
            if group.rank == doomed and index == 2 * at:
                os.kill(os.getpid(), signal.SIGKILL)
            return wide(index)

        model = make_model()
        Runner(model, source, ragged, plan, folder=folder / "run").run()
        folder.mkdir(exist_ok=True)
        found = weights(model).tolist()
        (folder / f"weights-{group.rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
