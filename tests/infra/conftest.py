"""Homes and tiny services for the tests of infra."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from infra.services.service import Service, ServiceDefinition
from infra.settings import Settings

# A server that forks a child ignoring SIGTERM, to see that whole groups end.
STUBBORN = """
import os, signal, sys, time, http.server
if os.fork() == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(600)
    os._exit(0)
address = ("127.0.0.1", int(sys.argv[1]))
http.server.HTTPServer(address, http.server.SimpleHTTPRequestHandler).serve_forever()
"""


@pytest.fixture
def settings(tmp_path) -> Settings:
    """Settings of a fresh home with free ports and a short patience."""
    return Settings(home=tmp_path / "home", prefect_port=0, mlflow_port=0, service_timeout=20)


@pytest.fixture
def http_service(settings, tmp_path) -> Callable[..., Service]:
    """Makes a service out of Python's own web server, or out of a given script."""
    settings.home.mkdir(parents=True, exist_ok=True)

    def make(port: int, script: str = "", name: str = "web", **fields) -> Service:
        code = ("-c", script) if script else ("-m", "http.server", "--bind", "127.0.0.1")
        return Service(name=name, command=(sys.executable, *code, str(port)), port=port, **fields)

    return make


@pytest.fixture
def stubborn_script() -> str:
    """Source of a server with a child that ignores SIGTERM."""
    return STUBBORN


@pytest.fixture
def registered(monkeypatch) -> Callable[[str, Callable[..., Service]], None]:
    """Adds a definition to the registry for one test."""
    from infra.services.registry import SERVICES

    def add(name: str, build: Callable[[Settings, int], Service], port: int = 0) -> None:
        definition = ServiceDefinition(name, name.title(), 0, lambda _: port, build)
        monkeypatch.setitem(SERVICES, name, definition)

    return add
