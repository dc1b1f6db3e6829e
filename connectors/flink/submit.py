"""``python -m connectors.flink.submit SPEC``: builds a stream job and hands it to Flink.

A process of its own, because pyflink holds a JVM; the watchdog runs the same command. A remote job
outlives it, a local one runs inside it until it ends or is stopped. An application's is run by the
driver of Flink, which lends its JVM.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from connectors.flink.presets import PRESETS
from connectors.flink.spec import StreamSpec
from infra.errors import PenstockError, ServiceError
from infra.logging import configure_logging
from infra.services.java import QUICK_START
from infra.settings import Settings, get_settings

logger = logging.getLogger(__name__)

RUNS_ALREADY = 3
"""Exit code where the job runs already."""


class RunsAlreadyError(ServiceError):
    """A job of that name runs."""


def main(arguments: list[str] | None = None) -> int:
    """Submit; for a remote job print its id, for a local one wait for its end."""
    parser = argparse.ArgumentParser(prog="python -m connectors.flink.submit", description=__doc__)
    parser.add_argument("spec", type=Path, help="file of the stream job")
    parser.add_argument("--restore", default="", help="savepoint or checkpoint to go on from")
    given = parser.parse_args(arguments)
    settings = get_settings()
    configure_logging(settings.log_level)
    try:
        spec = StreamSpec.load(given.spec)
        submit(settings, spec.with_changes(restore=given.restore) if given.restore else spec)
    except PenstockError as error:
        sys.stderr.write(f"stream: {error}\n")
        return RUNS_ALREADY if isinstance(error, RunsAlreadyError) else 1
    return 0


def submit(settings: Settings, spec: StreamSpec) -> None:
    """Build and start the job in this process; it must not have started pyflink before.

    Raises:
        PenstockError: When there is no cluster, or the model or the jars are missing.
    """
    if spec.target == "application":
        submit_application(settings, spec)
        return
    with _alone(settings, spec):
        _submit_here(settings, spec)


def _submit_here(settings: Settings, spec: StreamSpec) -> None:
    """Build the job and hand it to the cluster, or run it in this process until it ends."""
    from connectors.flink.job import build_job
    from connectors.flink.remote import (
        end_client,
        local_configuration,
        prepare_client,
        remote_configuration,
        stream_environment,
    )

    options, job = spec.options(), spec.job()
    # The variable under which pyflink takes options for its JVM.
    os.environ.setdefault("JVM_ARGS", _jvm_options(settings, spec))
    prepare_client(settings, options.jars)
    try:
        make = remote_configuration if spec.target == "remote" else local_configuration
        environment = stream_environment(make(settings, options))
        build_job(environment, job)
        client = environment.execute_async(spec.job_name)
        logger.info("job %s submitted as %s", spec.job_name, client.get_job_id())
        if spec.target == "local":
            _wait(client)
            if spec.bounded:
                # Nothing goes on from them, and Flink's own clearing is cut short by the JVM's end.
                checkpoints = settings.home / "flink" / "checkpoints" / str(client.get_job_id())
                shutil.rmtree(checkpoints, ignore_errors=True)
    except Exception as error:
        if type(error).__name__ != "Py4JJavaError":
            raise
        # Read now: the text lies in the JVM, which ends below.
        raise ServiceError(
            f"Flink refused or ended {spec.job_name}: {_causes(str(error))}",
            f"Read {settings.logs}",
        ) from None
    finally:
        end_client(settings)


def _jvm_options(settings: Settings, spec: StreamSpec) -> str:
    """Return options for a JVM that runs the job, or lives as long as it takes to hand it over."""
    if spec.target != "local":
        return " ".join(QUICK_START)
    heap = f"-Xms{settings.flink_memory_mb // 2}m -Xmx{settings.flink_memory_mb}m"
    return " ".join([heap, *PRESETS[spec.preset].jvm_options])


@contextmanager
def _alone(settings: Settings, spec: StreamSpec) -> Iterator[None]:
    """Let one process at a time submit a remote job, and only where it does not run.

    Of a flow that was killed the submitter may go on, while the watchdog has begun its own: that
    one waits, before it takes any time from the first.

    Raises:
        RunsAlreadyError: The job runs.
    """
    if spec.target != "remote":
        yield
        return
    from infra.flink_rest import FlinkRest
    from infra.services.flink_cluster import flink_address
    from infra.services.process import service_lock

    with service_lock(settings, spec.job_name):
        found = FlinkRest(*flink_address(settings)).find(spec.job_name)
        if found is not None and not found.ended:
            raise RunsAlreadyError(
                f"{spec.job_name} runs already as job {found.id}",
                f"Run: penstock stream status {spec.name}",
            )
        yield


def submit_application(settings: Settings, spec: StreamSpec) -> None:
    """Build and start the job in the JVM of the driver that runs this process.

    That JVM is the JobManager: it is never ended here, and an exception goes to it as it is.

    Raises:
        PenstockError: When no driver runs this process, or the model is broken.
    """
    from connectors.flink.application import application_environment
    from connectors.flink.job import build_job

    environment = application_environment(settings, spec.options())
    build_job(environment, spec.job())
    # The driver waits for the job; this process is done.
    client = environment.execute_async(spec.job_name)
    logger.info("job %s submitted as %s", spec.job_name, client.get_job_id())


def _causes(text: str) -> str:
    """Return the last cause of a Java stack trace, and where it arose."""
    lines = [line.strip() for line in text.splitlines()]
    heads = [n for n, line in enumerate(lines) if line.startswith(("Caused by:", ": "))]
    if not heads:
        return text[:500]
    last = heads[-1]
    return " ".join(lines[last : last + 3])[:500]


def _wait(client: object) -> None:
    """Wait for the end of a local job; SIGTERM stops it."""
    stop = threading.Event()

    def on_signal(_: int, __: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, on_signal)
    result = client.get_job_execution_result()  # type: ignore[attr-defined]  # pyflink's
    while not stop.wait(0.1):
        if result.done():
            result.result()
            logger.info("finished")
            return
    logger.info("stopped")


if __name__ == "__main__":
    sys.exit(main())
