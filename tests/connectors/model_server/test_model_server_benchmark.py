"""The benchmark runs at its smallest size and says what it promises to say."""

from __future__ import annotations

import json

from tests.benchmarks import model_server


def test_figures_are_there(capsys):
    model_server.main(["--smoke", "--json"])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result.keys() >= {"rps", "p99_ms", "x_batching", "errors"}
    assert result["errors"] == 0
    assert result["p99_ms"] > 0
