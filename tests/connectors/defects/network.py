"""A central machine in a thread, and a bad network before it."""

from __future__ import annotations

import http.client
import socket
import threading
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import uvicorn

from connectors.api.tokens import read_tokens
from connectors.defects.inspect.central.app import create_app
from connectors.defects.inspect.central.service import Central, CentralConfig
from tests.connectors.defects.lines import PLAIN
from tests.processes import wait_for

SECRET = "s" * 24
TOKENS = f"edge:score:{SECRET},looker:read:{'r' * 24}"


@contextmanager
def central_machine(home, inspector, config=None, decoder=PLAIN):
    """Yield address and `Central` of a real service."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    central = Central(
        inspector, home, read_tokens(TOKENS, None), config or CentralConfig(), decoder=decoder
    )
    server = uvicorn.Server(
        uvicorn.Config(create_app(central), ws="none", log_config=None, access_log=False)
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        wait_for(lambda: server.started, "the central machine did not start")
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", central
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


class BadNetwork:
    """Stands between an edge and a server; ``mode`` says what it does to requests.

    up: hands on; where there is no server behind it, gives ``answer``. down: breaks the connection
    at once. lost: hands on, but the answer is lost.
    A number: answers with that status.
    """

    def __init__(self, target: str = "") -> None:
        self.mode: object = "up"
        self.answer = "{}"
        self.requests: list[tuple[str, bytes, dict[str, str]]] = []
        outer, host = self, target.removeprefix("http://")

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                outer.requests.append((self.path, body, headers))
                mode = outer.mode(self.path, body) if callable(outer.mode) else outer.mode
                if mode == "down":
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                status, answer = 200, outer.answer.encode()
                if isinstance(mode, int):
                    status = mode
                elif host:
                    status, answer = self.hand_on(body)
                if mode == "lost":
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                self.send_response(status)
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def hand_on(self, body):
                link = http.client.HTTPConnection(host, timeout=10)
                try:
                    link.request("POST", self.path, body, dict(self.headers))
                    response = link.getresponse()
                    return response.status, response.read()
                finally:
                    link.close()

            def log_message(self, *_):
                pass

            def handle(self):
                with suppress(ConnectionError, BrokenPipeError):
                    super().handle()

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
