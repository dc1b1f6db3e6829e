"""``penstock explain``: mistakes in one clear line before anything starts; drift from records."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from connectors.explain.set_files import ARRAYS, write_set
from tasks.explain.players import Players
from tasks.explain.record import Contract, ExplanationSet, ModelName

WEEK_MS = 7 * 86_400_000
MONDAY = 1_514_764_800_000


def command(capsys, *words):
    from flows.cli.main import run

    code = run(["explain", *map(str, words)])
    said = capsys.readouterr()
    return code, said.out, said.err


@pytest.fixture
def files(tmp_path):
    for name in ("net.pt", "weights.pkl"):
        (tmp_path / name).write_bytes(b"x")
    for name in ("rows", "held"):
        parquet.write_table(pa.table({"a": [1.0, 2.0]}), tmp_path / f"{name}.parquet")
    return tmp_path


WRONG = {
    "a model alone": (["--model", "net.pt"], "belong together"),
    "a background alone": (["--background", "held.parquet"], "belong together"),
    "an option of own models": (["--review-at", "0"], "--review-at is an option of an own model"),
    "a column of own tables": (["--key-column", "id"], "--key-column is an option of an own"),
    "a pickle": (
        ["--model", "weights.pkl", "--background", "held.parquet"], "must be one of .pt, .ts",
    ),
    "an absent file": (["--model", "no.pt", "--background", "held.parquet"], "no such file"),
    "absent groups": (
        ["--model", "net.pt", "--background", "held.parquet", "--groups", "no.toml"],
        "no such file",
    ),
    "thresholds out of order": (
        ["--model", "net.pt", "--background", "held.parquet", "--review-at", "2",
         "--block-at", "1"],
        "exchange them",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("words", "says"), WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("kind", ["case", "model"])
def test_mistakes_are_told_in_one_line(files, monkeypatch, capsys, kind, words, says):
    monkeypatch.chdir(files)
    code, _, err = command(capsys, kind, "rows.parquet", *words)
    assert code == 1
    assert says in err
    assert err.count("\n") == 1


def test_a_seed_is_for_the_serving_model_as_well():
    from flows.cli.explain_options import own_record

    nothing = {"key": "", "segments": (), "review_at": None, "output": None}
    assert own_record(Path("rows.parquet"), None, None, seed=3, **nothing) is None


def record(folder, *, times=True, scale=1.0, seed=0, base=0.0):
    rng = np.random.default_rng(seed)
    n = 400
    values = rng.normal(size=(n, 2))
    values[n // 2 :, 1] *= scale
    players = Players.single(("amount", "place"))
    contract = Contract(
        "players", "exact", "score", players, players.names, ModelName("m"), base, 1e-9
    )
    found = ExplanationSet(
        contract, tuple(f"{seed}-{i}" for i in range(n)), values, np.zeros_like(values),
        values.sum(axis=1) + base, values.sum(axis=1) + base, values,
        times=MONDAY + np.arange(n) * (2 * WEEK_MS // n) if times else None,
    )  # fmt: skip
    write_set(folder, found)
    return folder


def test_weeks_that_changed_exit_with_2_and_name_the_player(tmp_path, capsys):
    code, out, _ = command(capsys, "drift", record(tmp_path / "a", scale=4), "--json")
    assert code == 2
    assert "contributions moved by" in out
    assert "place 5" in out
    told = json.loads(out.splitlines()[-1])
    assert [p["alarm"] for p in told["periods"]] == [False, True]
    assert told["labels"] == ["amount", "place"]


def test_weeks_alike_exit_with_0(tmp_path, capsys):
    code, out, _ = command(capsys, "drift", record(tmp_path / "a"), "--level", "0.001")
    assert code == 0
    assert out.splitlines()[-1] == "2018-01-08: as in the reference"


def test_records_that_cannot_be_compared_are_told(tmp_path, capsys):
    one = record(tmp_path / "one")
    code, _, err = command(capsys, "drift", one, record(tmp_path / "two", base=1.0, seed=1))
    assert (code, "differ in base" in err) == (1, True)
    code, _, err = command(capsys, "drift", record(tmp_path / "bare", times=False))
    assert (code, "have no instants" in err) == (1, True)
    code, _, err = command(capsys, "drift", tmp_path)
    assert (code, "holds no explanation.json" in err) == (1, True)
    content = bytearray((one / ARRAYS).read_bytes())
    content[100] ^= 1
    (one / ARRAYS).write_bytes(content)
    code, _, err = command(capsys, "drift", one)
    assert (code, "was changed" in err, err.count("\n")) == (1, True, 1)


def test_help_names_the_commands_and_loads_nothing_heavy():
    code = (
        "import sys, flows.cli.explain; "
        "print([m for m in ('torch', 'mlflow', 'prefect', 'shap', 'pyarrow') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                          cwd=Path(__file__).parents[3])  # fmt: skip
    assert done.stdout.strip() == "[]"
