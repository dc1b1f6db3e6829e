"""The training flow: from a file to a serving model, and on from where it was killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


STEPS = 9  # of a run with one validation fold and two test folds


def task_states(flow_name):
    """Names and states of the task runs of a flow's newest completed run, once all have ended.

    Prefect's server writes them down in the background, some time after the flow went on. Runs
    that a schedule has laid out for later are newer, but not completed.
    """
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import (
        FlowFilter,
        FlowRunFilter,
        FlowRunFilterState,
        FlowRunFilterStateType,
    )
    from prefect.client.schemas.objects import StateType
    from prefect.client.schemas.sorting import FlowRunSort

    deadline = time.monotonic() + 60
    with get_client(sync_client=True) as client:
        completed = FlowRunFilterStateType(any_=[StateType.COMPLETED])
        runs = client.read_flow_runs(
            flow_filter=FlowFilter(name={"any_": [flow_name]}),
            flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=completed)),
            sort=FlowRunSort.START_TIME_DESC,
        )
        newest = FlowRunFilter(id={"any_": [runs[0].id]})
        while True:
            tasks = client.read_task_runs(flow_run_filter=newest)
            ended = [task for task in tasks if task.state and task.state.is_final()]
            if len(ended) >= STEPS or time.monotonic() > deadline:
                break
            time.sleep(0.2)
    return [(task.name.rsplit("-", 1)[0], task.state.name) for task in ended]


def test_the_flow_trains_registers_promotes_and_reports(trained):
    from connectors.fraud_models import fraud_registry

    bank, record = trained
    assert record["promotion"]["promoted"], record["promotion"]["reason"]
    assert record["trained"]["active"] == "tabular"
    test = record["trained"]["metrics"]["test"]
    assert test["tabular"]["ap"] > 0.15
    assert set(record["trained"]["metrics"]["gain_over_tabular"]) == {"logistic", "mlp"}
    page = (bank.folder / "report.html").read_text()
    assert "flowbank" in page
    assert "mlp" in page
    assert record["run_page"].startswith("http")
    version, bundle = fraud_registry().champion("flowbank", bank.folder / "cache")
    assert version.run_id == record["run_id"]
    assert bundle.digest == record["trained"]["digest"]
    assert bundle.heads == ("logistic", "mlp", "tabular")
    assert bundle.self_check() <= 1e-5


def test_the_run_is_tracked(trained):
    from mlflow import MlflowClient

    _, record = trained
    run = MlflowClient().get_run(record["run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.metrics["ap"] == pytest.approx(
        record["trained"]["metrics"]["test"]["tabular"]["ap"]
    )
    assert run.data.params["training.trees.rounds"] == "40"
    assert {"shipped.mlp.loss", "test1.mlp.grad_norm"} <= set(run.data.metrics)
    assert len(run.data.tags["data_sha256"]) == 64
    assert run.inputs.dataset_inputs[0].dataset.name == "flowbank"
    files = {f.path for f in MlflowClient().list_artifacts(record["run_id"])}
    assert {"report.html", "MODEL_CARD.md", "metrics.json", "contract.toml"} <= files


def test_the_page_in_prefect_shows_figures_and_a_link(trained):
    from prefect.artifacts import Artifact

    _, record = trained
    assert "Average precision" in Artifact.get("flowbank-training").data
    assert "tabular" in str(Artifact.get("flowbank-heads").data)
    assert "rows_quarantined" in str(Artifact.get("flowbank-checks").data)
    assert record["run_page"] in Artifact.get("flowbank-run").data


def test_a_second_run_takes_everything_from_the_cache(trained, settings):
    from flows.train_fraud import train_fraud

    bank, record = trained
    again = train_fraud(
        str(bank.data), str(bank.config), settings, report=str(bank.folder / "again.html")
    )
    assert again["trained"] == record["trained"]
    assert again["promotion"]["reason"] == "this bundle serves already"
    assert again["promotion"]["version"] == record["promotion"]["version"]
    states = task_states("train-fraud")
    cached = {name for name, state in states if state == "Cached"}
    assert cached == {"check data", "build features", "plan folds", "judge fold", "train model"}


@pytest.mark.long
def test_a_killed_run_resumes_at_the_finished_steps(
    small_bank, settings, prefect_server, mlflow_server
):
    from flows.train_fraud import train_fraud
    from infra.settings import get_settings

    bank = small_bank("killedbank")
    script = (
        "import sys, json\n"
        "from flows.train_fraud import train_fraud\n"
        "train_fraud(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))\n"
    )
    slow = settings | {"trees": settings["trees"] | {"rounds": 200, "seeds": 2}}
    done = get_settings().home / "work" / "folds"
    before = set(done.glob("*/done.json"))
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(bank.data), str(bank.config), json.dumps(slow)],
        cwd=ROOT,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 180
        while not set(done.glob("*/done.json")) - before:
            assert process.poll() is None, "the flow ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    record = train_fraud(str(bank.data), str(bank.config), slow)
    assert record["promotion"]["promoted"]
    states = task_states("train-fraud")
    folds = [state for name, state in states if name == "judge fold"]
    assert ("check data", "Cached") in states
    assert ("build features", "Cached") in states
    assert sorted(folds) in (["Cached", "Completed"], ["Completed", "Completed"])
    assert ("train model", "Completed") in states
    from mlflow import MlflowClient

    client = MlflowClient()
    experiment = client.get_experiment_by_name("penstock/killedbank").experiment_id
    runs = client.search_runs([experiment])
    assert len(runs) == 1, "the killed run is continued, not started again"
    assert runs[0].info.status == "FINISHED"


def test_wrong_input_fails_the_flow_with_one_clear_error(small_bank, settings, prefect_server):
    from connectors.files import MissingFileError
    from flows.train_fraud import train_fraud

    bank = small_bank("nobank")
    with pytest.raises(MissingFileError, match="no such file"):
        train_fraud(str(bank.folder / "absent.parquet"), str(bank.config), settings)


def test_a_suspected_leak_stops_the_flow(trained, settings):
    from flows.train_fraud import train_fraud
    from tasks.fraud.evaluation.leak_alarm import LeakSuspected

    bank, _ = trained
    strict = bank.folder / "strict.toml"
    strict.write_text(bank.config.read_text() + "\n[alarm]\nap = 0.05\n")
    with pytest.raises(LeakSuspected, match="mean AP"):
        train_fraud(str(bank.data), str(strict), settings, promote=False)
