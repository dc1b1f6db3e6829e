"""The JVM of a PyFlink client: started with its errors read, ended with its files.

pyflink starts it with its standard error as a pipe that nobody reads. 64 KiB of errors later, as of
a log that cannot be written, every thread that has another error to tell waits for good, and a job
in that JVM stands still without a word.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import threading
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from py4j.java_gateway import JavaGateway

logger = logging.getLogger(__name__)

LINE_BYTES = 10_000
"""A longer line is logged in pieces."""


def is_client_jvm_running() -> bool:
    """Whether this process has started it."""
    from pyflink import java_gateway

    return java_gateway._gateway is not None  # noqa: SLF001 - there is no public way to ask


def client_jvm() -> JavaGateway:
    """Return pyflink's gateway to its JVM; the first call starts it and logs what it says."""
    from pyflink import java_gateway

    if is_client_jvm_running():
        return java_gateway.get_gateway()
    start = java_gateway.launch_gateway_server_process
    started: list[subprocess.Popen[bytes]] = []

    def noting(*arguments: object) -> subprocess.Popen[bytes]:
        started.append(start(*arguments))
        return started[-1]

    java_gateway.launch_gateway_server_process = noting
    try:
        gateway = java_gateway.get_gateway()
    except BaseException:
        # Half a gateway would be taken for one that runs, and nobody would read its errors.
        for process in started:
            process.kill()
            process.wait()
        java_gateway._gateway = None  # noqa: SLF001 - there is no public way
        raise
    finally:
        java_gateway.launch_gateway_server_process = start
    for process in started:
        # Not before: where the start fails, pyflink reads the reason there itself.
        threading.Thread(target=_log_lines, args=(process.stderr,), daemon=True).start()
    return gateway


def end_client_jvm() -> None:
    """End it, if it runs."""
    from pyflink import java_gateway

    gateway = java_gateway._gateway  # noqa: SLF001 - there is no public way to ask
    if gateway is None:
        return
    with contextlib.suppress(Exception):  # it may be gone
        pid = int(gateway.jvm.java.lang.ProcessHandle.current().pid())
        with contextlib.suppress(Exception):
            gateway.shutdown()
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    java_gateway._gateway = None  # noqa: SLF001


def _log_lines(stream: IO[bytes]) -> None:
    """Log every line until the JVM and the processes that it started are gone."""
    with stream:
        while line := stream.readline(LINE_BYTES):
            logger.warning("Flink: %s", line.decode("utf-8", "replace").rstrip())
