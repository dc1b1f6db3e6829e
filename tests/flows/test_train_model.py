"""The flow around a user's training: its run in MLflow, its page in Prefect, its command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mlflow import MlflowClient

from connectors.training import HANG_SECONDS, REQUEST, TrainingRequest
from flows.cli.main import run
from flows.train_model import train_model
from kernels.runtime.launch import GRACE_SECONDS

MODULE = "tests.connectors.own_job"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("own") / "rows.csv"
    path.write_text("".join(f"{i},{i * i % 7}\n" for i in range(12)))
    return path


def test_a_run_is_tracked_and_continued(data, tmp_path, prefect_server, mlflow_server):
    folder = tmp_path / "run"
    record = train_model(
        f"{MODULE}:build", str(data), {"steps": 8}, folder=str(folder), profile=True
    )
    assert Path(record["weights"]).is_file()
    client = MlflowClient()
    run = client.get_run(record["run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.params["config.steps"] == "8"
    assert run.data.metrics["best"] == pytest.approx(record["best"])
    assert len(client.get_metric_history(record["run_id"], "loss")) == 8
    names = {f.path for f in client.list_artifacts(record["run_id"])}
    assert {"model.safetensors", "report.json", "profile"} <= names
    assert run.data.tags["profile.summary"].startswith("A step took")
    assert json.loads((folder / "report.json").read_text())["finished"] == 8


def test_the_command_trains_and_says_where(data, tmp_path, prefect_server, mlflow_server, capsys):
    line = ["train", "--module", f"{MODULE}:build", "--data", str(data), "--set", "steps=4"]
    line += ["--hang-seconds", "77", "--grace-seconds", "5"]
    assert run([*line, "--folder", str(tmp_path / "run"), "--json"]) == 0
    assert TrainingRequest.load(tmp_path / "run" / REQUEST).hang_seconds == 77
    out = capsys.readouterr().out
    assert "4 steps (to the last step" in out
    record = json.loads(out.splitlines()[-1])
    assert (record["finished"], record["weights"]) == (4, str(tmp_path / "run/model.safetensors"))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--set", "steps"], "must be like optimizer.learning_rate=1e-3"),
        (["--set", "step=4"], "no setting 'step'"),
        (["--module", f"{MODULE}:bild"], "has no function 'bild'; it has build, fail"),
    ],
)
def test_wrong_lines_are_told_at_once(wrong, message, capsys):
    assert run(["train", "--module", f"{MODULE}:build", *wrong]) == 1
    assert message in " ".join(capsys.readouterr().err.split())


def test_the_command_says_how_long_it_waits(capsys):
    assert run(["train", "--help"]) == 0
    told = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert f"[default: {HANG_SECONDS:g}]" in told
    assert f"[default: {GRACE_SECONDS:g}]" in told


def test_fewer_than_one_process_is_refused(data, prefect_server, mlflow_server):
    with pytest.raises(ValueError, match="nproc must be at least 1"):
        train_model(f"{MODULE}:build", str(data), nproc=0)
