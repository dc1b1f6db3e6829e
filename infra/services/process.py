"""Start, watch and stop services as process groups that outlive the command."""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import os
import secrets
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from infra.errors import ServiceError
from infra.services.service import Service
from infra.services.state import ServiceState, forget_state, load_state, save_state
from infra.settings import HOST, Settings

if TYPE_CHECKING:
    import psutil

TOKEN = "PENSTOCK_SERVICE_TOKEN"  # noqa: S105 - the name of a variable, not a secret
POLL_SECONDS = 0.1
STOP_SECONDS = 10.0
# psutil derives start times from the boot time, which the clock may shift a little; where it was
# set anew the token tells.
CREATED_TOLERANCE = 2.0


@contextlib.contextmanager
def service_lock(
    settings: Settings, name: str, cancel: threading.Event | None = None
) -> Iterator[None]:
    """Let one command at a time start or stop a service; a killed holder releases it.

    Raises:
        ServiceError: another thread gave up waiting by setting ``cancel``.
    """
    settings.services.mkdir(parents=True, exist_ok=True)
    with (settings.services / f"{name}.lock").open("w") as handle:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                require_wanted(name, cancel)
                time.sleep(POLL_SECONDS)
        yield


def require_wanted(name: str, cancel: threading.Event | None) -> None:
    """Go on unless the start was given up.

    Raises:
        ServiceError: ``cancel`` is set.
    """
    if cancel and cancel.is_set():
        raise ServiceError(f"{name}: start given up", "Run: penstock up")


def group_members(state: ServiceState) -> list[psutil.Process]:
    """Processes of the service that are alive, its leader first; empty when none is left."""
    import psutil

    members = []
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) != state.pid or process.status() == psutil.STATUS_ZOMBIE:
                continue
            ours = (
                process.pid == state.pid
                and abs(process.create_time() - state.created) <= CREATED_TOLERANCE
            ) or process.environ().get(TOKEN) == state.token
        except (psutil.Error, OSError):
            continue  # gone meanwhile, or another user's
        if ours:
            members.append(process)
    return sorted(members, key=lambda process: process.pid != state.pid)


def is_running(state: ServiceState) -> bool:
    """Whether the leader of the service's group is alive; costs no look at other processes."""
    return is_alive(state.pid, state.created, state.token)


def is_alive(pid: int, since: float, token: str | None = None) -> bool:
    """Whether the process that had this number at a time still runs.

    Args:
        pid: its number.
        since: what `start_time` told of it.
        token: of a service, which proves it where the clock was set anew; None: only times count.
    """
    import psutil

    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        if abs(process.create_time() - since) <= CREATED_TOLERANCE:
            return True
        return token is not None and process.environ().get(TOKEN) == token
    except psutil.Error:
        return False


def reap(state: ServiceState) -> None:
    """Collect the remains of a dead service that this very process had started."""
    with contextlib.suppress(ChildProcessError, OSError):
        os.waitpid(state.pid, os.WNOHANG)


def answers(port: int, question: bytes, wanted: bytes) -> bool:
    """Whether the service answers a question on its port with these bytes."""
    try:
        with socket.create_connection((HOST, port), timeout=2) as link:
            link.sendall(question)
            return link.recv(len(wanted)) == wanted
    except OSError:
        return False


def is_healthy(port: int, health: str) -> bool:
    """Whether the service answers: 2xx at ``health``, or a connection where that is ""."""
    try:
        if not health:
            with socket.create_connection((HOST, port), timeout=2):
                return True
        # http.client asks the loopback address itself, whatever proxy is configured.
        connection = http.client.HTTPConnection(HOST, port, timeout=2)
        try:
            connection.request("GET", health)
            return 200 <= connection.getresponse().status < 300
        finally:
            connection.close()
    except (OSError, http.client.HTTPException):
        return False


def spawn(settings: Settings, service: Service) -> tuple[ServiceState, subprocess.Popen[bytes]]:
    """Start the service's process in its own session and record it at once."""
    settings.logs.mkdir(parents=True, exist_ok=True)
    log = settings.logs / f"{service.name}.log"
    token = secrets.token_hex(8)
    try:
        with log.open("ab") as output:
            process = subprocess.Popen(
                service.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=settings.home,
                env={**os.environ, **service.environment, TOKEN: token},
                start_new_session=True,
            )
    except FileNotFoundError as error:
        raise ServiceError(
            f"{service.name}: {service.command[0]} is not installed", "Run: make setup"
        ) from error
    try:
        state = ServiceState(
            name=service.name,
            pid=process.pid,
            created=start_time(process.pid),
            token=token,
            port=service.port,
            command=service.command,
            health=service.health,
            log=str(log),
        )
        save_state(settings, state)
    except BaseException:  # Ctrl-C too: without a record no later command could stop it
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    return state, process


def start_time(pid: int) -> float:
    """When a process started; the present where it has ended already."""
    import psutil

    try:
        return float(psutil.Process(pid).create_time())
    except psutil.NoSuchProcess:  # wait_until_ready tells why it ended
        return time.time()


def wait_until_ready(
    state: ServiceState,
    ready: Callable[[], bool],
    timeout: float,
    process: subprocess.Popen[bytes] | None = None,
    cancel: threading.Event | None = None,
) -> None:
    """Return once the service is ready; another thread may give up by setting ``cancel``.

    Raises:
        ServiceError: it ended, or was not ready in ``timeout`` seconds; quotes its log.
    """
    deadline = time.monotonic() + timeout
    while not ready():
        ended = process.poll() is not None if process else not is_running(state)
        if ended:
            raise ServiceError(
                f"{state.name} ended while starting: {last_line(Path(state.log))}",
                f"Read {state.log}",
            )
        require_wanted(state.name, cancel)
        if time.monotonic() > deadline:
            raise ServiceError(
                f"{state.name} did not answer on port {state.port} within {timeout:.0f} s",
                f"Read {state.log}; on a slow machine raise PENSTOCK_SERVICE_TIMEOUT",
            )
        time.sleep(POLL_SECONDS)


def stop_group(state: ServiceState, timeout: float = STOP_SECONDS) -> bool:
    """End every process of the service: SIGTERM, then after ``timeout`` seconds SIGKILL.

    Returns:
        Whether anything was running.

    Raises:
        ServiceError: a process survived.
    """
    import psutil

    members = group_members(state)
    if not members:
        return False
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(state.pid, number)
        deadline = time.monotonic() + timeout
        while members and time.monotonic() < deadline:
            psutil.wait_procs(members, timeout=POLL_SECONDS)
            members = group_members(state)
        if not members:
            return True
    raise ServiceError(
        f"{state.name}: processes {[p.pid for p in members]} survived SIGKILL",
        "Look at them with ps; they may hang in the kernel",
    )


def last_line(log: Path, limit: int = 300) -> str:
    """Last line of a log that says anything, for messages."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-50:]
    except OSError:
        return "no log"
    return next((line.strip()[:limit] for line in reversed(lines) if line.strip()), "empty log")


def stop_service(settings: Settings, name: str, timeout: float = STOP_SECONDS) -> bool:
    """Stop a service by its record and forget it; whether anything was running."""
    state = load_state(settings, name)
    if state is None:
        return False
    stopped = stop_group(state, timeout)
    forget_state(settings, name)
    return stopped
