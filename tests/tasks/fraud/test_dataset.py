"""The dataset config reads TOML and names field and fix when it cannot be used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tasks.fraud.dataset import ConfigError, DatasetConfig, EntityColumn, Split, find_config

MINIMAL: dict[str, Any] = {
    "name": "mini",
    "time": "t",
    "amount": "a",
    "entities": [{"column": "who"}],
}


def test_shipped_configs_load_by_name() -> None:
    cards = find_config("handbook")
    assert cards.kinds == {"customer": ["customer"], "terminal": ["terminal"]}
    assert cards.delay_ms == 7 * 86_400_000
    assert cards.origin_ms == 1_522_540_800_000
    transfers = find_config("transfers")
    assert transfers.kinds == {"account": ["sender", "receiver"]}
    assert transfers.id_columns == ["sender", "receiver", "tx_id"]


def test_a_config_survives_its_own_dictionary() -> None:
    config = DatasetConfig.from_dict(
        {**MINIMAL, "numeric": ["x"], "categorical": ["c"], "label": "y", "split": {"folds": 2}}
        | {"alarm": {"ap": 0.9}}
    )
    assert config.split.folds == 2
    assert (config.alarm.ap, config.alarm.auc) == (0.9, 1.0)
    assert config.columns == ["t", "a", "who", "y", "x", "c"]
    assert DatasetConfig.from_dict(config.to_dict()) == config


def test_defaults_of_a_minimal_config() -> None:
    config = DatasetConfig.from_dict(MINIMAL)
    assert config.entities == (EntityColumn("who", "who"),)
    assert config.id_columns == ["who"]
    assert config.origin_ms == 0
    assert config.earliest_ms == 631_152_000_000


def test_an_instant_may_carry_its_zone() -> None:
    config = DatasetConfig.from_dict({**MINIMAL, "time_origin": "1970-01-01T01:00:00+01:00"})
    assert config.origin_ms == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "a b"}, "name"),
        ({"time": ""}, "'time' and 'amount'"),
        ({"entities": []}, "at least one"),
        ({"entities": "who"}, "list of tables"),
        ({"entities": [{"colum": "who"}]}, "colum"),
        ({"label": "a"}, "columns named twice: a"),
        ({"time_unit": "fortnight"}, "time_unit"),
        ({"amount_unit": "gold"}, "amount_unit"),
        ({"max_quarantine_share": 1.5}, "max_quarantine_share"),
        ({"label_delay_days": -1}, "label_delay_days"),
        ({"label_delay_days": float("nan")}, "label_delay_days"),
        ({"label_delay_days": "7"}, "label_delay_days must be a number, got '7'"),
        ({"label_delay_days": True}, "must be a number"),
        ({"time": 5}, "time must be text"),
        ({"numeric": "x"}, "numeric must be a list of column names"),
        ({"categorical": [1]}, "categorical must be a list"),
        ({"entities": [{"column": 3}]}, "entities.column must be text"),
        ({"entities": [{"column": ""}]}, "entities.column must name"),
        ({"entities": ["who"]}, "dataset config"),
        ({"split": {"folds": 1.5}}, "split.folds must be a whole number"),
        ({"decimals": 9}, "decimals"),
        ({"max_future_days": -1}, "max_future_days"),
        ({"time_origin": "spring"}, "time_origin 'spring'"),
        ({"earliest": 1990}, "earliest must be text in quotes"),
        ({"earliest": "1990"}, "earliest .1990. is no ISO instant"),
        ({"colour": 1}, "unknown field colour; known:"),
        ({"split": {"fold": 1}}, "unknown field split.fold"),
        ({"split": {"folds": 0}}, "split.folds"),
        ({"split": {"warmup_days": -1}}, "warmup_days"),
        ({"alarm": {"ap": 0}}, r"alarm.ap must lie in \(0, 1\]"),
        ({"alarm": {"auc": "high"}}, "alarm.auc must be a number"),
        ({"alarm": {"f1": 0.9}}, "unknown field alarm.f1"),
    ],
)
def test_unusable_configs_name_the_field(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DatasetConfig.from_dict({**MINIMAL, **change})


def test_a_missing_field_is_named() -> None:
    with pytest.raises(ConfigError, match="amount"):
        DatasetConfig.from_dict({k: v for k, v in MINIMAL.items() if k != "amount"})


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="init-config"):
        find_config(str(tmp_path / "none.toml"))
    with pytest.raises(ConfigError, match="is a folder"):
        find_config(str(tmp_path))
    broken = tmp_path / "broken.toml"
    broken.write_text("name = ")
    with pytest.raises(ConfigError, match="no valid TOML"):
        find_config(str(broken))


def test_split_defaults_are_the_published_protocol() -> None:
    split = Split()
    assert (split.train_days, split.test_days, split.folds) == (45, 7, 4)
