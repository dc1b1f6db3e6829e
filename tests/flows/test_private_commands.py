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


def test_trees_are_compiled_as_they_are(bank, tmp_path, capsys):
    from connectors.private.bundle import read_bundle
    from connectors.private.fraud_head import head_model
    from tasks.fraud.heads.files import head_from_dict

    folder, head = tmp_path / "compiled", bank.bundle.active
    assert run(["private", "compile", str(bank.bundle.folder), str(folder), "--head", head]) == 0
    assert "no evaluation keys" in capsys.readouterr().out
    offer = read_bundle(folder).offer
    names, rows = bank.bundle.feature_names, bank.bundle.background()
    stored = json.loads(bank.bundle.read_extra("heads.json"))
    encoded = offer.encoding.encode(rows[:, [names.index(one) for one in offer.encoding.columns]])
    assert encoded.shape[1] > len(offer.encoding.columns)
    teacher = head_from_dict(stored[head])
    assert offer.readout.floor == teacher.calibration.floor
    model, own = head_model(bank.bundle.folder, head)
    np.testing.assert_allclose(model.score(own)[:, 0], teacher.scorer.logit(rows), atol=1e-9)


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
        ([str(bank.bundle.folder), str(tmp_path / "o"), "--head", "none"], "has no head 'none'"),
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


def told(*arguments):
    """Run a command of joint scoring; returns what it said."""
    process = penstock("joint", *arguments)
    try:
        out, error = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0, error
    return out


def both_told(folder, command, arguments):
    """Run both houses' command in two processes; returns what each said in its last line."""
    port = any_free_port()
    parties = []
    try:
        for number, (house, other) in enumerate((("a", "b"), ("b", "a"))):
            own = folder / house
            parties.append(
                penstock(
                    *("joint", command, own / "rows.csv", "--party", number, "--port", port),
                    *("--certificate", own / "certificate.pem", "--key", own / "key.pem"),
                    *("--peer", folder / other / "certificate.pem"),
                    *("--key-column", "customer", *arguments(number, own)),
                )
            )
        ended = [process.communicate(timeout=90) for process in parties]
    finally:
        for process in parties:
            process.kill()
    assert [process.returncode for process in parties] == [0, 0], ended
    return [json.loads(out.splitlines()[-1]) for out, _ in ended]


def write_table(path, names, customers, rows):
    """Write a CSV of customers and their columns."""
    cells = [
        ["customer", *names],
        *([f"c{one}", *map(repr, rows[one].tolist())] for one in customers),
    ]
    lines = [",".join(line) for line in cells]
    path.write_text("\n".join(lines) + "\n")


@pytest.mark.long
def test_two_terminals_find_their_common_customers_and_score_them(bank, tmp_path):
    """Each house has its own order and customers that the other lacks; scores keep their owner."""
    names = bank.bundle.feature_names
    rows = bank.bundle.background()[:40].astype(np.float64)
    told("compile", bank.bundle.folder, tmp_path / "model", "--first", ",".join(names[::2]))
    told("dealer-key", tmp_path / "dealer")
    public = tmp_path / "dealer" / "dealer-public.pem"
    deal = ("deal", tmp_path / "model" / "plan.json", tmp_path / "deal")
    told(*deal, "--key", tmp_path / "dealer" / "dealer-key.pem", "--rows", "100")
    for house in ("a", "b"):
        told("certificate", tmp_path / house, "--name", house)
    first, second = range(30), range(39, 9, -1)
    write_table(tmp_path / "a" / "rows.csv", names[::2], first, rows[:, ::2])
    write_table(tmp_path / "b" / "rows.csv", names[1::2], second, rows[:, 1::2])

    def intersects(_, own):
        return "--out", own / "out" / "common.json"

    one, other = both_told(tmp_path, "intersect", intersects)
    assert (one["own"], one["common"], other["common"]) == (30, 20, 20)
    assert one["alignment"] == other["alignment"]

    def scores(number, own):
        return (
            *("--common", own / "out" / "common.json", "--out", own / "scores.csv"),
            *("--plan", tmp_path / "model" / "plan.json"),
            *("--part", tmp_path / "model" / f"party-{number}-part.json"),
            *("--deal", tmp_path / "deal" / f"party-{number}.deal", "--dealer-key", public),
            *("--ledger", own / "ledger"),
        )

    (tmp_path / "b" / "scores.csv").write_text("of yesterday")
    one, other = both_told(tmp_path, "party", scores)
    assert (one["rows"], other["out"]) == (20, None)
    from connectors.private.fraud_head import head_model

    model, _ = head_model(bank.bundle.folder)
    lines = (tmp_path / "a" / "scores.csv").read_text().splitlines()
    assert lines[0] == "row,score"
    found = np.array([line.split(",") for line in lines[1:]], np.float64)
    customers = np.array(first)[found[:, 0].astype(int)]
    assert sorted(customers) == list(range(10, 30))
    np.testing.assert_allclose(found[:, 1], model.score(rows[customers])[:, 0], atol=1e-3)
    assert (tmp_path / "b" / "scores.csv").read_text() == "of yesterday"


def test_rows_without_an_order_that_is_told_are_not_scored(tmp_path, capsys):
    path = str(tmp_path / "none")
    files = ("certificate", "key", "peer", "plan", "part", "deal", "dealer-key", "ledger")
    options = [f"--{name}={path}" for name in files]
    arguments = ["private", "joint", "party", path, "--party=0", "--port=1", *options]
    for more in ([], ["--same-order", "--common", path]):
        assert run([*arguments, *more]) == 1
        assert "give --common" in capsys.readouterr().err


def test_a_file_of_another_intersection_is_not_written_over(tmp_path, capsys):
    path = tmp_path / "common.json"
    path.write_text("of yesterday")
    options = [f"--{name}={tmp_path}" for name in ("certificate", "key", "peer")]
    arguments = ["private", "joint", "intersect", str(tmp_path), "--party=0", "--port=1", *options]
    assert run([*arguments, f"--out={path}"]) == 1
    assert "name a new file" in capsys.readouterr().err
    assert path.read_text() == "of yesterday"
