"""From a file to transactions; bad rows are on the disk first."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from connectors.files import read_table
from connectors.transactions import load_transactions
from tasks.cleaning.contract.model import ContractError
from tasks.cleaning.contract.toml import from_toml, read_contract
from tasks.fraud.contract import contract_of
from tasks.fraud.dataset import DatasetConfig, EntityColumn
from tasks.fraud.ingest.checks import QuarantineLimitError

CONFIG = DatasetConfig(
    "shop", "when", "price", (EntityColumn("buyer"),), event_id="id", max_quarantine_share=0.4
)
GOOD = "id,when,price,buyer\n1,2024-01-01 10:00:00,1.5,007\n2,2024-01-02 10:00:00,2.5,7\n"


def test_a_csv_keeps_ids_as_written_and_files_its_bad_rows(tmp_path: Path) -> None:
    path = tmp_path / "shop.csv"
    path.write_text(GOOD + "3,2024-01-03 10:00:00,-1,8\n")
    checked = load_transactions(path, CONFIG, tmp_path / "quarantine")
    assert checked.transactions.index["buyer"].tolist() == ["007", "7"]
    assert checked.transactions.event_id.tolist() == [1, 2]
    (part,) = (tmp_path / "quarantine").rglob("*.parquet")
    assert read_table(part)["rule"].to_pylist() == ["negative-amount"]
    assert read_table(part)["source"].to_pylist() == [str(path)]


def test_refused_csv_rows_are_kept_as_they_stand_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "shop.csv"
    path.write_text(GOOD + '3,2024-01-03 10:00:00,-1.50,"8, c/o"\n4,2024-01-03T10:00,NA,9\n')
    checked = load_transactions(path, replace(CONFIG, max_quarantine_share=0.5))
    first, second = checked.quarantine.to_pylist()
    assert json.loads(first["payload"]) == {
        "id": "3",
        "when": "2024-01-03 10:00:00",
        "price": "-1.50",
        "buyer": "8, c/o",
    }
    assert first["observed"] == "-1.50"
    assert json.loads(second["payload"])["price"] == second["observed"] == "NA"
    assert second["rule"] == "missing-amount"


def test_too_many_bad_rows_are_filed_before_the_run_stops(tmp_path: Path) -> None:
    path = tmp_path / "shop.csv"
    path.write_text(GOOD + "3,,1,8\n4,2024-01-03,,8\n")
    with pytest.raises(QuarantineLimitError, match="missing-time 1, missing-amount 1") as caught:
        load_transactions(path, CONFIG, tmp_path / "quarantine")
    assert caught.value.report is not None
    (part,) = (tmp_path / "quarantine").rglob("*.parquet")
    assert read_table(part).num_rows == 2
    assert str(caught.value).endswith(f"the bad rows lie in {part}")
    with pytest.raises(QuarantineLimitError):
        load_transactions(path, CONFIG)


def test_the_contract_lies_beside_the_rows_it_refused(tmp_path: Path) -> None:
    path = tmp_path / "shop.csv"
    path.write_text(
        "id,when,price,buyer,code\n1,2024-01-01 10:00:00,1.5,007,01\n"
        "2,2024-01-02 10:00:00,2.5,7,2\n3,2024-01-03 10:00:00,9.5,7,03\n"
    )
    own = from_toml("[columns.code]\npattern = '0[0-9]'")
    checked = load_transactions(path, CONFIG, tmp_path / "quarantine", own=own)
    assert checked.report.by_rule == {"pattern:code": 1}
    (part,) = (tmp_path / "quarantine").rglob("*.parquet")
    assert read_contract(part.with_suffix(".toml")) == checked.contract == contract_of(CONFIG, own)
    with pytest.raises(QuarantineLimitError) as caught:
        load_transactions(path, replace(CONFIG, max_quarantine_share=0.1), part.parent, own=own)
    assert caught.value.report is not None


def test_own_lines_on_labels_are_idle_where_nothing_is_labelled(tmp_path: Path) -> None:
    path = tmp_path / "shop.csv"
    path.write_text(GOOD)
    own = from_toml(
        "keys = [['fraud', 'price']]\n[columns.fraud]\nkind = 'integer'\nnullable = false\n"
        "[columns.price]\nkind = 'decimal'\nmaximum = 2\n"
        "[[denial]]\nname = 'cheap'\nforbidden = 'fraud = 1 AND price < 2'"
    )
    config = replace(CONFIG, label="fraud", max_quarantine_share=0.5)
    checked = load_transactions(path, config, own=own, labels_required=False)
    assert checked.report.by_rule == {"maximum:price": 1}


def test_a_contradiction_is_told_before_the_file_is_read(tmp_path: Path) -> None:
    own = from_toml("[columns.price]\nkind = 'decimal'\nminimum = -1")
    with pytest.raises(ContractError, match="would let pass"):
        load_transactions(tmp_path / "absent.csv", CONFIG, own=own)


def test_a_clean_file_leaves_no_quarantine(tmp_path: Path) -> None:
    path = tmp_path / "shop.csv"
    path.write_text(GOOD)
    assert load_transactions(path, CONFIG, tmp_path / "quarantine").report.rows_used == 2
    assert not (tmp_path / "quarantine").exists()
