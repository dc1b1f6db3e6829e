"""``penstock stream`` over files: a history replayed, and an API's store seeded with one."""

from __future__ import annotations

import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from connectors.online_store import open_store
from flows.cli.main import run
from tests.integrity.stream_banks import cards_bank, read_lines


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli-stream")
    made = cards_bank(folder)
    pq.write_table(pa.Table.from_pylist(made.rows), folder / "history.parquet")
    return folder, made


def test_a_store_is_seeded(bank, tmp_path, capsys):
    folder, made = bank
    words = ["stream", "seed", str(folder / "history.parquet")]
    model = ["--model", str(made.bundle.folder)]
    store = f"lmdb://{tmp_path}/store"
    assert run([*words, *model, "--store", store]) == 0
    assert f"{len(made.rows):,} transactions (0 set aside)" in capsys.readouterr().out
    with open_store(store, read_only=True) as opened:
        assert opened.counts()["customer"] == len({row["customer"] for row in made.rows})


@pytest.mark.long
def test_a_history_is_replayed_once(bank, tmp_path):
    folder, made = bank

    def replay():  # in a process of its own: it holds a JVM
        words = ["stream", "replay", str(folder / "history.parquet")]
        model = ["--model", str(made.bundle.folder), "--out", str(tmp_path / "out")]
        command = [sys.executable, "-c", "from flows.cli.main import main; main()", *words, *model]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=180)

    done = replay()
    assert done.returncode == 0, done.stderr[-3000:]
    scores = read_lines(tmp_path / "out" / "scores")
    assert len(scores) == len({row["event_id"] for row in scores}) == len(made.rows)
    again = replay()
    assert again.returncode == 1
    assert "is there already" in again.stderr


def test_wrong_input_is_one_line(bank, tmp_path, capsys):
    _, made = bank
    assert run(["stream", "replay", str(tmp_path), "--model", str(made.bundle.folder)]) == 1
    assert "holds no folder transactions" in capsys.readouterr().err
    assert run(["stream", "send", "nobody", str(tmp_path / "x.parquet")]) == 1
    assert "no stream is described" in capsys.readouterr().err
