"""Made-up people with slips are found again, and where there are no duplicates none are made."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from tasks.cleaning.duplicates.blocking import BlockingRule
from tasks.cleaning.duplicates.comparison import Comparison
from tasks.cleaning.duplicates.linkage import Linkage, find_duplicates, find_links
from tasks.cleaning.duplicates.merge import merge_duplicates
from tasks.cleaning.quarantine import QUARANTINE_SCHEMA
from tests.benchmarks._people import PEOPLE, people
from tests.benchmarks.dedup import interval, of_groups

SOURCE = "people.csv"


def test_rows_of_one_person_are_found():
    frame, who = people(150, 3, 5)
    found = find_duplicates(frame, PEOPLE)
    reached = of_groups(found.entity, who)
    assert reached["p"] >= 0.98
    assert reached["r"] >= 0.9
    assert (found.entity[found.entity] == found.entity).all()
    assert (found.entity <= np.arange(frame.height)).all()
    model = found.pairs.model
    assert model.plausible
    true = model.prior * frame.height * (frame.height - 1) / 2
    same = who[:, None] == who[None, :]
    assert true == pytest.approx((same.sum() - frame.height) / 2, rel=0.15)
    # m of equal towns: what the pairs of one person that have both really are.
    town = frame["town"].to_numpy()
    both = np.array([[a is not None and b is not None for b in town] for a in town])
    pairs = np.triu(same & both, 1)
    equal = (town[:, None] == town[None, :])[pairs].mean()
    assert model.m[3][-1] == pytest.approx(equal, abs=0.05)
    # u of equal accounts: hardly any two people share one, so random pairs show true ones alone.
    assert model.u[4][-1] < 0.0005


def test_nothing_is_merged_where_everybody_occurs_once():
    for seed in range(5):
        frame, _ = people(200, 0, seed)
        found = find_duplicates(frame, PEOPLE)
        assert found.merged.sum() == 0


def test_people_of_one_town_are_not_one_person():
    """Town and postcode depend on each other; alone they would be the entity that is found."""
    draw = np.random.default_rng(3)
    n = 1500
    names = np.array([f"{a}{b}{c}" for a in "bdfklm" for b in "aeiou" for c in "nrstx"])
    town = draw.integers(0, 300, n)
    frame = pl.DataFrame(
        {
            "given": draw.choice(names, n),
            "family": names[draw.integers(0, len(names), n)],
            "born": [f"{d // 27 + 1900}-01-{d % 27 + 1:02}" for d in draw.integers(0, 2700, n)],
            "town": [f"town {t:03}" for t in town],
            "post": [f"{t * 7919 % 99991:05}{draw.integers(0, 9)}" for t in town],
        }
    )  # fmt: skip
    kinds = ("name", "name", "date", "exact", "text")
    linkage = Linkage(
        tuple(Comparison(name, kind) for name, kind in zip(frame.columns, kinds, strict=True))
    )
    found = find_duplicates(frame, linkage)
    assert found.merged.mean() < 0.01


def test_swapped_names_are_seen():
    frame, who = people(150, 2, 8)
    turn = np.arange(frame.height) % 3 == 0
    given, family = frame["given"].to_numpy(), frame["family"].to_numpy()
    frame = frame.with_columns(
        pl.Series("given", np.where(turn, family, given)),
        pl.Series("family", np.where(turn, given, family)),
    )
    linkage = replace(PEOPLE, comparisons=PEOPLE.comparisons[:3])
    seen = of_groups(find_duplicates(frame, linkage).entity, who)
    unseen = of_groups(find_duplicates(frame, replace(linkage, swapped=None)).entity, who)
    assert seen["f1"] > unseen["f1"] + 0.1


def test_links_are_one_to_one():
    frame, who = people(200, 1, 6)
    first = np.zeros(len(who), bool)
    first[np.unique(who, return_index=True)[1]] = True
    found = find_links(frame.filter(pl.Series(first)), frame.filter(pl.Series(~first)), PEOPLE)
    assert len(set(found.left.tolist())) == len(found.left) == len(set(found.right.tolist()))
    right = who[first][found.left] == who[~first][found.right]
    assert right.mean() >= 0.99
    assert right.sum() >= 0.95 * (~first).sum()
    assert found.promise.precision >= PEOPLE.precision


def test_a_table_is_parted_into_kept_and_quarantined_rows():
    frame, who = people(80, 2, 4)
    frame = pl.concat([frame, frame.head(5)])
    merged = merge_duplicates(frame, PEOPLE, source=SOURCE, first_row=100)
    assert merged.quarantine.schema == QUARANTINE_SCHEMA
    assert merged.kept.height + merged.quarantine.num_rows == frame.height
    assert merged.near is not None
    records = merged.quarantine.to_pylist()
    assert {its["rule"] for its in records} == {"duplicate-of"}
    assert {its["severity"] for its in records} == {"warning"}
    rows = [its["row"] - 100 for its in records]
    assert rows == sorted(rows)
    assert rows[-5:] == list(range(frame.height - 5, frame.height))
    assert all(its["detector_version"] == "exact/1" for its in records[-5:])
    equal = frame.is_duplicated().to_numpy()
    assert all(
        equal[i] for i, its in zip(rows, records, strict=True) if "exact" in its["detector_version"]
    )
    assert any(its["detector_version"] == "linkage/1" for its in records)
    assert [json.loads(its["payload"]) for its in records] == frame[rows].to_dicts()
    entity = [int(its["expected"].split()[-1]) - 100 for its in records]
    assert merged.entity[rows].tolist() == entity
    assert (merged.entity[merged.entity] == merged.entity).all()
    assert merged.kept.equals(frame.filter(pl.Series(merged.entity == np.arange(frame.height))))
    truth = np.concatenate([who, who[:5]])
    assert (truth[entity] == truth[rows]).mean() >= 0.98
    assert all(its["confidence"] == 1.0 for its in records[-5:])


def test_without_a_linkage_only_equal_rows_go():
    frame = pl.DataFrame({"a": ["x", "y", "x"]})
    merged = merge_duplicates(frame, source=SOURCE)
    assert merged.kept["a"].to_list() == ["x", "y"]
    assert merged.quarantine["expected"].to_pylist() == ["first in row 0"]


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_tiny_tables(rows):
    frame, _ = people(50, 0, 1)
    merged = merge_duplicates(frame.head(rows), PEOPLE, source=SOURCE)
    assert merged.kept.height == rows
    assert len(find_links(frame.head(rows), frame.head(0), PEOPLE).left) == 0


def test_a_wrong_linkage_is_refused():
    one = Comparison("given", "name")
    with pytest.raises(ValueError, match="each of its columns once"):
        Linkage((one, one))
    with pytest.raises(ValueError, match="promised precision"):
        Linkage((one,), precision=1.0)
    with pytest.raises(ValueError, match="swapped columns"):
        Linkage((one,), swapped=("given", "family"))
    with pytest.raises(ValueError, match="kind 'sound'"):
        Comparison("given", "sound")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"no columns \['given'\]"):
        find_duplicates(pl.DataFrame({"a": ["x"]}), Linkage((one,)))
    with pytest.raises(ValueError, match="blocking rule"):
        BlockingRule.parse("given + ")


def test_the_interval_holds_the_figure():
    frame, who = people(100, 3, 2)
    entity = find_duplicates(frame, PEOPLE).entity
    low, high = interval(entity, who, 1)
    assert low < of_groups(entity, who)["f1"] < high
    assert interval(who, who, 1) == (1.0, 1.0)
