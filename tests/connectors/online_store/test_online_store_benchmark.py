"""The benchmark prints its keys."""

from __future__ import annotations

import json
import shutil

from tests.benchmarks import online_store


def test_smoke(capsys):
    online_store.main(["--smoke", "--json", "--reads", "200", "--entities", "500"])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["benchmark"] == "online-store"
    assert result["entities"] == 550
    assert 0 < result["lmdb_p50_us"] <= result["lmdb_p99_us"] <= result["lmdb_p999_us"]
    assert result["writes_per_s"] > 0
    assert ("redis_p99_us" in result) == (shutil.which("redis-server") is not None)
