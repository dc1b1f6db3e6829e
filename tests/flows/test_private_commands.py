"""``penstock private`` as a person types it: compile, joint scoring from two terminals, audit."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from flows.cli.main import run
from infra.services.ports import any_free_port
from tests.benchmarks._api_server import ROOT
from tests.integrity.stream_banks import cards_bank


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    return cards_bank(tmp_path_factory.mktemp("bank"))


def penstock(*arguments, **environment):
    return subprocess.Popen(
        [sys.executable, "-m", "flows.cli.main", "private", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_compile_says_what_it_proves(bank, tmp_path, capsys):
    folder = tmp_path / "compiled"
    assert run(["private", "compile", str(bank.bundle.folder), str(folder), "--json"]) == 0
    out = capsys.readouterr().out
    assert "no evaluation keys" in out
    told = json.loads(out.splitlines()[-1])
    assert told["security_bits"] == 256
    assert told["error_simulated"] <= told["error_calibration"] <= told["error_certain"] < 1e-3
    assert {one["rows"] for one in told["requests"]} >= {1, 128}
    assert json.loads((folder / "report.json").read_text()) == told


def test_what_cannot_be_compiled_is_one_line(bank, tmp_path, capsys):
    for arguments, said in (
        ([str(tmp_path), "out"], "manifest"),
        (
            [str(bank.bundle.folder), str(tmp_path / "o"), "--profile", "public"],
            "profile is one of",
        ),
        (
            [str(bank.bundle.folder), str(tmp_path / "o"), "--tolerance", "1e-30"],
            "larger tolerance",
        ),
        ([str(bank.bundle.folder), str(tmp_path / "o"), "--name", "a/b"], "no name for a model"),
    ):
        assert run(["private", "compile", *arguments]) == 1
        assert said in capsys.readouterr().err


def test_audit_tells_a_changed_log(tmp_path, capsys):
    from connectors.private.server.audit import AuditLog

    path = tmp_path / "audit.jsonl"
    log = AuditLog(path)
    receipt = log.note("scored", rows=3)
    log.close()
    assert run(["private", "audit", str(path), "--receipt", receipt]) == 0
    assert "1 lines hold each other" in capsys.readouterr().out
    assert run(["private", "audit", str(path), "--receipt", "f" * 64]) == 1
    assert "no line for receipt" in capsys.readouterr().err
    path.write_text(path.read_text().replace('"rows":3', '"rows":4'))
    assert run(["private", "audit", str(path)]) == 1
    assert "line 1 was changed" in capsys.readouterr().err
    assert run(["private", "audit", str(tmp_path / "none")]) == 1


def test_owners_commands_are_those_of_the_client(capsys):
    assert run(["private", "models", "--url", "http://127.0.0.1:9"]) == 2
    assert "PENSTOCK_TOKEN" in capsys.readouterr().err


def test_two_terminals_score_together(bank, tmp_path):
    names = bank.bundle.feature_names
    first = ",".join(names[::2])
    rows = bank.bundle.background()[:40].astype(np.float64)

    def told(*arguments):
        process = penstock("joint", *arguments)
        out, error = process.communicate(timeout=60)
        assert process.returncode == 0, error
        return out

    told("compile", bank.bundle.folder, tmp_path / "model", "--first", first)
    told("dealer-key", tmp_path / "dealer")
    (public,) = [p for p in (tmp_path / "dealer").iterdir() if "public" in p.name]
    (private,) = [p for p in (tmp_path / "dealer").iterdir() if "public" not in p.name]
    deal = ("deal", tmp_path / "model" / "plan.json", tmp_path / "deal")
    told(*deal, "--key", private, "--rows", "100", "--batch-rows", "64")
    for house in ("a", "b"):
        told("certificate", tmp_path / house, "--name", house)
    np.save(tmp_path / "a" / "rows.npy", rows[:, ::2])
    np.save(tmp_path / "b" / "rows.npy", rows[:, 1::2])

    port = any_free_port()
    parties = []
    for number, (house, other) in enumerate((("a", "b"), ("b", "a"))):
        own = tmp_path / house
        parties.append(
            penstock(
                *("joint", "party", own / "rows.npy", "--party", number, "--port", port),
                *("--certificate", own / "certificate.pem", "--key", own / "key.pem"),
                *("--peer", tmp_path / other / "certificate.pem"),
                *("--plan", tmp_path / "model" / "plan.json"),
                *("--part", tmp_path / "model" / f"party-{number}-part.json"),
                *("--deal", tmp_path / "deal" / f"party-{number}.deal", "--dealer-key", public),
                *("--ledger", own / "ledger", "--out", own / "scores.csv"),
            )
        )
    try:
        ended = [process.communicate(timeout=90) for process in parties]
    finally:
        for process in parties:
            process.kill()
    assert [process.returncode for process in parties] == [0, 0], ended
    first_told, second_told = (json.loads(out.splitlines()[-1]) for out, _ in ended)
    assert (first_told["rows"], second_told["out"]) == (40, None)
    from connectors.private.fraud_head import logistic_model

    model, _ = logistic_model(bank.bundle.folder)
    found = np.loadtxt(tmp_path / "a" / "scores.csv", delimiter=",")
    np.testing.assert_allclose(found, model.score(rows)[:, 0], atol=1e-3)
    assert not (tmp_path / "b" / "scores.csv").exists()
