"""A profile says what columns hold, what names rows, what goes together; and fits on a page."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.cleaning.contract.model import ColumnContract, Contract, Denial, Reference
from tasks.cleaning.profile.associations import associations, correlation_ratio, cramers_v
from tasks.cleaning.profile.dependencies import DiscoveryConfig, discover
from tasks.cleaning.profile.distributions import histogram, spread_of, texts_of
from tasks.cleaning.profile.keys import candidate_keys
from tasks.cleaning.profile.table import ProfileConfig, profile
from tasks.cleaning.profile.values import read_values
from tasks.cleaning.repair.votes import MISSING, encoded, vote
from tasks.cleaning.report.profile import ProfilePage, build_profile_page
from tasks.cleaning.report.render import percent

N = 600


def texts(**columns):
    return pl.DataFrame(
        {name: [None if v is None else str(v) for v in values] for name, values in columns.items()},
        schema=dict.fromkeys(columns, pl.String),
    )


def orders(n=N, seed=1):
    rng = np.random.default_rng(seed)
    place = rng.integers(0, 12, n)
    amount = rng.lognormal(3, 1, n).round(2)
    return texts(
        id=np.arange(n),
        day=[f"2026-{1 + i % 12:02d}-{1 + i % 28:02d}" for i in range(n)],
        zip=[f"0{7000 + p}" for p in place],
        city=[f"Town {p % 7}" for p in place],
        amount=amount,
        fee=(amount * 0.03).round(3),
        weight=[f"{w:.1f} kg" if i % 2 else f"{w:.1f}" for i, w in enumerate(rng.normal(9, 2, n))],
        paid=rng.choice(["yes", "no"], n),
        gap=[None if u < 0.25 else "N/A" if u < 0.5 else "7" for u in rng.random(n)],
        nothing=[None] * n,
    )


def page(frame, **more):
    made = profile(frame, "orders.csv", **more)
    shown = ProfilePage(made, datetime(2026, 11, 27, tzinfo=UTC), frame.height, {})
    return made, build_profile_page(shown)


def test_kinds_gaps_and_units_are_read():
    columns = {one.name: one for one in profile(orders(), "x").columns}
    kinds = {name: one.kind for name, one in columns.items()}
    assert kinds == {
        "id": "integer", "day": "date", "zip": "text", "city": "text", "amount": "decimal",
        "fee": "decimal", "weight": "decimal", "paid": "boolean", "gap": "integer",
        "nothing": "text",
    }  # fmt: skip
    assert columns["weight"].spread.quantiles[0.5] == pytest.approx(9, abs=0.5)
    assert 0.4 < columns["gap"].missing / N < 0.6
    assert columns["gap"].codes == ("N/A",)
    assert (columns["nothing"].missing, columns["nothing"].texts) == (N, None)


def test_what_goes_together():
    made = profile(orders(), "x")
    assert made.keys[0].columns == ("id",)
    assert [one.name for one in made.dependencies] == ["zip->city"]
    pairs = {(one.left, one.right): one for one in made.associations}
    assert pairs["amount", "fee"].value > 0.99
    assert pairs["zip", "city"].measure == "cramers_v"
    assert pairs["zip", "city"].value > 0.95


def test_moments_are_told_from_texts():
    stamp = pl.Series("t", [f"2026-01-{1 + i % 28:02d} 10:0{i % 10}:00" for i in range(50)])
    read = read_values(stamp)
    assert read.kind == "datetime"
    assert read.numbers[0] == pytest.approx(20454 + 10 / 24)


def test_a_unit_that_stands_everywhere_is_read():
    read = read_values(pl.Series("w", ["5 kg", "7.5 kg", "6 kg"] * 9))
    assert (read.kind, read.line.unit, read.numbers.max()) == ("decimal", "kg", 7.5)


def test_a_contract_names_kinds_and_counts_broken_rules():
    columns = {
        "a": ColumnContract(kind="integer", maximum=5),
        "b": ColumnContract(kind="integer"),
    }
    contract = Contract(name="c", columns=columns, denials=(Denial("same", "a = b"),))
    made = profile(texts(a=[1, 7, "x", 9], b=[1, 2, 3, 9]), "x", contract)
    assert made.columns[0].broken == {"kind:a": 1, "maximum:a": 2}
    assert made.columns[0].unreadable == 1
    assert made.broken == {"denial:same": 2}
    # A profile has no other tables: what they tell is left out.
    referring = replace(contract, references=(Reference(("b",), "others.csv", ("id",)),))
    assert profile(texts(a=[1, 7, "x", 9], b=[1, 2, 3, 9]), "x", referring).broken == made.broken


def test_outliers_count_in_the_table_though_a_part_is_looked_at():
    amounts = np.random.default_rng(3).normal(50, 5, 4_000).round(1)
    amounts[2_400] = 99_999.0
    found = profile(texts(x=amounts), "x", config=ProfileConfig(part_rows=1_000))
    assert found.outliers["row"].to_list() == [2_400]
    assert "one row of 4" in found.notes[0]


@pytest.mark.parametrize("frame", [
    texts(a=[]), texts(a=[1]), texts(a=[None, None]), texts(a=["x"] * 40), texts(a=["", " "]),
    texts(a=["1e308", "-1e308", "1e308"] * 20), texts(a=["5"] * 30 + ["nan", "inf"]),
    texts(**{"a|b\n<i>": ["<script>alert(1)</script>"] * 3}), pl.DataFrame({"a": ["x", "y\ud7ff"]}),
])  # fmt: skip
def test_odd_tables_have_a_profile_and_a_page(frame):
    made, html = page(frame)
    json.dumps(made.as_record(), allow_nan=False)
    assert "<script" not in html
    assert "<i>" not in html


@pytest.mark.long
def test_the_page_is_capped_whatever_the_table():
    wide = pl.DataFrame({f"column {i}": ["x" * 5_000, "y", "<b>"] for i in range(1_150)})
    _, html = page(wide)
    assert len(html) < 1_000_000
    assert "30 more columns in <code>profile.json</code>" in html
    assert "x" * 100 not in html


def test_the_page_is_capped_whatever_the_profile():
    made = profile(pl.DataFrame({f"column {i}": ["x" * 5_000, "y", "<b>"] for i in range(5)}), "x")
    wide = replace(made, columns=made.columns * 230)
    html = build_profile_page(ProfilePage(wide, datetime(2026, 11, 27, tzinfo=UTC), 3, {}))
    assert len(html) < 1_000_000
    assert "30 more columns in <code>profile.json</code>" in html
    assert "x" * 100 not in html


def test_the_page_loads_nothing_from_anywhere():
    _, html = page(orders())
    assert "default-src &#39;none&#39;" in html or "default-src 'none'" in html
    for word in ("http://", "https://", "<script", "<img", "@import", "url(", "style="):
        assert word not in html
    assert html.count('class="histogram"') == 6
    assert "1e+02" not in html
    assert percent(1.0) == "100 %"


@given(st.lists(st.floats(-1e300, 1e300), min_size=1, max_size=200))
def test_a_histogram_counts_every_value_once(values):
    found = histogram(np.array(values))
    assert sum(found.counts) + found.below + found.above == len(values)
    assert list(found.edges) == sorted(found.edges)
    if not found.exact:
        assert len(found.edges) == len(found.counts) + 1


def test_a_wild_value_does_not_flatten_a_histogram():
    values = np.append(np.random.default_rng(0).normal(0, 1, 1_000), 1e9)
    found = histogram(values)
    assert found.above >= 1
    assert found.edges[-1] < 10
    assert spread_of(values).quantiles[1.0] == 1e9


def test_texts_have_shapes_and_lengths():
    found = texts_of(pl.Series(["AB-12", "CD-345", "x", "AB-12"]))
    assert found.top[0] == ("AB-12", 2)
    assert found.patterns[0] == ("A-9", 3)
    assert (found.shortest, found.median, found.longest) == (1, 5, 6)


def test_pairs_that_name_rows_are_found_and_others_not():
    frame = texts(shop=[i // 30 for i in range(N)], till=[i % 30 for i in range(N)], c=["x"] * N)
    codes = {name: encoded(frame[name])[0] for name in frame.columns}
    assert [key.columns for key in candidate_keys(codes)] == [("shop", "till")]
    assert candidate_keys({"c": codes["c"], "till": codes["till"]}) == []


def slow_support(group, value, config):
    """The same, from the votes of every row."""
    votes = vote(group, value)
    decided = votes.decides() & (value != MISSING)
    if not decided.any() or decided.mean() < config.coverage:
        return None
    follow = float((votes.value == value)[decided].mean())
    guess = float(np.bincount(value[decided]).max() / decided.sum())
    if follow < config.follow or len(np.unique(votes.value[decided])) < 2 or guess == 1.0:
        return None
    return follow if (follow - guess) / (1 - guess) >= config.gain else None


@given(
    st.lists(st.tuples(st.integers(-1, 4), st.integers(-1, 3)), min_size=3, max_size=60),
    st.floats(0, 1),
)
def test_support_equals_the_votes_row_by_row(rows, least):
    from tasks.cleaning.profile.dependencies import support

    group, value = (np.array(side, np.int64) for side in zip(*rows, strict=True))
    config = DiscoveryConfig(follow=least, gain=least / 2, coverage=least)
    assert support(group, value, config) == slow_support(group, value, config)


@pytest.mark.parametrize("groups", [40, 4_000])
def test_a_first_look_finds_what_the_whole_table_shows(groups):
    rng = np.random.default_rng(5)
    n = 24_000
    place = rng.integers(0, groups, n)
    other = np.where(rng.random(n) < 0.03, rng.integers(0, 9, n), place % 9)
    frame = texts(place=place, other=other, chance=rng.integers(0, 9, n))
    found = discover(frame, config=DiscoveryConfig(sample_rows=0))
    assert [one.name for one in found] == ["place->other"]
    assert found[0].confidence == pytest.approx(0.973, abs=0.01)


def test_cramers_v_of_chance_is_small_though_levels_are_many():
    rng = np.random.default_rng(2)
    values = [
        cramers_v(rng.integers(0, 40, 2_000), rng.integers(0, 40, 2_000))[0] for _ in range(10)
    ]
    assert max(values) < 0.05


def test_eta_of_chance_and_of_groups():
    rng = np.random.default_rng(2)
    group = rng.integers(0, 20, 1_000)
    assert correlation_ratio(group, rng.normal(size=1_000))[0] < 0.15
    assert correlation_ratio(group, group + rng.normal(0, 0.1, 1_000))[0] > 0.95


def test_associations_of_chance_are_not_told():
    told = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        numbers = {f"n{i}": rng.standard_cauchy(60) for i in range(8)}
        levels = {f"c{i}": rng.integers(0, 4, 60) for i in range(4)}
        told += bool(associations(numbers, levels))
    assert told <= 2


def test_gaps_do_not_count_in_an_association():
    rng = np.random.default_rng(0)
    x = rng.normal(size=400)
    y = np.where(rng.random(400) < 0.5, np.nan, x**3)
    (found,) = associations({"x": x, "y": y}, {})
    assert found.value == pytest.approx(1.0)
    assert found.rows == np.isfinite(y).sum()
