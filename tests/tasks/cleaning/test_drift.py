"""Drift is told where it is, as large as it is, and hardly ever where it is not."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tasks.cleaning.contract.model import ColumnContract, Contract
from tasks.cleaning.profile.drift.columns import DriftConfig
from tasks.cleaning.profile.drift.statistics import (
    binned,
    compare_levels,
    compare_numbers,
    compare_shares,
    holm,
    js,
    new_levels,
    psi,
    smallest_gap,
)
from tasks.cleaning.profile.drift.table import DRIFT, drift, drift_by_segment
from tests.benchmarks import drift as benchmark


def rng(seed=0):
    return np.random.default_rng(seed)


def texts(**columns):
    return pl.DataFrame(
        {name: [None if v is None else str(v) for v in values] for name, values in columns.items()},
        schema=dict.fromkeys(columns, pl.String),
    )


def said(found, column, aspect):
    (row,) = found.findings.filter(
        (pl.col("column") == column) & (pl.col("aspect") == aspect)
    ).to_dicts()
    return row


@pytest.mark.long
def test_the_benchmark_runs_small(capsys):
    benchmark.main(["--smoke", "--json"])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["nominal"] == 0.05
    assert result["false_alarm_rate"] <= 0.25
    assert result["detect_rate"] > 0.8
    assert (result["negligible_alarms"], result["negligible_usual_alarms"]) == (0, 1)


def test_mann_whitney_and_ks_agree_with_scipy():
    a, b = rng(1).normal(size=300), rng(2).normal(0.2, 1.2, 200)
    found = compare_numbers(a, b)
    ks = stats.ks_2samp(a, b, method="asymp")
    shift = stats.mannwhitneyu(a, b).pvalue
    assert found.effect == pytest.approx(ks.statistic)
    assert found.p == pytest.approx(2 * min(shift, ks.pvalue), rel=0.1)
    tied = compare_numbers(a.round(), b.round())
    shape = stats.chi2_contingency(
        [[(x.round() == v).sum() for v in (-1, 0, 1)] for x in (a, b)]
    )  # the same order of size: levels at the ends are drawn together
    assert tied.p < 0.05
    assert shape.pvalue < 0.05


@pytest.mark.parametrize("draw", [
    lambda r, n: r.standard_cauchy(n), lambda r, n: r.poisson(1, n) + 0.0,
    lambda r, n: r.lognormal(0, 2, n) * (r.random(n) < 0.3), lambda r, n: r.integers(0, 2, n) + 0.0,
])  # fmt: skip
def test_numbers_alarm_by_chance_no_more_than_promised(draw):
    r = rng(3)
    p = np.array([compare_numbers(draw(r, 80), draw(r, 120)).p for _ in range(400)])
    assert (p <= 0.05).mean() <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 400)


@pytest.mark.parametrize("levels", [2, 30, 1_000])
def test_levels_alarm_by_chance_no_more_than_promised(levels):
    r, p, new, effect = rng(4), [], [], []
    weight = 1 / np.arange(1, levels + 1)
    for _ in range(300):
        a, b = (r.multinomial(n, weight / weight.sum()) for n in (300, 200))
        seen = a + b > 0
        found = compare_levels(a[seen], b[seen])
        p.append(found.p)
        effect.append(found.effect)
        new.append(new_levels(a[seen], b[seen]).p)
    limit = 0.05 + 3 * np.sqrt(0.05 * 0.95 / 300)
    assert (np.array(p) <= 0.05).mean() <= limit
    assert (np.array(new) <= 0.05).mean() <= limit


def test_a_new_level_and_many_new_ones_are_seen():
    a = np.array([500, 300, 200, 0])
    assert new_levels(a, np.array([480, 300, 150, 70])).p < 1e-6
    assert new_levels(np.r_[a[:3], np.zeros(40, int)], np.r_[a[:3], np.ones(40, int)]).p < 0.01
    # In a column where every value is new as a rule, it means nothing.
    fresh = np.eye(2, dtype=int).repeat(300, axis=1)
    assert new_levels(fresh[0], fresh[1]).p > 0.4


def test_shares():
    assert compare_shares(0, 100, 0, 50).possible is False
    assert compare_shares(1, 100, 2, 100).test == "Fisher"
    assert compare_shares(50, 1_000, 120, 1_000).p < 1e-6
    assert compare_shares(50, 1_000, 120, 1_000).effect == pytest.approx(0.07)


@given(st.lists(st.integers(0, 50), min_size=2, max_size=20).filter(sum))
def test_distances_of_equal_counts_are_zero(counts):
    a = np.array(counts)
    assert psi(a, a) == pytest.approx(0)
    assert js(a, a) == pytest.approx(0)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_holm_never_lowers_and_keeps_the_order(values):
    p = np.array(values)
    corrected = holm(p)
    assert (corrected >= p).all()
    assert (np.diff(corrected[np.argsort(p, kind="stable")]) >= 0).all()


@given(
    st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=80),
    st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=80),
)
def test_bins_hold_every_number(reference, current):
    a, b = binned(np.array(reference), np.array(current))
    assert (a.sum(), b.sum()) == (len(reference), len(current))
    assert 0 <= js(a, b) <= 1


def test_a_shift_is_found_and_named():
    reference = texts(x=rng(1).normal(10, 2, 900).round(2), y=rng(2).normal(0, 1, 900).round(2))
    current = texts(x=rng(3).normal(11, 2, 700).round(2), y=rng(4).normal(0, 1, 700).round(2))
    found = drift(reference, current)
    assert found.verdict == "drifted"
    assert dict(found.columns) == {"x": "drifted", "y": "stable"}
    row = said(found, "x", "values")
    assert row["effect"] > 0.15
    assert row["reference"].startswith("median 9.9")
    assert found.findings.schema == dict(DRIFT)
    assert 0 < found.visible < 0.15
    json.dumps(found.as_record(), allow_nan=False)


def test_a_large_table_does_not_alarm_by_p_value_alone():
    n = 200_000
    reference = texts(x=rng(1).normal(0, 1, n).round(3))
    found = drift(reference, texts(x=rng(2).normal(0.05, 1, n).round(3)))
    assert said(found, "x", "values")["p_corrected"] < 1e-6
    assert found.verdict == "slight"


@pytest.mark.parametrize(("reference", "current", "column", "table"), [
    ([None] * 50, [None] * 50, "stable", "stable"),  # a share of 1 on both sides
    ([None] * 50, ["a"] * 50, "drifted", "drifted"),
    (["a"] * 50, [None] * 50, "drifted", "drifted"),
    (["a"] * 50, ["a"] * 70, "stable", "stable"),
    (["a"] * 50, ["b"] * 50, "drifted", "drifted"),
    ([5] * 50, [5] * 50, "stable", "stable"),
    ([5] * 50, [6] * 50, "drifted", "drifted"),
    ([1.5, 2.5, 3] * 40, ["x"] * 60 + [1.5, 2.5, 3] * 20, "drifted", "drifted"),  # unreadable
    ([1, 2, 3], [1, 2, 3], "untested", "untested"),
    ([], [], "untested", "untested"),
])  # fmt: skip
def test_odd_columns(reference, current, column, table):
    found = drift(texts(c=reference), texts(c=current))
    assert (found.columns["c"], found.verdict) == (column, table)


def test_columns_on_one_side_are_drift_without_a_test():
    found = drift(texts(a=[1] * 30, b=[2] * 30), texts(a=[1] * 30, c=[2] * 30))
    assert dict(found.columns) == {"a": "stable", "c": "drifted", "b": "drifted"}
    assert said(found, "b", "column")["current"] == "gone"
    assert said(found, "c", "column")["p"] is None


def test_what_moves_by_nature_is_not_tested_and_says_so():
    days = [f"2026-01-{1 + i % 28:02d}" for i in range(300)]
    later = [f"2026-03-{1 + i % 28:02d}" for i in range(300)]
    found = drift(texts(id=range(300), day=days), texts(id=range(300, 600), day=later))
    assert found.verdict == "stable"
    assert said(found, "day", "values")["current"] == "dates move by nature"
    assert "names rows" in said(found, "id", "values")["current"]


def test_texts_that_hardly_repeat_are_compared_by_shape():
    numbers = rng(1).integers(0, 10**9, 600)
    reference = texts(c=[f"AB-{v:09d}" for v in numbers[:300]])
    same, other = ([f"{head}-{v:09d}" for v in numbers[300:]] for head in ("CD", "cd"))
    assert drift(reference, texts(c=same)).verdict == "stable"
    assert said(drift(reference, texts(c=other)), "c", "shapes")["verdict"] == "drifted"


def test_a_contract_says_what_a_column_holds():
    contract = Contract(name="c", columns={"code": ColumnContract()})
    reference, current = texts(code=[1, 2] * 50), texts(code=[2, 1] * 50)
    found = drift(reference, current, contract=contract)
    assert "unseen" in found.findings["aspect"].to_list()
    assert "unseen" not in drift(reference, current).findings["aspect"].to_list()


def test_drift_of_one_segment_is_told_there():
    def table(seed, shift):
        r = rng(seed)
        shop = r.choice(["north", "south", "tiny"], 900, p=[0.5, 0.49, 0.01])
        amount = r.normal(20, 4, 900) + shift * (shop == "south")
        return texts(shop=shop, amount=amount.round(2), id=range(900))

    found = drift_by_segment(table(1, 0), table(2, 3), "shop")
    drifted = found.filter(pl.col("verdict") == "drifted")
    assert drifted.select("segment", "column").rows() == [("south", "amount")]
    assert drifted["psi"][0] > 0.2
    assert set(found["segment"]) == {"north", "south"}
    with pytest.raises(ValueError, match="'till' is not in the reference; there are shop"):
        drift_by_segment(table(1, 0), table(2, 0), "till")


def test_segments_do_not_alarm_without_drift():
    alarms = 0
    for seed in range(40):
        r = rng(seed)
        a, b = (
            texts(s=r.integers(0, 6, 400), x=r.standard_cauchy(400).round(3), y=r.poisson(2, 400))
            for _ in range(2)
        )
        alarms += "drifted" in drift_by_segment(a, b, "s")["verdict"].to_list()
    assert alarms <= 6  # 2 expected at .05; more than 6 in one of 300 runs


def test_impossible_settings_are_told():
    with pytest.raises(ValueError, match="alpha must lie between 0 and 1"):
        DriftConfig(alpha=1.0)
    with pytest.raises(ValueError, match="gap must lie in"):
        DriftConfig(gap=2)
    with pytest.raises(ValueError, match="least_rows"):
        DriftConfig(least_rows=1)


def test_the_smallest_gap_shrinks_with_rows():
    assert smallest_gap(100, 100, 0.05) > 5 * smallest_gap(10_000, 10_000, 0.05)
    assert smallest_gap(2, 2, 1e-9) == 1.0
