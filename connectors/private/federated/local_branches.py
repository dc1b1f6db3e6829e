"""Branches on this machine, each a process of its own: for rehearsals, tests and benchmarks."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from numpy.typing import ArrayLike

from connectors.private.federated.branch_client import CoordinatorAddress
from connectors.private.federated.branch_folder import (
    IDENTITY,
    ROWS,
    BranchSettings,
    make_identity,
    write_rows,
    write_settings,
)
from tasks.privacy.federated.plan import TrainingPlan
from tasks.privacy.federated.roster import Roster

STOP_SECONDS = 5.0


class LocalBranches:
    """Processes of branches; as a context it ends them and removes their rows, whatever happens.

    Attributes:
        roster: Who takes part.
        processes: Name -> process.
    """

    def __init__(
        self,
        folder: Path,
        parts: Mapping[str, tuple[ArrayLike, ArrayLike]],
        *,
        threshold: int,
        colluding: int = 0,
        started: Callable[[int], None] | None = None,
    ) -> None:
        """Write rows and keys; no process yet.

        Args:
            folder: Gets a folder for each branch.
            parts: Name -> features [n, F] and labels [n].
            threshold: Branches that must stay.
            colluding: Branches that may side with the coordinator.
            started: Told the process group of each branch that is started.
        """
        self._folders = {name: folder / name for name in parts}
        keys = {name: make_identity(path) for name, path in self._folders.items()}
        self.roster = Roster(keys, threshold, colluding)  # refused before a row is written
        for name, (x, y) in parts.items():
            write_rows(self._folders[name], x, y)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._started = started

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in self.processes.values():
            if error is None:
                with contextlib.suppress(subprocess.TimeoutExpired):  # killed below
                    process.wait(STOP_SECONDS)
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for folder in self._folders.values():
            for copied in (ROWS, IDENTITY):
                (folder / copied).unlink(missing_ok=True)

    def start(self, plan: TrainingPlan, address: CoordinatorAddress) -> None:
        """Start all branches."""
        for name, folder in self._folders.items():
            write_settings(folder, BranchSettings(name, address, plan, self.roster))
            self.start_one(name)

    def start_one(self, name: str) -> None:
        """Start a branch whose settings have been written, or start it again."""
        folder = self._folders[name]
        with (folder / "branch.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", "connectors.private.federated.branch_process", str(folder)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                start_new_session=True,
            )
        if self._started is not None:
            self._started(self.processes[name].pid)

    def kill(self, name: str) -> None:
        """End a branch as a power cut would."""
        os.killpg(self.processes[name].pid, signal.SIGKILL)
        self.processes[name].wait()

    def log(self, name: str) -> str:
        """Return what a branch has written."""
        return (self._folders[name] / "branch.log").read_text("utf-8")
