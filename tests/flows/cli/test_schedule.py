"""``penstock schedule``: profile, simulate, tune and apply, one after the other."""

from __future__ import annotations

import numpy as np
import pytest

from flows.cli.main import run
from kernels.scheduling.policy_file import read_policy
from kernels.scheduling.series import Series


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("schedule")


@pytest.fixture(scope="module")
def probes(folder):
    path = folder / "probes.parquet"
    assert run(["schedule", "profile", str(path), "--minutes", "0.02", "--every", "0.3"]) == 0
    return path


@pytest.fixture(scope="module")
def jobs(folder):
    path = folder / "jobs.parquet"
    assert run(["schedule", "simulate", "--write", str(path), "--day", "0"]) == 0
    return path


@pytest.fixture(scope="module")
def policy(folder, jobs, probes):
    path = folder / "schedule_policy.json"
    words = ["schedule", "tune", str(jobs), "--out", str(path), "--probes", str(probes)]
    assert run([*words, "--candidates", "2"]) == 0
    return path


def test_a_policy_file_comes_of_jobs_and_probes(policy):
    content = read_policy(policy)
    assert content.profile["jobs"] == 240
    assert content.profile["series"] >= 100
    assert content.profile["directions"][0]["names"]
    assert len(content.thresholds) == 2
    assert content.history.kinds


def test_policies_are_compared(policy, jobs, capsys):
    assert run(["schedule", "simulate", str(jobs), "--policy", str(policy)]) == 0
    told = capsys.readouterr().out
    rows = [line for line in told.splitlines() if "│" in line]
    makespans = {row.split("│")[1].strip(): float(row.split("│")[3]) for row in rows}
    assert makespans["ours"] < makespans["easy"] < makespans["fifo"]


def test_the_server_gets_the_policy(policy, prefect_server, capsys):
    from prefect.client.orchestration import get_client

    assert run(["schedule", "apply", str(policy), "--pool", "schedule-cli"]) == 0
    assert "3 queues" in capsys.readouterr().out
    with get_client(sync_client=True) as client:
        limit = client.read_work_pool("schedule-cli").concurrency_limit
        assert (
            client.read_global_concurrency_limit_by_name("schedule-cli.device-15.gib").limit == 16
        )
    assert limit == 16 * read_policy(policy).policy.tenants


def test_memory_foretold_for_the_host_limits_the_pool(folder, policy, prefect_server):
    from prefect.client.orchestration import get_client

    from connectors.files import write_table
    from connectors.probes import to_table

    values = np.column_stack([np.full(80, 20.0), np.arange(80.0)])
    series = Series(("memory.available_gib", "load.1"), 60.0, values)
    path = folder / "host.parquet"
    write_table(to_table(series), path)
    words = ["schedule", "apply", str(policy), "--pool", "schedule-host"]
    assert run([*words, "--host-gib", "4", "--probes", str(path)]) == 0
    with get_client(sync_client=True) as client:
        assert client.read_work_pool("schedule-host").concurrency_limit == 4  # (20 - 1) / 4


def test_probes_without_the_memory_of_the_host_are_told(folder, policy, capsys):
    from connectors.files import write_table
    from connectors.probes import to_table

    path = folder / "loads.parquet"
    write_table(to_table(Series(("load.1",), 60.0, np.ones((80, 1)))), path)
    words = ["schedule", "apply", str(policy), "--host-gib", "4", "--probes", str(path)]
    assert run(words) == 1
    told = " ".join(capsys.readouterr().err.split())
    assert f"{path} has no series memory.available_gib" in told
    assert "penstock schedule profile" in told


def test_failures_are_one_line_with_the_fix(folder, policy, probes, capsys):
    assert run(["schedule", "apply", str(folder / "none.json")]) == 1
    assert run(["schedule", "apply", str(policy), "--host-gib", "2"]) == 1
    assert run(["schedule", "tune", str(probes)]) == 1
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 3
    assert "penstock schedule tune" in told[0]
    assert "Give both" in told[1]
    assert "column number" in told[2]
