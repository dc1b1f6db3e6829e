"""The API as a process of its own, for benchmarks and tests: started, watched, ended for sure."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from infra.services.ports import any_free_port

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "benchmark-0123456789abcdef"
START_SECONDS = 120.0


class ApiProcess:
    """A running API.

    Attributes:
        module: Module that is run.
        prefix: Of its variables.
        ready: Path that answers 200 once it is ready.
        port: Loopback port.
        home: Folder of its state.
        log: Its log file.
        process: The process, leader of a group of its own.
    """

    module = "connectors.api.server"
    prefix = "PENSTOCK_API_"
    ready = "/health/ready"

    def __init__(self, home: Path, settings: Mapping[str, Any], tokens: str = "") -> None:
        """Start it; it may not answer yet."""
        self.home, self.port = home, int(settings.get("port") or any_free_port())
        home.mkdir(parents=True, exist_ok=True)
        self.log = home / "api.log"
        ours = (self.prefix, "PENSTOCK_API_")
        environment = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
        environment |= {
            "PENSTOCK_API_HOME": str(home),
            f"{self.prefix}PORT": str(self.port),
            "PENSTOCK_API_TOKENS": tokens or f"bench:admin:{TOKEN}",
        }
        environment |= {
            f"{self.prefix}{name.upper()}": str(value)
            for name, value in settings.items()
            if name != "port"
        }
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", self.module],
                cwd=ROOT,
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def wait_ready(self, seconds: float = START_SECONDS) -> None:
        """Return once it answers that it is ready.

        Raises:
            RuntimeError: It ended or took too long; the message holds the end of its log.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(f"the API ended with {self.process.returncode}: {self.tail()}")
            with suppress(OSError, http.client.HTTPException):
                if self.call("GET", self.ready).status == 200:
                    return
            time.sleep(0.05)
        raise RuntimeError(f"the API was not ready within {seconds:g} s: {self.tail()}")

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str = TOKEN,
        headers: Mapping[str, str] | None = None,
        timeout: float = 30.0,
    ) -> Answer:
        """Send one request over a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        given = {"content-type": "application/json"} if content is not None else {}
        if token:
            given["authorization"] = f"Bearer {token}"
        try:
            # Who refuses a body by its length answers before it has come whole.
            with contextlib.suppress(BrokenPipeError):
                connection.request(method, path, content, {**given, **(headers or {})})
            response = connection.getresponse()
            return Answer(
                response.status,
                response.read(),
                {name.lower(): value for name, value in response.getheaders()},
            )
        finally:
            connection.close()

    def cpu_seconds(self) -> float:
        """Return the CPU time it has taken."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def tail(self, lines: int = 15) -> str:
        """Return the end of its log."""
        text = self.log.read_text(errors="replace") if self.log.is_file() else ""
        return "\n".join(text.splitlines()[-lines:])

    def stop(self, seconds: float = 15.0) -> int:
        """Ask it to stop, kill it if it does not; returns its exit code."""
        with suppress(ProcessLookupError):
            self.process.terminate()
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            return self.process.wait()

    def kill(self) -> None:
        """Kill its whole group."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Answer:
    """What came back.

    Attributes:
        status: HTTP status.
        body: Bytes.
        headers: Headers, names in lower case.
    """

    def __init__(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.status, self.body, self.headers = status, body, headers

    @property
    def data(self) -> Any:
        return json.loads(self.body)


class ModelServerProcess(ApiProcess):
    """A running model server."""

    module = "connectors.model_server.server"
    prefix = "PENSTOCK_MODELS_"
    ready = "/v2/health/ready"


class PrivateServerProcess(ApiProcess):
    """A running scorer of ciphertexts."""

    module = "connectors.private.server.server"
    prefix = "PENSTOCK_PRIVATE_"


@contextmanager
def running_private(
    home: Path, settings: Mapping[str, Any], tokens: str = ""
) -> Iterator[PrivateServerProcess]:
    """A scorer of ciphertexts for the length of a ``with`` block."""
    server = PrivateServerProcess(home, {"home": home, **settings}, tokens)
    try:
        server.wait_ready()
        yield server
    finally:
        server.stop()
        server.kill()


@contextmanager
def running_models(
    home: Path, settings: Mapping[str, Any], tokens: str = ""
) -> Iterator[ModelServerProcess]:
    """A model server for the length of a ``with`` block."""
    server = ModelServerProcess(home, settings, tokens)
    try:
        server.wait_ready()
        yield server
    finally:
        server.stop()
        server.kill()


@contextmanager
def running_api(home: Path, settings: Mapping[str, Any], tokens: str = "") -> Iterator[ApiProcess]:
    """An API for the length of a ``with`` block."""
    api = ApiProcess(home, settings, tokens)
    try:
        api.wait_ready()
        yield api
    finally:
        api.stop()
        api.kill()
