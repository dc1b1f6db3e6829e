"""Rows and images for measured gaps: lawful, on record, and never a twin across a split."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.cleaning.augment.image import RECIPES, augment_images, image_properties, moved_to
from tasks.cleaning.augment.tabular import MADE, AugmentConfig, AugmentError, augment_rows
from tasks.cleaning.augment.twins import (
    TwinsError,
    assert_no_twins_across,
    families,
    split_with_twins,
)
from tasks.cleaning.clean import clean
from tasks.cleaning.contract.model import (
    ColumnContract,
    Contract,
    ContractError,
    Denial,
    Dependency,
    Reference,
)
from tasks.cleaning.slices.gaps import Gap, gaps_of
from tasks.cleaning.slices.groups import Condition, slices_of
from tasks.cleaning.slices.table import Figure, slice_table
from tests.benchmarks._slice_tables import machines

C = Condition("machine", "value", "C")


def gap_of(rows, wanted, *conditions):
    return Gap(conditions or (C,), "error", rows, wanted, "error .4 against .1 of the rest")


def numbers(frame, name):
    return frame[name].cast(pl.Float64).to_numpy()


def test_made_rows_lie_between_their_parents_in_class_and_slice():
    data = machines(1_500, 0)
    inside = (data.frame["machine"] == "C").sum()
    done = augment_rows(data.frame, [gap_of(inside, 60)], data.contract, "fails")
    assert done.made.schema == pl.Schema(dict(MADE))
    assert done.frame.height == done.made.height == 60
    assert done.short == {}
    for row, parents in enumerate(done.made["made_from"].to_list()):
        mine, theirs = done.frame[row], data.frame[parents]
        assert set(theirs["machine"]) == {"C"}
        assert set(theirs["fails"]) == set(mine["fails"])
        assert mine["tool"][0] in set(theirs["tool"])
        for name, digits in (("speed", 1), ("load", 2), ("heat", 0)):
            known, value = numbers(theirs, name), numbers(mine, name)[0]
            slack = 0.51 * 10.0**-digits
            assert known.min() - slack <= value <= known.max() + slack
            assert value == round(value, digits)
    facts = done.made.row(0, named=True)
    assert facts["gap"] == "machine = C"
    assert facts["reason"].startswith("error .4")
    assert facts["recipe"] == "between-neighbours/1"
    again = augment_rows(data.frame, [gap_of(inside, 60)], data.contract, "fails")
    assert again.frame.equals(done.frame)
    other = AugmentConfig(seed=1)
    assert not augment_rows(
        data.frame, [gap_of(inside, 60)], data.contract, "fails", config=other
    ).frame.equals(done.frame)


def test_only_measured_gaps_are_filled_and_never_from_rows_that_are_judged():
    data = machines(2_000, 3)
    splits = ["train" if i % 4 else "test" for i in range(2_000)]
    error = np.where((data.frame["machine"] == "C").to_numpy(), 0.5, 0.1)
    error = (np.random.default_rng((3, 1)).random(2_000) < error).astype(float)
    slices = slices_of(data.frame, ["machine", "tool"])
    gaps = gaps_of(slice_table({"error": Figure(error)}, slices), slices)
    assert [gap.name for gap in gaps] == ["machine = C"]
    done = augment_rows(data.frame, gaps, data.contract, "fails", splits=splits)
    assert done.frame.height == gaps[0].wanted
    parents = {row for mine in done.made["made_from"] for row in mine}
    assert {splits[row] for row in parents} == {"train"}
    family = families(2_000, done.made["made_from"].to_list())
    assert_no_twins_across([*splits, *["train"] * done.frame.height], family)
    with pytest.raises(TwinsError, match="is in 'test' and its twin"):
        assert_no_twins_across([*splits, *["test"] * done.frame.height], family)
    assert augment_rows(data.frame, [], data.contract, "fails").frame.is_empty()


def stock(rows=120):
    rng = np.random.default_rng(0)
    town = rng.choice(["York", "Hull"], rows)
    low = rng.uniform(1, 50, rows)
    return pl.DataFrame(
        {
            "id": [str(i) for i in range(rows)],
            "town": town,
            "county": np.where(town == "York", "Yorkshire", "Humberside"),
            "low": [f"{v:.1f}" for v in low],
            "high": [f"{v + rng.uniform(0, 5):.1f}" for v in low],
            "note": [f"text {i}" for i in range(rows)],
            "label": rng.choice(["a", "b"], rows),
            "machine": ["C"] * (rows // 3) + ["A"] * (rows - rows // 3),
        }
    )


def stock_contract(**lines):
    frame = stock(3)
    known = {
        "id": ColumnContract(kind="integer", unique=True, nullable=False),
        "low": ColumnContract(kind="decimal", minimum=0),
        "high": ColumnContract(kind="decimal", maximum=50),
    } | lines
    return Contract(
        name="stock",
        columns={name: known.get(name, ColumnContract()) for name in frame.columns},
        dependencies=(Dependency(("town",), "county"),),
        denials=(Denial("order", "TRY_CAST(high AS DOUBLE) < TRY_CAST(low AS DOUBLE)"),),
    )


LAWFUL = clean(stock(), stock_contract(), "stock").frame


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 1_000), st.integers(1, 40))
def test_made_rows_keep_the_contract_whatever_the_draws(seed, wanted):
    contract = stock_contract()
    frame = LAWFUL
    done = augment_rows(
        frame, [gap_of(40, wanted)], contract, "label", config=AugmentConfig(seed=seed)
    )
    together = clean(pl.concat([frame, done.frame]), contract, "stock")
    assert together.counts["quarantined"] == 0
    assert together.changes.is_empty()
    assert done.frame["id"].n_unique() == done.frame.height
    assert done.frame.height + done.short.get("machine = C", 0) == wanted


def test_made_rows_meet_references():
    frame = stock()
    refers = replace(stock_contract(), references=(Reference(("machine",), "m.csv", ("name",)),))
    gaps = [gap_of(40, 5)]
    with pytest.raises(ContractError, match=r"table 'm\.csv' was not given"):
        augment_rows(frame, gaps, refers, "label", tables={})
    known, others = (pl.DataFrame({"name": names}) for names in (["C", "A", "B"], ["A"]))
    made = augment_rows(frame, gaps, refers, "label", tables={"m.csv": known})
    assert made.frame.equals(augment_rows(frame, gaps, stock_contract(), "label").frame)
    assert augment_rows(frame, gaps, refers, "label", tables={"m.csv": others}).short


def test_what_cannot_be_made_is_said():
    frame = stock()
    contract = stock_contract()
    # One row of a class has no neighbour; a slice that nobody is in makes nothing.
    alone = frame.head(1)
    assert augment_rows(alone, [gap_of(1, 5)], contract, "label").short == {"machine = C": 5}
    nowhere = gap_of(0, 4, Condition("machine", "value", "Z"))
    assert augment_rows(frame, [nowhere], contract, "label").short == {"machine = Z": 4}
    coded = stock_contract(id=ColumnContract(unique=True, nullable=False, pattern="[0-9]+"))
    with pytest.raises(AugmentError, match="'id' occurs once and nobody can make up"):
        augment_rows(frame, [gap_of(40, 5)], coded, "label")
    missing = stock_contract(id=ColumnContract(unique=True))
    made = augment_rows(frame, [gap_of(40, 5)], missing, "label").frame
    assert made["id"].null_count() == made.height > 0
    with pytest.raises(AugmentError, match="no column 'class'"):
        augment_rows(frame, [gap_of(40, 5)], contract, "class")
    with pytest.raises(AugmentError, match="as many splits"):
        augment_rows(frame, [gap_of(40, 5)], contract, "label", splits=["train"])


links = st.lists(st.lists(st.integers(0, 29), min_size=1, max_size=3), max_size=15)


@settings(deadline=None)
@given(links, st.integers(0, 100))
def test_families_share_a_split_whatever_the_parents(made_from, seed):
    family = families(30, made_from)
    for i, parents in enumerate(made_from):
        assert {family[p] for p in parents} == {family[30 + i]}
    try:
        splits = split_with_twins(family, {"train": 0.7, "test": 0.3}, seed=seed)
    except ValueError as error:
        assert "a split stays empty" in str(error)  # noqa: PT017 - one family of all rows
        assert len(set(family.tolist())) == 1
        return
    assert_no_twins_across(splits, family)
    if not made_from:
        assert splits.count("test") == 9


def test_wrong_families_and_shares_are_refused():
    with pytest.raises(ValueError, match="made row 0 comes from"):
        families(3, [[3]])
    with pytest.raises(ValueError, match="made row 0 comes from"):
        families(3, [[]])
    with pytest.raises(ValueError, match="add up to 1"):
        split_with_twins([0, 1], {"a": 0.5})
    with pytest.raises(ValueError, match="as many splits"):
        assert_no_twins_across(["a"], [0, 1])


def pictures(count=30, seed=0):
    rng = np.random.default_rng(seed)
    made = []
    for i in range(count):
        level = 40 if i < count // 5 else 140
        image = rng.normal(level, 15, (24, 32)) + 30 * (np.arange(32) > 16)
        made.append(np.clip(image, 0, 255).astype(np.uint8))
    return made


def band(column, low, high, wanted):
    return gap_of(6, wanted, Condition(column, "band", low=low, high=high))


def test_images_are_moved_into_the_band_that_was_measured():
    images = pictures()
    done = augment_images(images, [band("brightness", -np.inf, 80.0, 12)], splits=["train"] * 30)
    facts = image_properties(done.images)
    assert (facts["brightness"].cast(pl.Float64) < 80).all()
    assert set(done.made["recipe"]) == {"brightness-moved"}
    assert all(parent >= 6 for (parent,) in done.made["made_from"])
    assert len(done.images) == 12
    assert all(image.dtype == np.uint8 and image.shape == (24, 32) for image in done.images)


def test_other_slices_are_varied_by_recipes_that_the_caller_vouches_for():
    images = pictures()
    sharp = image_properties(images)["sharpness"].cast(pl.Float64)
    gap = band("sharpness", float(sharp.quantile(0.5)), np.inf, 8)
    assert augment_images(images, [gap]).short == {gap.name: 8}
    done = augment_images(images, [gap], recipes=["flip", "turn"], seed=2)
    assert len(done.images) == 8
    assert set(done.made["recipe"]) <= {"flip", "turn"}
    inside = set(np.flatnonzero((sharp >= sharp.quantile(0.5)).to_numpy()))
    assert {row for (row,) in done.made["made_from"]} <= inside


@pytest.mark.parametrize("name", sorted(RECIPES))
@pytest.mark.parametrize("shape", [(20, 20), (20, 20, 3)])
def test_recipes_keep_size_and_kind_and_change_something(name, shape):
    rng = np.random.default_rng(0)
    image = rng.integers(60, 200, shape).astype(np.uint8)
    before = image.copy()
    varied = RECIPES[name](image, np.random.default_rng(5))
    assert varied.shape == shape
    assert varied.dtype == np.uint8
    assert not np.array_equal(varied, image)
    assert np.array_equal(image, before)


def test_images_that_are_none_and_wrong_wishes_are_refused():
    images = pictures(6)
    assert (
        abs(float(image_properties([moved_to(images[0], "contrast", 5.0)])["contrast"][0]) - 5) < 1
    )
    with pytest.raises(AugmentError, match="image 0 is float64"):
        image_properties([np.zeros((8, 8))])
    with pytest.raises(AugmentError, match="no recipe 'blur'"):
        augment_images(images, [], recipes=["blur"])
    with pytest.raises(AugmentError, match="'machine' is no property"):
        augment_images(images, [gap_of(1, 1)])
    with pytest.raises(AugmentError, match="as many splits"):
        augment_images(images, [], splits=["train"])
