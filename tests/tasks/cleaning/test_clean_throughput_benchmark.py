"""The throughput benchmark at its small size, and that its rules by hand are the contract's."""

from __future__ import annotations

import json

import polars as pl
import pytest

from tasks.cleaning.contract.rules import row_rules
from tests.benchmarks import clean_throughput
from tests.benchmarks._orders import CONTRACT, by_hand, orders


@pytest.mark.long
def test_small(capsys):
    clean_throughput.main(["--smoke", "--json"])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["identical"] is True
    assert 0 < result["quarantined"] < result["rows"]
    assert result["peak_gib_50m"] < 2
    assert result["rules_mrows_s"] > result["pandera_pandas_mrows_s"]


def test_rules_by_hand_break_where_the_contract_does():
    row = pl.int_range(pl.len())
    frame = orders(3_000, 1).with_columns(
        pl.when(row % 97 == 0)
        .then(None)
        .when(row % 89 == 0)
        .then("a rather long and odd value, " + pl.all())
        .when(row % 83 == 0)
        .then(pl.lit("9999999"))
        .when(row % 79 == 0)
        .then(pl.lit("0.1"))
        .when(row % 73 == 0)
        .then(pl.lit("7"))
        .otherwise(pl.all())
        .name.keep()
    )
    ours = {rule.name: rule.broken for rule in row_rules(CONTRACT)}
    for name, broken in by_hand().items():
        wanted = frame.select(broken.fill_null(value=False).alias("x"))["x"]
        assert frame.select(ours[name].alias("x"))["x"].equals(wanted), name
        assert wanted.any(), name
