"""``penstock models``: a server from one line, and what it serves."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from flows.cli import main as cli
from tests.benchmarks._api_server import ROOT
from tests.onnx_files import put, scaled

TOKEN = "reads-0123456789abcdefghij"


@pytest.fixture
def server(tmp_path, end_with_run):
    """A running ``penstock models serve`` and its address."""
    put(tmp_path, "scaled", 3, scaled(2.0))
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.cli.main", "models", "serve", str(tmp_path), "--port", "0"],
        cwd=ROOT,
        env={**os.environ, "PENSTOCK_API_TOKENS": f"r:read:{TOKEN}", "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    end_with_run(process.pid)
    line = process.stdout.readline()
    yield process, line.removeprefix("serving ").removesuffix("/v2/models\n")
    process.kill()
    process.wait()
    process.stdout.close()
    end_with_run(-process.pid)


def test_what_is_served_is_listed(server, capsys):
    process, address = server
    assert cli.run(["models", "list", address, "--token", TOKEN]) == 0
    assert capsys.readouterr().out == "scaled version 3: x FP32[-1, 4] -> y FP32[-1, 4]\n"
    process.terminate()
    assert process.wait(30) == 0
    assert cli.run(["models", "list", address, "--token", TOKEN]) == 1
    assert "does not answer" in capsys.readouterr().err


def test_a_server_without_tokens_or_models_says_so(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("PENSTOCK_API_TOKENS", raising=False)
    assert cli.run(["models", "serve", str(tmp_path), "--port", "0"]) == 1
    assert "no tokens" in capsys.readouterr().err
    monkeypatch.setenv("PENSTOCK_API_TOKENS", f"r:read:{TOKEN}")
    assert cli.run(["models", "serve", str(tmp_path), "--port", "0"]) == 1
    assert "holds no NAME/VERSION/model.onnx" in capsys.readouterr().err
    assert cli.run(["models", "serve", str(tmp_path), "--max-rows", "0"]) == 1
    assert "max_rows" in capsys.readouterr().err
