"""A Redis server of its own for a test or a benchmark: a free port and a temporary folder."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from infra.services.ports import any_free_port

MISSING = "redis-server is missing: apt-get install -y --no-install-recommends redis-server"


class RedisServer:
    """A server that can be killed and started again on its port and folder."""

    def __init__(
        self, folder: Path, *options: str, register: Callable[[int], None] = lambda _: None
    ) -> None:
        self.port, self.folder, self.options = any_free_port(), folder, options
        self._register = register
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Address of its first database."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.process = subprocess.Popen(
            [
                shutil.which("redis-server") or "redis-server",
                *("--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.folder)),
                *("--save", "", "--daemonize", "no", *self.options),
            ],
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._register(self.process.pid)
        deadline = time.monotonic() + 20
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=1) as link:
                    link.sendall(b"PING\r\n")
                    if link.recv(64).startswith((b"+PONG", b"-NOAUTH")):
                        return
            except OSError:
                pass
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"redis-server did not start on port {self.port}")
            time.sleep(0.02)

    def stop(self, number: int = signal.SIGKILL) -> None:
        """End it by a signal."""
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait()
            self._register(-self.process.pid)
            self.process = None


@contextmanager
def redis_server(*options: str) -> Iterator[RedisServer]:
    """Run a server while the block lasts."""
    with tempfile.TemporaryDirectory(prefix="penstock-redis-") as folder:
        server = RedisServer(Path(folder), *options)
        server.start()
        try:
            yield server
        finally:
            server.stop()
