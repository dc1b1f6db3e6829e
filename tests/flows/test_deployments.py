"""Deployments: created by the command, and run by a worker that was told nothing but its home."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from pyarrow import parquet

ROOT = Path(__file__).resolve().parents[2]
PENSTOCK = Path(sys.executable).parent / "penstock"


@pytest.fixture(scope="module")
def bare():
    """The environment of a fresh terminal: home and config of this run, nothing of Prefect's."""
    kept = ("PATH", "HOME", "LANG", "PENSTOCK_HOME", "PENSTOCK_CONFIG")
    return {name: os.environ[name] for name in kept if name in os.environ}


@pytest.fixture(scope="module")
def deployed(trained, bare):
    bank, _ = trained
    words = [PENSTOCK, "deploy", bank.data, "--config", bank.config]
    done = subprocess.run(words, env=bare, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "penstock worker" in done.stdout
    return bank


def test_all_deployments_are_created_with_their_schedules(deployed, prefect_server):
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        found = {d.name: d for d in client.read_deployments() if d.work_pool_name == "penstock"}
    assert set(found) == {"weekly", "daily", "midweek", "monthly", "worst-of-day"}
    assert {n: d.schedules[0].schedule.cron for n, d in found.items()} == {
        "weekly": "0 3 * * 1",
        "daily": "0 1 * * *",
        "midweek": "0 3 * * 4",
        "monthly": "0 6 1 * *",
        "worst-of-day": "30 1 * * *",
    }
    for deployment in found.values():
        assert deployment.parameters["data"] == str(deployed.data)
        assert deployment.parameters["config"] == str(deployed.config)
        path, _, name = deployment.entrypoint.partition(":")
        assert f"def {name}(" in (ROOT / path).read_text()
        assert str(ROOT) in str(deployment.pull_steps)


def test_every_deployment_of_the_file_is_made_by_the_command():
    from flows.cli.deployments import OF_FRAUD, OF_LINE

    described = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    names = [
        f"{one['entrypoint'].rpartition(':')[2].replace('_', '-')}/{one['name']}"
        for one in described
    ]
    assert names == [*OF_FRAUD, *OF_LINE]


@pytest.mark.long
def test_each_line_has_its_own_deployments(deployed, bare, prefect_server, tmp_path):
    from prefect.client.orchestration import get_client

    images, camera = tmp_path / "plates", tmp_path / "camera"
    for folder in (images, camera):
        folder.mkdir()
    for line in ("plates", "castings-2"):
        words = [PENSTOCK, "deploy", images, "--line", line, "--camera", camera]
        done = subprocess.run(words, env=bare, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    with get_client(sync_client=True) as client:
        for line in ("plates", "castings-2"):
            train = client.read_deployment_by_name(f"train-defects/{line}")
            inspect = client.read_deployment_by_name(f"inspect-batch/{line}")
            assert train.parameters == {"folder": str(images), "line": line}
            assert inspect.parameters == {
                "folder": str(camera),
                "model": f"registry:{line}",
                "out": f"{bare['PENSTOCK_HOME']}/inspected/{line}",
            }
            crons = [one.schedules[0].schedule.cron for one in (train, inspect)]
            assert crons == ["0 4 * * 1", "15 * * * *"]
            assert {one.work_pool_name for one in (train, inspect)} == {"penstock"}
            for one in (train, inspect):
                path, _, name = one.entrypoint.partition(":")
                assert f"def {name}(" in (ROOT / path).read_text()
            client.delete_deployment(train.id)
            client.delete_deployment(inspect.id)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--line", "plates"], "a line needs a name and a camera's folder"),
        (["--camera", "."], "a line needs a name and a camera's folder"),
        (["--line", "a/b", "--camera", "."], "line name 'a/b'"),
        (["--line", "plates", "--camera", "nowhere"], "nowhere is no folder"),
    ],
)
def test_a_line_that_cannot_be_deployed_is_told(bare, tmp_path, words, says):
    command = [PENSTOCK, "deploy", tmp_path, *words]
    done = subprocess.run(
        command, env=bare, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert says in done.stderr


@pytest.mark.slow
def test_a_worker_runs_a_deployment_with_the_serving_model(deployed, bare, end_with_run):
    from prefect.client.orchestration import get_client

    process = subprocess.Popen([PENSTOCK, "worker"], env=bare, start_new_session=True)
    end_with_run(process.pid)
    try:
        with get_client(sync_client=True) as client:
            daily = client.read_deployment_by_name("score-batch/daily")
            run = client.create_flow_run_from_deployment(daily.id)
            deadline = time.monotonic() + 240
            while not (run.state and run.state.is_final()):
                assert time.monotonic() < deadline, run.state
                assert process.poll() is None
                time.sleep(1)
                run = client.read_flow_run(run.id)
        assert run.state.is_completed(), run.state.message
        scores = Path(bare["PENSTOCK_HOME"]) / "scores" / "latest.parquet"
        assert parquet.read_table(scores).num_rows > 0
    finally:
        os.killpg(process.pid, signal.SIGINT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        end_with_run(-process.pid)


def test_without_a_server_it_says_what_to_start(deployed, bare, tmp_path):
    words = [PENSTOCK, "deploy", deployed.data, "--config", deployed.config]
    alone = bare | {"PENSTOCK_HOME": str(tmp_path)}
    done = subprocess.run(words, env=alone, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "penstock: no Prefect server runs. Run: penstock up\n"
