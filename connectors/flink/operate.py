"""Running streams: start, status, upgrade, repair, stop.

Every stream is a spec file under ``home/stream``; the job itself is found by its name in the
cluster. Whoever starts a job tells the watchdog how to submit it again.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from connectors.flink.spec import StreamSpec
from connectors.flink.submit import RUNS_ALREADY, RunsAlreadyError
from infra.errors import ServiceError
from infra.flink_rest import ENDED, FlinkRest
from infra.services.flink_cluster import flink_address
from infra.settings import Settings
from infra.watchdog.config import load_config, save_config
from infra.watchdog.hold import hold
from infra.watchdog.report import read_status

logger = logging.getLogger(__name__)

SUBMIT_SECONDS = 180.0
READY_SECONDS = 120.0
POLL_SECONDS = 0.5
NOT_OURS = frozenset({"held", "starting", "restarting", "missing", "unreachable", "stopped"})
"""States in which the watchdog has the job in hand, or knows that somebody ended it."""


@dataclass(frozen=True, slots=True)
class StreamStatus:
    """How a stream is doing.

    Attributes:
        name: Name of the stream.
        state: State of its job as Flink tells it; ``ABSENT`` without one.
        job: Flink's id of the job; empty without one.
        checkpoint_age_s: Seconds since the last completed checkpoint; None before the first.
        checkpoints: Completed checkpoints since the JobManager started.
        restarts: Restarts by Flink itself.
        lag: Messages not read yet; None before the sources tell.
        back_pressure: Largest share of time, 0 to 1, that an operator was held back.
        model: Stamp of the model at the job's start.
        watchdog: What the watchdog last said; empty where it does not run.
    """

    name: str
    state: str
    job: str = ""
    checkpoint_age_s: float | None = None
    checkpoints: int = 0
    restarts: int = 0
    lag: int | None = None
    back_pressure: float = 0.0
    model: str = ""
    watchdog: Mapping[str, Any] | None = None

    @property
    def healthy(self) -> bool:
        """Whether the job runs and completes checkpoints: running alone is no proof."""
        return self.state == "RUNNING" and self.checkpoints > 0

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self) | {"healthy": self.healthy}


def stream_folder(settings: Settings) -> Path:
    """Return the folder of all streams."""
    return settings.home / "stream"


def models_folder(settings: Settings) -> Path:
    """Return the folder of the models that rows are stamped with."""
    return stream_folder(settings) / "models"


def spec_path(settings: Settings, name: str) -> Path:
    """Return the file that describes a stream."""
    return stream_folder(settings) / f"{name}.json"


def cluster(settings: Settings) -> FlinkRest:
    """Return a client of our session cluster.

    Raises:
        ServiceError: No cluster runs.
    """
    return FlinkRest(*flink_address(settings))


def start(settings: Settings, spec: StreamSpec, *, ready_s: float = READY_SECONDS) -> StreamStatus:
    """Submit a stream to the cluster and wait until it has completed a checkpoint.

    Raises:
        ServiceError: It runs already, there is no cluster, or it does not become healthy; then
            nothing of it stays.
    """
    found = cluster(settings).find(spec.job_name)
    if found is not None and not found.ended:
        raise RunsAlreadyError(
            f"stream {spec.name} runs already as job {found.id}",
            f"Run: penstock stream upgrade {spec.name}, or stop it first",
        )
    if spec.kafka:
        from connectors.kafka.topics import StreamTopics, ensure_topics

        ensure_topics(spec.kafka, StreamTopics(spec.name, partitions=spec.parallelism).all)
    with hold(settings):
        return _start(settings, spec, ready_s)


def _start(settings: Settings, spec: StreamSpec, ready_s: float) -> StreamStatus:
    """Submit and wait; the caller holds the job."""
    path = spec_path(settings, spec.name)
    spec.save(path)
    try:
        _submit(settings, path)
        status = wait_until_healthy(settings, spec.name, ready_s)
    except RunsAlreadyError:
        raise  # whoever submitted it, it is none of ours to cancel
    except ServiceError:
        _cancel(settings, spec.job_name)
        raise
    # A later submission, by the watchdog, names its own checkpoint.
    spec.with_changes(restore="").save(path)
    _watch(settings, spec.job_name, path)
    return status


def status(settings: Settings, name: str) -> StreamStatus:
    """Return how a stream is doing.

    Raises:
        ServiceError: No cluster runs.
        ConfigurationError: No stream of that name was ever started.
    """
    spec = StreamSpec.load(spec_path(settings, name))
    rest = cluster(settings)
    found = rest.find(spec.job_name)
    watchdog = read_status(settings)
    if found is None:
        return StreamStatus(name, "ABSENT", model=spec.model, watchdog=watchdog)
    if found.ended:
        return StreamStatus(name, found.state, found.id, model=spec.model, watchdog=watchdog)
    done = rest.checkpoints(found.id)
    vertices = rest.graph(found.id).vertices
    return StreamStatus(
        name=name,
        state=found.state,
        job=found.id,
        checkpoint_age_s=time.time() - done.last_ms / 1000 if done.last_ms else None,
        checkpoints=done.completed,
        restarts=rest.restarts(found.id),
        lag=rest.lag(found.id, vertices),
        back_pressure=rest.back_pressure(found.id, vertices),
        model=spec.model,
        watchdog=watchdog,
    )


def wait_until_healthy(settings: Settings, name: str, timeout: float) -> StreamStatus:
    """Wait for a completed checkpoint.

    Raises:
        ServiceError: None came in time, or the job ended.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            seen = status(settings, name)
        except ServiceError:  # the JobManager may be on its way back
            seen = StreamStatus(name, "UNREACHABLE")
        if seen.healthy:
            return seen
        if seen.state in {"FAILED", "CANCELED"} or time.monotonic() > deadline:
            raise ServiceError(
                f"stream {name} did not complete a checkpoint: its job is {seen.state}",
                f"Read {settings.logs}/flink-taskmanager.log",
            )
        time.sleep(POLL_SECONDS)


