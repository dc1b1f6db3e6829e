"""The search as a flow: trials as tasks and nested runs, resumed within one budget."""

from __future__ import annotations

import json

import pytest

from flows.cli.main import run

JOB = "tests.flows.tuning_jobs:job"


@pytest.fixture(scope="module")
def searched(prefect_server, mlflow_server):
    from flows.tune_model import tune_model

    return tune_model(JOB, seconds=600, trials=2)


def test_trials_are_tasks_and_nested_runs(searched):
    from mlflow import MlflowClient

    assert [t["number"] for t in searched["trials"]] == [0, 1]
    assert searched["best"]["value"] == min(
        t["value"] for t in searched["trials"] if t["state"] == "complete"
    )
    client = MlflowClient()
    parent = client.get_run(searched["run_id"])
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics["best"] == pytest.approx(searched["best"]["value"])
    assert parent.data.tags["best.rate"] == str(searched["best"]["parameters"]["rate"])
    nested = client.search_runs(
        [parent.info.experiment_id], f"tags.mlflow.parentRunId = '{searched['run_id']}'"
    )
    found = {run.data.params["rate"]: run for run in nested}
    assert set(found) == {str(t["parameters"]["rate"]) for t in searched["trials"]}
    for trial in searched["trials"]:
        run = found[str(trial["parameters"]["rate"])]
        assert run.data.tags["trial_state"] == trial["state"]
        assert run.data.metrics["value"] == pytest.approx(trial["value"])
        assert {"loss", "metric"} <= set(run.data.metrics)


def test_the_command_goes_on_with_the_same_search(searched, capfd):
    assert run(["tune", "--module", JOB, "--seconds", "600", "--trials", "3", "--json"]) == 0
    said = capfd.readouterr().out.splitlines()
    more = json.loads(said[-1])
    assert f"best: {more['best']['value']:.4g} by trial" in "\n".join(said)
    assert more["trials"][:2] == searched["trials"]
    assert len(more["trials"]) == 3
    assert more["seconds"] > searched["seconds"]


def test_a_model_that_always_fails_ends_the_search(searched):
    from flows.tune_model import tune_model

    with pytest.raises(RuntimeError, match="no such column"):
        tune_model("tests.flows.tuning_jobs:broken_job", trials=9)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tests.flows.tuning_jobs", "write package.module:attribute"),
        ("tests.flows.absent:job", "no module 'tests.flows.absent'"),
        ("tests.flows.tuning_jobs:nothing", "is a int; make it"),
        ("tests.flows.tuning_jobs:absent", "is nothing; make it"),
    ],
)
def test_a_wrong_name_is_refused_with_the_fix(name, message):
    from kernels.tuning.job import find_job

    with pytest.raises(ValueError, match=message):
        find_job(name)
