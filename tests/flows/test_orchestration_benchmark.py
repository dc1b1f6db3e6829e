from __future__ import annotations

import json
import os

import pytest

from infra.certificate import loopback_certificate
from infra.settings import get_settings
from tests.benchmarks import orchestration


@pytest.mark.long
def test_each_variant_runs_in_a_process_of_its_own(prefect_server, monkeypatch):
    bundle = loopback_certificate(get_settings().home)
    monkeypatch.setenv("PREFECT_API_SSL_CERT_FILE", str(bundle))
    tuned, tuned_cpu = orchestration.measure("ms_per_task", tasks=10, repeats=1)
    default, default_cpu = orchestration.measure("default_ms_per_task", tasks=10, repeats=1)
    inline, _ = orchestration.measure("inline_ms", tasks=10, repeats=1)
    assert 0 < inline < tuned
    assert inline < default
    # Loading the CA bundle of the system is processor time, whatever else the machine does.
    assert default_cpu > tuned_cpu
    assert os.environ["PREFECT_API_SSL_CERT_FILE"] == str(bundle)


def test_a_probe_that_fails_is_told(monkeypatch):
    monkeypatch.setattr(orchestration, "PROBE", "raise SystemExit('no server')")
    with pytest.raises(RuntimeError, match=r"inline_ms failed.*no server"):
        orchestration.measure("inline_ms", tasks=1, repeats=1)


def test_the_last_line_is_one_json_object(monkeypatch, capsys):
    figures = {"ms_per_task": 9.0, "default_ms_per_task": 40.0, "inline_ms": 0.001}
    figures |= {"cpu_ms_per_task": 8.0, "default_cpu_ms_per_task": 39.0, "inline_cpu_ms": 0.001}
    asked = []

    def run(tasks, repeats):
        asked.append((tasks, repeats))
        return {**figures, "ratio": 40 / 9}

    monkeypatch.setattr(orchestration, "run", run)
    assert orchestration.main(["--smoke", "--json"]) == 0
    assert orchestration.main(["--tasks", "7", "--json"]) == 0
    last = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert {key: last[key] for key in figures} == figures
    assert asked == [(10, 1), (7, 5)]
