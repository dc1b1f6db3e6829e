"""A search as a process of its own: ``python killed_search.py FOLDER TRIALS [SLOW_MS]``.

It prints a line for every report, so that a test knows when to kill it.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from tests.kernels.tuning.small import SPACE, build, search_config


def main() -> None:
    import torch

    from kernels.tuning.autotune import AutoTune
    from kernels.tuning.training import run_trial

    class Tell:
        def on_step(self, metrics) -> None:
            if metrics.metric is not None:
                print(metrics.step, flush=True)  # noqa: T201
                time.sleep(slow_ms / 1_000)

    folder, trials = Path(sys.argv[1]), int(sys.argv[2])
    slow_ms = float(sys.argv[3]) if len(sys.argv) > 3 else 0.0
    torch.set_num_threads(1)
    with AutoTune(SPACE, folder / "search.jsonl", search_config(trials)) as tune:
        while trial := tune.ask():
            run_trial(tune, trial, build, folder=folder / "trials", callbacks=[Tell()])


if __name__ == "__main__":
    main()
