"""Runs in MLflow: what they record, how they end, and that metrics never hold up a step."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

import pytest
import torch

from connectors.profiles import profile_logger
from connectors.tracking import (
    MlflowCallback,
    RunRequest,
    ensure_experiment,
    flatten_params,
    git_commit,
    make_metrics,
    resumed_run,
    tracked_run,
)
from kernels.runtime.callbacks import StepMetrics
from kernels.runtime.profiler import ProfileConfig, profiled


@dataclass
class Depth:
    rounds: int = 150


def figures(step):
    return StepMetrics(step, 100, 1 / (step + 1), 0.1, 2.0, 32, 1e4)


def test_a_profile_is_logged_with_its_report_and_figures(mlflow_uri, tmp_path):
    with tracked_run(RunRequest(dataset="tiny", name="profiled", uri=mlflow_uri)) as run:
        plan = ProfileConfig(warm_up=1, steps=1)
        with profiled(tmp_path, plan, then=profile_logger(run)) as profiler:
            for _ in range(2):
                for number in torch.ones(200):
                    float(number)
                profiler.step()
    found = run.client.get_run(run.run_id).data
    assert found.metrics["profile.step_seconds"] == profiler.result.step_seconds
    assert sum(name.startswith("profile.lost.") for name in found.metrics) == len(
        profiler.result.causes
    )
    assert found.tags["profile.summary"] == profiler.result.summary
    names = {f.path for f in run.client.list_artifacts(run.run_id, "profile")}
    assert names == {"profile/profile.html", "profile/profile.trace.json.gz"}


def test_a_run_records_params_tags_dataset_metrics_and_files(mlflow_uri, tmp_path):
    note = tmp_path / "note.txt"
    note.write_text("hello")
    request = RunRequest(
        dataset="tiny",
        name="first",
        data_digest="ab" * 32,
        params={"trees": Depth(), "split": {"folds": [1, 2]}, "long": "x" * 9_000},
        tags={"purpose": "test"},
        uri=mlflow_uri,
    )
    with tracked_run(request) as run:
        run.log_metrics({"ap": 0.5, "broken": float("nan")})
        run.log_dataset("tiny", "ab" * 32, 10, note)
        run.log_file(note, "notes")
        run.log_text("# report", "report.md")
        run.set_tags({"more": "1"})
    found = run.client.get_run(run.run_id)
    assert found.info.status == "FINISHED"
    assert found.data.params["trees.rounds"] == "150"
    assert found.data.params["split.folds"] == "1,2"
    assert len(found.data.params["long"]) == 6_000
    assert found.data.metrics == {"ap": 0.5}
    tags = found.data.tags
    assert (tags["dataset"], tags["data_sha256"], tags["purpose"]) == ("tiny", "ab" * 32, "test")
    assert tags["git_commit"] == git_commit()
    assert tags["more"] == "1"
    assert found.inputs.dataset_inputs[0].dataset.name == "tiny"
    assert {f.path for f in run.client.list_artifacts(run.run_id)} == {"notes", "report.md"}
    assert run.page == f"run {run.run_id}"
    kind = run.client.get_experiment(run.experiment_id).tags["mlflow.experimentKind"]
    assert kind == "custom_model_development"
    with resumed_run(run.run_id, uri=mlflow_uri) as again:
        again.log_metrics({"later": 1.0})
    assert run.client.get_run(run.run_id).data.metrics["later"] == 1.0


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError("no"), "FAILED"), (KeyboardInterrupt(), "KILLED")]
)
def test_a_broken_run_says_so(mlflow_uri, error, status):
    with (
        pytest.raises(type(error)),
        tracked_run(RunRequest(dataset="tiny", name="broken", uri=mlflow_uri)) as run,
    ):
        raise error
    assert run.client.get_run(run.run_id).info.status == status


def test_the_callback_sends_everything_in_the_background(mlflow_uri, monkeypatch):
    """The steps end while nothing can be sent."""
    gate, waited = threading.Event(), []
    with tracked_run(RunRequest(dataset="tiny", name="loop", uri=mlflow_uri)) as run:
        queue = run.client._tracking_client.store._async_logging_queue
        send = queue._logging_func

        def hold(*a, **k):
            waited.append(gate.wait(120))
            return send(*a, **k)

        monkeypatch.setattr(queue, "_logging_func", hold)
        callback = MlflowCallback(run, prefix="gnn.", every=40, seconds=60)
        for step in range(100):
            callback.on_step(figures(step))
        assert not waited
        assert not run.client.get_metric_history(run.run_id, "gnn.loss")
        gate.set()
        callback.close()
        callback.close()
    history = run.client.get_metric_history(run.run_id, "gnn.loss")
    assert sorted(m.step for m in history) == list(range(100))
    assert waited
    assert all(waited)


def test_metrics_are_sent_when_time_has_passed_too(mlflow_uri):
    with tracked_run(RunRequest(dataset="tiny", name="slow", uri=mlflow_uri)) as run:
        callback = MlflowCallback(run, every=1_000, seconds=0.0)
        callback.on_step(figures(0))
        deadline = time.monotonic() + 30
        while not run.client.get_metric_history(run.run_id, "loss"):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        callback.close()


def test_a_deleted_experiment_is_named(mlflow_uri):
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=mlflow_uri)
    client.delete_experiment(ensure_experiment(client, "penstock/gone"))
    with pytest.raises(RuntimeError, match="'penstock/gone' is deleted"):
        ensure_experiment(client, "penstock/gone")


def test_params_of_lists_of_tables_get_numbers():
    flat = flatten_params({"entities": ({"column": "card"}, {"column": "shop"}), "n": 1})
    assert flat == {"entities.0.column": "card", "entities.1.column": "shop", "n": 1}


def test_a_page_address_needs_a_server():
    from connectors.tracking import TrackedRun

    run = TrackedRun(None, "r", "e", "http://127.0.0.1:5000")
    assert run.page == "http://127.0.0.1:5000/#/experiments/e/runs/r"


def test_a_page_address_shows_no_login():
    from connectors.tracking import TrackedRun

    run = TrackedRun(None, "r", "e", "https://user:secret@mlflow.example/base")
    assert run.page == "https://mlflow.example/base/#/experiments/e/runs/r"
    assert run.uri == "https://user:secret@mlflow.example/base"


def test_the_commit_is_unknown_outside_a_checkout(tmp_path):
    assert git_commit(tmp_path) == "unknown"
    assert [m.key for m in make_metrics({"a": 1.0, "b": float("inf")}, 0, "p.")] == ["p.a"]