def repair(settings: Settings, name: str) -> list[str]:
    """Mend what the watchdog could not: the watchdog itself, and a job that it has given up.

    Returns:
        What was done, a line each.

    Raises:
        ServiceError: It does not become healthy.
    """
    from infra.services.registry import revive_service, service_status

    if revive_service(settings, "watchdog") is not None:
        return ["the watchdog was started again"]  # the job is its task
    seen = status(settings, name)
    on_purpose = load_config(settings).job != StreamSpec.load(spec_path(settings, name)).job_name
    if on_purpose or seen.state not in {"ABSENT", *ENDED}:
        return []
    watched = service_status(settings, "watchdog").state == "running"
    if watched and (seen.watchdog or {}).get("state") in NOT_OURS:
        return []
    revive(settings, name)
    return ["the job was submitted again"]


def revive(settings: Settings, name: str) -> StreamStatus:
    """Submit a stream again that is gone for good, from its newest checkpoint if there is one.

    Raises:
        ServiceError: It does not become healthy.
    """
    from infra.watchdog.actions import newest_restore

    spec = StreamSpec.load(spec_path(settings, name))
    found = cluster(settings).find(spec.job_name)
    newest = newest_restore(settings, found.id if found else "")
    return start(settings, spec.with_changes(restore=newest or spec.restore))


def stop(settings: Settings, name: str, *, forget: bool = False) -> str:
    """Stop a stream with a savepoint, from which the next start goes on.

    Args:
        settings: The settings.
        name: The stream.
        forget: Cancel without a savepoint; the next start begins anew.

    Returns:
        URI of the savepoint; empty when forgotten or nothing ran.
    """
    path = spec_path(settings, name)
    with hold(settings):
        savepoint = _stop(settings, path, forget=forget)
        _watch(settings, "", path)
    return savepoint


def _stop(settings: Settings, path: Path, *, forget: bool = False) -> str:
    """End the job of a spec; a savepoint is noted in it. Returns the savepoint's URI or ""."""
    spec = StreamSpec.load(path)
    rest = cluster(settings)
    found = rest.find(spec.job_name)
    if found is None or found.ended:
        return ""
    if forget:
        rest.cancel(found.id)
        spec.with_changes(restore="").save(path)
        return ""
    # Longer than a checkpoint may last: then it is there, or has failed.
    savepoint = rest.savepoint(found.id, _savepoints(settings), stop=True, timeout=90)
    spec.with_changes(restore=savepoint).save(path)
    return savepoint


def upgrade(
    settings: Settings, name: str, changes: Mapping[str, Any], *, ready_s: float = READY_SECONDS
) -> StreamStatus:
    """Replace a running job: savepoint, new job, verify; if it fails, the old one goes on.

    Where this process is broken off or killed on the way, the watchdog submits what the spec's file
    says then: the old job until the savepoint is taken, the new one from there on.

    Args:
        settings: The settings.
        name: The stream.
        changes: Fields of the spec that change.
        ready_s: Seconds the new job has for its first checkpoint.

    Raises:
        ServiceError: The new job did not become healthy; the old one runs again from the savepoint.
    """
    path = spec_path(settings, name)
    old = StreamSpec.load(path)
    new = old.with_changes(**changes)
    with hold(settings):
        savepoint = _stop(settings, path)
        if not savepoint:
            raise ServiceError(f"stream {name} does not run", f"Run: penstock stream start {name}")
        try:
            return _start(settings, new.with_changes(restore=savepoint), ready_s)
        except ServiceError as error:
            logger.exception("the upgrade of stream %s failed; going back", name)
            failure = error
            _start(settings, old.with_changes(restore=savepoint), ready_s)
    raise ServiceError(
        f"the upgrade failed and was taken back: {failure.what}", failure.fix
    ) from failure


def _submit(settings: Settings, path: Path) -> None:
    """Run the submitter in a process of its own: pyflink's JVM must not stay here."""
    command = submit_command(path)
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=SUBMIT_SECONDS,
            check=False,
            env=_environment(settings),
        )
    except subprocess.TimeoutExpired as error:
        raise ServiceError(
            f"the job was not submitted within {SUBMIT_SECONDS:.0f} s", "Is the machine busy?"
        ) from error
    if done.returncode == RUNS_ALREADY:
        raise RunsAlreadyError("another process has submitted the job", "See: penstock status")
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise ServiceError(lines[-1] if lines else "the submitter failed without a word")


def submit_command(path: Path) -> tuple[str, ...]:
    """Return the command that submits a stream by its file."""
    return (sys.executable, "-m", "connectors.flink.submit", str(path))


def _environment(settings: Settings) -> dict[str, str]:
    return {**os.environ, "PENSTOCK_HOME": str(settings.home)}


def _savepoints(settings: Settings) -> str:
    return (settings.home / "flink" / "savepoints").as_uri()


def _watch(settings: Settings, job: str, path: Path) -> None:
    """Tell the watchdog which job to watch; "" for none."""
    submit = submit_command(path) if job else ()
    save_config(settings, replace(load_config(settings), job=job, submit=submit))


def _cancel(settings: Settings, job_name: str) -> None:
    try:
        rest = cluster(settings)
        found = rest.find(job_name)
        if found is not None and not found.ended:
            rest.cancel(found.id)
    except ServiceError:
        logger.warning("job %s could not be cancelled; the cluster does not answer", job_name)
