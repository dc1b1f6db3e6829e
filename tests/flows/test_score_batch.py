"""The scoring flow, by hand and on a schedule, and the model's evaluation."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import compute, parquet

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


def test_own_lines_set_rows_aside_before_scoring(trained, tmp_path):
    from prefect.artifacts import Artifact

    from flows.score_batch import score_batch

    bank, _ = trained
    amounts = sorted(parquet.read_table(bank.data).column("amount_cents").to_pylist())
    own = tmp_path / "own.toml"
    own.write_text(
        f"[columns.amount_cents]\nkind = 'integer'\nmaximum = {amounts[-20]}\n", encoding="utf-8"
    )
    out = tmp_path / "scores.csv"
    plain = score_batch(str(bank.data), str(out), str(bank.config), days=0)
    made = score_batch(str(bank.data), str(out), str(bank.config), contract=str(own), days=0)
    above = sum(amount > amounts[-20] for amount in amounts)
    assert made["rows"] == plain["rows"] - above
    page = json.loads(Artifact.get("flowbank-checks").data)
    assert {"rows": "rule maximum:amount_cents", "count": f"{above}"} in page


@pytest.fixture(scope="module")
def coded(small_bank, settings, prefect_server, mlflow_server, tmp_path_factory):
    """A serving model that reads a category of many values, one of them in few rows only."""
    from flows.train_fraud import train_fraud

    bank = small_bank("codedbank")
    folder = tmp_path_factory.mktemp("coded")
    table = parquet.read_table(bank.data)
    few = table.slice(table.num_rows // 2, 5)
    ids = pa.array(range(10**6, 10**6 + 5))
    for name in ("tx_id", "customer", "terminal"):  # strangers, so that nobody's state needs them
        few = few.set_column(few.column_names.index(name), name, ids.cast(table[name].type))
    codes = [f"m{int(t) % 18:02d}" for t in table["terminal"].to_pylist()] + ["aaa"] * 5
    whole = pa.concat_tables([table, few]).append_column("mcc", pa.array(codes)).sort_by("t")
    data, config = folder / "coded.parquet", folder / "codedbank.toml"
    parquet.write_table(whole, data)
    text = bank.config.read_text()
    config.write_text(text.replace("label_delay", 'categorical = ["mcc"]\nlabel_delay', 1))
    record = train_fraud(str(data), str(config), settings)
    assert record["promotion"]["promoted"]
    return whole, data, config


def scores_of(table, config, folder, name):
    """Event id -> score of the last day of a table."""
    from flows.score_batch import score_batch

    data, out = folder / f"{name}.parquet", folder / f"{name}-scores.parquet"
    parquet.write_table(table, data)
    assert score_batch(str(data), str(out), str(config))["rows"] > 0
    made = parquet.read_table(out)
    return dict(zip(made["event_id"].to_pylist(), made["score"].to_pylist(), strict=True))


def test_categories_mean_what_they_meant_in_training(coded, tmp_path):
    whole, _, config = coded
    fewer = whole.filter(compute.not_equal(whole["mcc"], "aaa"))
    assert scores_of(whole, config, tmp_path, "whole") == scores_of(fewer, config, tmp_path, "few")


def test_new_transactions_need_no_labels(coded, tmp_path):
    whole, _, config = coded
    bare = scores_of(whole.drop_columns(["fraud"]), config, tmp_path, "bare")
    unknown = whole.set_column(
        whole.column_names.index("fraud"), "fraud", pa.nulls(whole.num_rows, pa.int8())
    )
    assert scores_of(unknown, config, tmp_path, "unknown") == bare
    assert all(0 <= score <= 1 for score in bare.values())


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
import json, pathlib, sys
from datetime import UTC, datetime, timedelta
from prefect.schedules import Interval
from flows.score_batch import score_batch
parameters, told = json.loads(sys.argv[1]), pathlib.Path(sys.argv[2])
at = datetime.now(UTC) + timedelta(seconds=30)  # imports, which take longest, are done
told.write_text(at.isoformat())
score_batch.serve(
    "scheduled-test",
    schedule=Interval(timedelta(hours=1), anchor_date=at),
    parameters=parameters,
    print_starting_message=False,
)
"""


@pytest.mark.slow
def test_a_scheduled_run_starts_within_five_seconds_of_its_time(trained, tmp_path):
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import DeploymentFilter

    bank, _ = trained
    out, told = tmp_path / "scheduled.parquet", tmp_path / "at.txt"
    parameters = {"data": str(bank.data), "out": str(out), "config": str(bank.config)}
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, json.dumps(parameters), str(told)],
        cwd=ROOT,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 240
        while not (told.is_file() and told.read_text()):
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.2)
        at = datetime.fromisoformat(told.read_text())
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
