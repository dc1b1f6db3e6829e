"""The owner's batch flow against a running scorer: sealed, scored, opened, tracked."""

from __future__ import annotations

import csv
import json
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from connectors.private.bundle import write_bundle
from connectors.private.client.http import Scorer, ScorerError
from connectors.private.client.key_file import KeyFile
from connectors.private.client.registration import write_registration
from connectors.private.server.audit import verify_log
from tasks.privacy.compile import compile_model
from tasks.privacy.readout import Readout
from tests.benchmarks._api_server import running_private
from tests.tasks.privacy.models import made, rows

TOKEN = "a" * 26


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    from dataclasses import replace

    folder = tmp_path_factory.mktemp("scorer")
    model = replace(made("linear"), readout=Readout(thresholds=(("review", 0.5), ("block", 0.9))))
    write_bundle(folder / "small", compile_model(model, rows(300)), "small")
    settings = {"models": folder / "small", "log_level": "WARNING"}
    with running_private(folder / "home", settings, f"bank-a:score:{TOKEN}") as running:
        yield running


@pytest.fixture
def owner(server, tmp_path, monkeypatch):
    """Offer and registered key as files; the token in the environment."""
    monkeypatch.setenv("PENSTOCK_TOKEN", TOKEN)
    monkeypatch.setenv("PENSTOCK_PRIVATE_PASSPHRASE", "correct horse")
    scorer = Scorer(server.url, TOKEN)
    offer = scorer.offer("small")
    (tmp_path / "offer.json").write_text(offer.to_json())
    key = KeyFile.new("bank-a", offer.plan.parameters.name)
    key.write(tmp_path / "owner.key", "correct horse")
    scorer.register(write_registration(key.registration, key.signing_key))
    return {
        "offer": str(tmp_path / "offer.json"),
        "key": str(tmp_path / "owner.key"),
        "url": server.url,
    }


def test_a_table_is_scored_in_parts_and_tracked(
    server, owner, tmp_path, prefect_server, mlflow_server
):
    from mlflow import MlflowClient
    from prefect.artifacts import Artifact

    from flows.encrypted_batch import encrypted_batch

    table = rows(250, 9)
    table[17, 2] = np.nan
    columns = {f"x{i}": table[:, i] for i in range(7)} | {"note": ["-"] * 250}
    parquet.write_table(pa.table(columns), tmp_path / "rows.parquet")
    out = tmp_path / "out" / "bands.csv"
    record = encrypted_batch(str(tmp_path / "rows.parquet"), str(out), **owner, most_rows=100)
    assert (record["rows"], record["refused"], len(record["receipts"])) == (250, 1, 3)
    assert verify_log(server.home / "audit.jsonl", record["receipts"]).sound

    clear = 1 / (1 + np.exp(-made("linear").score(np.nan_to_num(table))[:, 0]))
    with out.open() as file:
        found = list(csv.DictReader(file))
    assert set(found[0]) == {"row", "band", "refused"}  # bands alone may leave
    expected = np.array(["", "review", "block"])[np.digitize(clear, [0.5, 0.9])].tolist()
    expected[17] = ""
    assert [one["band"] for one in found] == expected
    assert found[17]["refused"] == "x2 is not a finite number"
    assert record["bands"]["block"] == expected.count("block")

    run = MlflowClient().get_run(Path(record["run_page"]).name)
    assert run.data.metrics["rows"] == 250
    assert run.data.metrics["band.block"] == expected.count("block")
    page = json.loads(Artifact.get("encrypted-batch").data)
    assert {"what": "refused", "value": "1"} in page
    logged = json.dumps([run.data.params, run.data.tags])
    assert TOKEN not in logged
    assert "correct horse" not in logged


def test_scores_are_written_for_the_owner_who_asks(owner, tmp_path, prefect_server, mlflow_server):
    from flows.encrypted_batch import encrypted_batch

    np.save(tmp_path / "rows.npy", rows(20, 3))
    out = tmp_path / "scores.csv"
    encrypted_batch(str(tmp_path / "rows.npy"), str(out), **owner, scores=True)
    with out.open() as file:
        found = [float(one["probability"]) for one in csv.DictReader(file)]
    clear = 1 / (1 + np.exp(-made("linear").score(rows(20, 3))[:, 0]))
    np.testing.assert_allclose(found, clear, atol=1e-5)


def test_a_refusal_is_not_tried_again(owner, tmp_path, prefect_server, mlflow_server, monkeypatch):
    from flows.encrypted_batch import encrypted_batch

    np.save(tmp_path / "rows.npy", rows(5))
    monkeypatch.setenv("PENSTOCK_TOKEN", "b" * 26)
    began = time.monotonic()
    with pytest.raises(ScorerError, match="no token that is known"):
        encrypted_batch(str(tmp_path / "rows.npy"), str(tmp_path / "out.csv"), **owner)
    assert time.monotonic() - began < 20
