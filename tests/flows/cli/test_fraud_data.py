"""``penstock fraud init-config``, ``contract`` and ``check``, as a person types them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from connectors.files import write_table
from flows.cli.main import run
from tasks.fraud.dataset import DatasetConfig


@pytest.fixture
def payments(tmp_path: Path) -> Path:
    rng = np.random.default_rng(1)
    n = 2_000
    table = pa.table(
        {
            "payment_id": [f"p{i}" for i in range(n)],
            "paid_at_time": pa.array(
                np.sort(rng.integers(1_700_000_000, 1_708_000_000, n)), pa.timestamp("s")
            ),
            "customer": [f"c{i}" for i in rng.integers(0, 100, n)],
            "shop": [f"s{i}" for i in rng.integers(0, 50, n)],
            "amount": np.where(np.arange(n) == 7, -1.0, np.round(rng.random(n) * 50, 2)),
            "channel": rng.choice(["web", "app"], n),
            "is_fraud": (rng.random(n) < 0.05).astype(np.int8),
        }
    )
    return write_table(table, tmp_path / "payments.csv")


def test_from_a_file_to_a_checked_config(
    payments: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "payments.toml"
    assert run(["fraud", "init-config", str(payments), "--out", str(out)]) == 0
    assert "penstock fraud check" in capsys.readouterr().out
    config = DatasetConfig.from_toml(out)
    assert config.name == "payments"
    assert [e.column for e in config.entities] == ["customer", "shop"]
    folder = tmp_path / "bad"
    command = ["fraud", "check", str(payments), "--config", str(out)]
    assert run([*command, "--quarantine", str(folder)]) == 0
    shown = capsys.readouterr().out
    assert "negative-amount" in shown
    assert "payments.csv" in shown
    assert len(list(folder.rglob("*.parquet"))) == 1
    assert run([*command, "--json"]) == 0
    report = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert (report["rows_in"], report["rows_quarantined"]) == (2_000, 1)


def test_a_config_can_be_printed_and_is_not_replaced_unasked(
    payments: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["fraud", "init-config", str(payments), "--name", "mine"]) == 0
    assert 'name = "mine"' in capsys.readouterr().out
    out = tmp_path / "c.toml"
    out.write_text("mine")
    assert run(["fraud", "init-config", str(payments), "--out", str(out)]) == 1
    assert "--force" in capsys.readouterr().err
    assert out.read_text() == "mine"
    assert run(["fraud", "init-config", str(payments), "--out", str(out), "--force"]) == 0
    assert "[[entities]]" in out.read_text()


def test_from_a_config_to_own_lines_and_back(
    payments: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, own = tmp_path / "payments.toml", tmp_path / "own.toml"
    assert run(["fraud", "init-config", str(payments), "--out", str(config)]) == 0
    assert run(["fraud", "contract", "--config", str(config)]) == 0
    assert "[columns.paid_at_time]" in capsys.readouterr().out
    assert run(["fraud", "contract", "--config", str(config), "--out", str(own)]) == 0
    assert run(["fraud", "contract", "--config", str(config), "--out", str(own)]) == 1
    written = tmp_path / "schema.toml"
    written.write_bytes(own.read_bytes())
    own.write_text(
        own.read_text().replace("[columns.channel]", "[columns.channel]\ndomain = ['web']")
    )
    capsys.readouterr()
    assert run(["clean", "diff", str(written), str(own)]) == 0
    assert capsys.readouterr().out.startswith("stricter  channel: domain () -> ('web',)")
    command = ["fraud", "check", str(payments), "--config", str(config), "--json"]
    assert run([*command, "--contract", str(written)]) == 0
    report = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert report["by_rule"] == {"negative-amount": 1}
    assert run([*command, "--contract", str(own)]) == 1
    assert "domain:channel" in capsys.readouterr().err
    own.write_text("[columns.amount]\nkind = 'decimal'\nminimum = -1\n")
    assert run([*command, "--contract", str(own)]) == 1
    assert "would let pass" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["init-config", "FOLDER/none.csv"], "no such file"),
        (["init-config", "FOLDER/odd.csv"], "odd.csv: no time column found"),
        (["check", "FOLDER/payments.csv", "--config", "FOLDER/none.toml"], "init-config"),
        (["check", "FOLDER/payments.csv", "--config", "handbook"], "no column 't'"),
        (["check", "FOLDER/odd.csv", "--config", "FOLDER/odd.toml"], "all 2 labels are legitimate"),
    ],
)
def test_trouble_is_one_line(
    payments: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = payments.parent
    (folder / "odd.csv").write_text("a,b,c,y\n1,2,x,0\n3,4,y,0\n")
    (folder / "odd.toml").write_text(
        'name = "odd"\ntime = "a"\ntime_unit = "d"\nearliest = "1970-01-01"\namount = "b"\n'
        'label = "y"\n[[entities]]\ncolumn = "c"\n'
    )
    code = run(["fraud", *[a.replace("FOLDER", str(folder)) for a in arguments]])
    error = [line for line in capsys.readouterr().err.splitlines() if "INFO" not in line]
    assert code == 1
    assert len(error) == 1
    assert message in error[0]
