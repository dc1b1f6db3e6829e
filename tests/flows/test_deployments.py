"""prefect.yaml: every deployment can be created as the file says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def prefect(*arguments):
    environment = os.environ | {"PENSTOCK_DATA_FILE": "bank.parquet", "PENSTOCK_DATASET": "demo"}
    done = subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_all_deployments_are_created_with_their_schedules(prefect_server):
    from prefect.client.orchestration import get_client

    prefect("work-pool", "create", "penstock", "--type", "process", "--overwrite")
    prefect("deploy", "--all")
    with get_client(sync_client=True) as client:
        found = {d.name: d for d in client.read_deployments() if d.work_pool_name == "penstock"}
    assert set(found) == {"weekly", "daily", "midweek"}
    assert {n: d.schedules[0].schedule.cron for n, d in found.items()} == {
        "weekly": "0 3 * * 1",
        "daily": "0 1 * * *",
        "midweek": "0 3 * * 4",
    }
    for deployment in found.values():
        assert deployment.parameters["data"] == "bank.parquet"
        assert deployment.parameters["config"] == "demo"
        path, _, name = deployment.entrypoint.partition(":")
        assert f"def {name}(" in (ROOT / path).read_text()
        assert str(ROOT) in str(deployment.pull_steps)
