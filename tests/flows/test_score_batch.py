"""The scoring flow, by hand and on a schedule, and the model's evaluation."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet

ROOT = Path(__file__).resolve().parents[2]


def test_the_last_day_is_scored_by_the_champion(trained, tmp_path):
    from flows.score_batch import score_batch

    bank, record = trained
    out = tmp_path / "scores.parquet"
    made = score_batch(str(bank.data), str(out), str(bank.config))
    table = parquet.read_table(out)
    assert made["rows"] == table.num_rows > 0
    assert made["model"] == "fraud-flowbank"
    times = table.column("time").to_numpy()
    assert (times.astype("datetime64[D]") == times.max().astype("datetime64[D]")).all()
    scores = table.column("score").to_numpy()
    assert ((scores >= 0) & (scores <= 1)).all()
    assert table.schema.metadata[b"bundle_sha256"].decode() == record["trained"]["digest"]
    assert set(table.column_names) >= {"event_id", "customer", "terminal", "score", "alert"}
    every = tmp_path / "every.csv"
    assert score_batch(str(bank.data), str(every), str(bank.config), days=0)["rows"] > made["rows"]
    assert every.read_text().count("\n") > made["rows"]


def test_the_serving_model_is_judged_as_in_training(trained):
    from flows.evaluate_model import evaluate_model

    bank, record = trained
    judged = evaluate_model(bank.data, str(bank.config))
    newest = record["trained"]["metrics"]["test_folds"]["tabular"][0]
    assert judged["heads"]["tabular"]["ap"] == pytest.approx(newest["ap"], abs=2e-3)
    assert judged["test"] == newest["test"]
    assert not judged["seen"]
    again = evaluate_model(bank.data, str(bank.config), Path(record["bundle"]))
    assert again["heads"] == judged["heads"]


SERVE = """
import json, sys
from datetime import datetime, timedelta
from prefect.schedules import Interval
from flows.score_batch import score_batch
arguments = json.loads(sys.argv[1])
score_batch.serve(
    "scheduled-test",
    schedule=Interval(timedelta(hours=1), anchor_date=datetime.fromisoformat(arguments["at"])),
    parameters=arguments["parameters"],
    print_starting_message=False,
)
"""


@pytest.mark.slow
def test_a_scheduled_run_starts_within_five_seconds_of_its_time(trained, tmp_path):
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import DeploymentFilter

    bank, _ = trained
    out = tmp_path / "scheduled.parquet"
    at = datetime.now(UTC) + timedelta(seconds=45)
    arguments = {
        "at": at.isoformat(),
        "parameters": {"data": str(bank.data), "out": str(out), "config": str(bank.config)},
    }
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, json.dumps(arguments)], cwd=ROOT, start_new_session=True
    )
    try:
        deadline = time.monotonic() + 240
        run = None
        while run is None or not run.state.is_final():
            assert time.monotonic() < deadline, f"no finished run: {run and run.state}"
            assert process.poll() is None
            time.sleep(1)
            with get_client(sync_client=True) as client:
                runs = client.read_flow_runs(
                    deployment_filter=DeploymentFilter(name={"any_": ["scheduled-test"]})
                )
            due = [r for r in runs if abs((r.expected_start_time - at).total_seconds()) < 2]
            run = due[0] if due else None
    finally:
        os.killpg(process.pid, signal.SIGINT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
    assert run.state.is_completed(), run.state.message
    late = (run.start_time - run.expected_start_time).total_seconds()
    assert -0.5 <= late <= 5, late
    assert np.isfinite(parquet.read_table(out).column("score").to_numpy()).all()
