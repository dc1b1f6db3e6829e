"""``penstock simulate`` writes the stream it names, and nothing when it must not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from flows.cli.simulate import app
from tasks.fraud.simulate import (
    CardsConfig,
    Drift,
    TransfersConfig,
    simulate_cards,
    simulate_transfers,
)

ROOT = Path(__file__).resolve().parents[3]


def run(*words: str | Path):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.mark.parametrize("drift", [(), ("--drift",)])
def test_cards_writes_what_the_simulator_yields(tmp_path: Path, drift: tuple[str, ...]) -> None:
    out = tmp_path / "cards.parquet"
    size = ("--cards", "200", "--terminals", "400", "--days", "70", "--seed", "5")
    done = run("cards", out, *size, *drift)
    assert done.exit_code == 0, done.output
    config = CardsConfig(
        cards=200, terminals=400, days=70, seed=5, drift=Drift() if drift else None
    )
    expected = pa.Table.from_batches(simulate_cards(config))
    assert pq.read_table(out).equals(expected)
    assert f"{len(expected):,} transactions" in done.output
    assert f"{sum(expected['fraud'].to_pylist()):,} frauds" in done.output
    assert "handbook.toml" in done.output
    assert [path.name for path in tmp_path.iterdir()] == ["cards.parquet"]


def test_fraud_rates_can_be_given(tmp_path: Path) -> None:
    out = tmp_path / "cards.parquet"
    options = ("--bad-terminals-per-day", "0", "--bad-cards-per-day", "0", "--days", "3")
    assert run("cards", out, *options).exit_code == 0
    assert set(pq.read_table(out)["scenario"].to_pylist()) <= {0, 1}


def test_transfers_writes_what_the_simulator_yields(tmp_path: Path) -> None:
    out = tmp_path / "transfers.parquet"
    done = run("transfers", out, "--accounts", "100", "--days", "50", "--rings", "2", "--drift")
    assert done.exit_code == 0, done.output
    config = TransfersConfig(accounts=100, days=50, rings=2, drift=Drift())
    assert pq.read_table(out).equals(pa.Table.from_batches(simulate_transfers(config)))
    assert "transfers.toml" in done.output


def test_an_existing_file_is_kept_unless_forced(tmp_path: Path) -> None:
    out = tmp_path / "cards.parquet"
    out.write_text("mine", encoding="utf-8")
    small = ("--cards", "50", "--days", "2")
    refused = run("cards", out, *small)
    assert refused.exit_code != 0
    assert isinstance(refused.exception, FileExistsError)
    assert "--force" in str(refused.exception)
    assert out.read_text(encoding="utf-8") == "mine"
    assert run("cards", out, *small, "--force").exit_code == 0
    assert pq.read_table(out).num_rows > 0


def test_impossible_requests_leave_no_file(tmp_path: Path) -> None:
    folder = run("cards", tmp_path)
    assert isinstance(folder.exception, IsADirectoryError)
    assert "is a folder; name a file" in str(folder.exception)
    suffix = run("cards", tmp_path / "cards.csv")
    assert "end the name in .parquet" in str(suffix.exception)
    none = run("cards", tmp_path / "a.parquet", "--cards", "0")
    assert "cards must be at least 1, got 0" in str(none.exception)
    short = run("transfers", tmp_path / "a.parquet", "--days", "10")
    assert "use at least 46, or rings = 0" in str(short.exception)
    assert list(tmp_path.iterdir()) == []


def test_the_benchmark_prints_its_keys() -> None:
    words = [sys.executable, "-m", "tests.benchmarks.simulate", "--smoke", "--json"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["tx_per_s"] > 0
    assert result["tx_per_cpu_s"] > 0
    assert set(result["rows"]) == {"cards", "cards, drift", "transfers"}
