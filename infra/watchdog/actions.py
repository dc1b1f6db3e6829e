"""What the watchdog can do: bring services back, end workers, submit the job again."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

import psutil

from infra.errors import PenstockError, ServiceError
from infra.flink_rest import FlinkRest, FlinkRestError
from infra.services.flink_cluster import flink_address
from infra.services.process import group_members, is_running
from infra.services.registry import SERVICES, replace_service, revive_service
from infra.services.state import load_state
from infra.settings import Settings
from infra.watchdog.hold import hold

LOG = logging.getLogger(__name__)
WORKER = "pyflink.fn_execution"
CANCEL_SECONDS = 25.0
SUBMIT_SECONDS = 180.0


class Actions(Protocol):
    """The effects of the watchdog, apart from its rules."""

    def states(self, services: tuple[str, ...]) -> dict[str, str]:
        """State, running or crashed, of each service that was started and not stopped."""
        ...

    def revive(self, name: str) -> bool:
        """Start a crashed service again; whether it was done."""
        ...

    def replace(self, name: str) -> bool:
        """End a service that hangs and start it again; whether it was done."""
        ...

    def end_workers(self) -> int:
        """Kill the Python workers, so that Flink restarts the job; how many there were."""
        ...

    def resubmit(self, command: tuple[str, ...], job: str, checkpoint: str) -> str:
        """End what is left of the job and submit it again; returns the checkpoint used."""
        ...


class ServiceActions:
    """The real effects, on the services of this home.

    Args:
        settings: where they are.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def states(self, services: tuple[str, ...]) -> dict[str, str]:
        """Those with a record: "running" where the leading process lives, else "crashed"."""
        found = {}
        for name in services:
            state = load_state(self._settings, name) if name in SERVICES else None
            if state:
                found[name] = "running" if is_running(state) else "crashed"
        return found

    def revive(self, name: str) -> bool:
        """Start a crashed service again; False where it lives or was stopped on purpose.

        Raises:
            PenstockError: it does not come up.
        """
        return revive_service(self._settings, name) is not None

    def replace(self, name: str) -> bool:
        """End a service that hangs and start it again.

        Raises:
            PenstockError: it does not come up.
        """
        return replace_service(self._settings, name) is not None

    def end_workers(self) -> int:
        """Kill the Python workers of every TaskManager, stopped ones too."""
        ended = 0
        for name in ("flink-taskmanager", "flink-standby"):
            state = load_state(self._settings, name)
            for process in group_members(state) if state else []:
                with contextlib.suppress(psutil.Error):
                    if any(WORKER in word for word in process.cmdline()):
                        process.kill()
                        ended += 1
        return ended

    def resubmit(self, command: tuple[str, ...], job: str, checkpoint: str) -> str:
        """Cancel the job if it lives, find the newest checkpoint, run the command.

        Should this process die in between, the next watchdog knows that the job is to run.

        Raises:
            ServiceError: it cannot be cancelled, or the command fails; quotes its last line.
        """
        with hold(self._settings):
            if job:
                self._end_job(job)
            found = newest_restore(self._settings, job)
            if not found and is_usable(checkpoint):
                found = checkpoint  # of the run before this one
            restore = ("--restore", found) if found else ()
            run_command((*command, *restore), SUBMIT_SECONDS)
        return found

    def _end_job(self, job: str) -> None:
        host, port = flink_address(self._settings)
        rest = FlinkRest(host, port)
        try:
            if any(each.id == job and not each.ended for each in rest.jobs()):
                if rest.cancel(job, CANCEL_SECONDS):
                    return
                LOG.warning("job %s does not end: its TaskManager is replaced", job)
                self.replace("flink-taskmanager")
                rest.wait_for_end(job, CANCEL_SECONDS)
        except FlinkRestError as error:
            raise ServiceError(f"job {job} cannot be cancelled: {error}") from error


def run_command(command: tuple[str, ...], timeout: float) -> None:
    """Run a command in its own process group and let nothing of it stay.

    Raises:
        ServiceError: it is missing, fails, or takes too long.
    """
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
    except OSError as error:
        raise ServiceError(f"{command[0]} cannot be run: {error}") from error
    with process:
        try:
            said, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            raise ServiceError(f"{command[0]} took longer than {timeout:.0f} s") from None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    if process.returncode:
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        raise ServiceError(
            f"{' '.join(command[:4])} failed: {lines[-1][:300] if lines else 'no message'}"
        )


def is_usable(checkpoint: str) -> bool:
    """Whether a checkpoint is complete, as far as its files tell."""
    parts = urlsplit(checkpoint)
    if parts.scheme not in {"", "file"}:
        return True  # elsewhere; Flink will tell
    return bool(checkpoint) and (Path(unquote(parts.path)) / "_metadata").is_file()


def newest_restore(settings: Settings, job: str) -> str:
    """URI of the newest complete checkpoint or savepoint of a job, "" where there is none.

    A savepoint that ended the job is newer than its checkpoints, and only it knows of the
    transactions that were committed with it.

    Args:
        settings: where they are.
        job: id of the job; "" takes no other job's, for they may be of another kind.
    """
    if not job:
        return ""
    # Flink names a savepoint by the first six digits of its job.
    patterns = (f"checkpoints/{job}/chk-*/_metadata", f"savepoints/savepoint-{job[:6]}-*/_metadata")
    folder = settings.home / "flink"
    files = [path for pattern in patterns for path in folder.glob(pattern)]
    found = [(path.stat().st_mtime, path.parent) for path in files]
    return max(found)[1].as_uri() if found else ""


def attempt(what: str, error: PenstockError) -> str:
    """One line on a remedy that failed."""
    text = f"{what} failed: {error}"
    LOG.error("%s", text)
    return text
