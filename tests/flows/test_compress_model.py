"""The flow around a compression: its run in MLflow, the registered file, its command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient

from connectors.model_server.addresses import parse_address
from connectors.model_server.sources import open_source
from flows.cli.main import run
from kernels.compression.sessions import answers_to
from tasks.compress.footprint import TimingConfig
from tests.tasks.compress.small_net import file_and_items


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A file and its examples on disk."""
    folder = tmp_path_factory.mktemp("net")
    model, items = file_and_items()
    (folder / "small-net.onnx").write_bytes(model)
    np.savez(folder / "rows.npz", rows=np.concatenate([one["rows"] for one in items]))
    return folder / "small-net.onnx", folder / "rows.npz", items


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(
        "tasks.compress.footprint.TimingConfig", lambda: TimingConfig(rounds=2, burst=3, rest=0)
    )


def test_a_file_is_compressed_tracked_registered_and_served(
    small, quick, prefect_server, mlflow_server, capsys
):
    model, data, items = small
    line = ["compress", "plan", str(model), "--data", str(data), "--smaller", "2.5"]
    assert run([*line, "--max-loss", "0.3", "--run", "--json"]) == 0
    out = capsys.readouterr().out
    assert "registered  small-net 1" in out
    record = json.loads(out.splitlines()[-1])
    taken = next(one for one in record["outcome"]["trials"] if one["taken"])
    assert record["registered"] == {"name": "small-net", "version": "1"}
    assert record["bundle"] is None

    client = MlflowClient()
    tags = client.get_model_version("small-net", "1").tags
    assert tags["compressed"] == taken["name"] == "int8"
    assert float(tags["loss"]) == pytest.approx(taken["loss"], abs=1e-5)
    low, high = map(float, tags["loss_interval"].split())
    assert low <= float(tags["loss"]) <= high
    run_id = Path(record["run_page"]).name
    assert client.get_run(run_id).info.status == "FINISHED"
    assert client.get_run(run_id).data.metrics["smaller"] == pytest.approx(taken["smaller"])
    names = {f.path for f in client.list_artifacts(run_id)}
    assert {"plan.json", "outcome.json", "compress.html", "pareto.svg"} <= names

    (served,) = open_source(parse_address("models:/small-net/1")).load()
    wanted = answers_to(Path(record["model"]).read_bytes(), items[:4], threads=1)
    found = answers_to(served.content, items[:4], threads=1)
    for one, other in zip(wanted, found, strict=True):
        assert np.array_equal(one["logits"], other["logits"])

    assert run(["compress", "report", str(Path(record["page"]).parent)]) == 0
    assert "-> int8" in capsys.readouterr().out


def test_a_name_that_cannot_be_served_is_refused_before_the_work(
    small, prefect_server, mlflow_server, capsys
):
    model, data, _ = small
    line = ["compress", "run", str(model), "--data", str(data), "--name", "small net (1)"]
    assert run(line) == 1
    assert "give --name of letters" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--device", "toaster"], "toaster"),
        (["--smaller", "0"], "smaller=0 cannot be met"),
        (["--smaller", "90"], "nearest is int8"),
    ],
)
def test_what_cannot_be_is_one_line(small, quick, capsys, wrong, message):
    model, data, _ = small
    assert run(["compress", "plan", str(model), "--data", str(data), *wrong]) == 1
    told = capsys.readouterr().err
    assert message in told
    assert "Traceback" not in told
