"""Rank 1 of a group reads its third batch for ever: ``python hang_run.py FOLDER``."""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from kernels.runtime.group import Group
from kernels.runtime.hang_detector import HangConfig, HangDetector


def read_for_ever() -> None:
    time.sleep(600)


def main() -> None:
    logging.basicConfig()
    folder = Path(sys.argv[1])
    with Group.join(timeout=60) as group:
        group.sum(1.0)  # both are there

        def source(index):
            if index == 2 and group.rank == 1:
                read_for_ever()
            return index

        with HangDetector(folder, HangConfig(timeout=1.0, interval=0.1)) as detector:
            batches = detector.watching(source)
            for step in range(5):
                group.sum(float(batches(step)))


if __name__ == "__main__":
    main()
