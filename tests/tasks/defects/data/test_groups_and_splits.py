"""Groups never straddle a split; draws are fixed, and refused where groups are too few."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.defects.data.annotation import AnnotationError
from tasks.defects.data.groups import group_ids, mixed_groups, parts_by_pattern, parts_by_table
from tasks.defects.data.splits import (
    SplitError,
    check_split,
    draw_labels,
    k_folds,
    rest_of,
    split_groups,
)


def frame_of(rows):
    return pl.DataFrame(
        [(f"{i:04}.png", *row) for i, row in enumerate(rows)],
        schema={"name": pl.String, "group": pl.Int64, "label": pl.String, "kind": pl.String},
        orient="row",
    )


def tiles():
    """Parts of one to six images each: 60 good ones, 12 of each of two types, 3 of a rare one."""
    rng = np.random.default_rng(0)
    parts = [("ok", "")] * 60 + [("ng", "crack")] * 12 + [("ng", "pit")] * 12 + [("ng", "fray")] * 3
    return frame_of([(g, *part) for g, part in enumerate(parts) for _ in range(rng.integers(1, 7))])


def test_parts_and_likeness_are_united():
    assert group_ids(["a", "", "a", "b", "", ""], {4: 3, 2: 1}) == [0, 0, 0, 1, 1, 2]
    assert group_ids([], {}) == []
    assert mixed_groups([0, 0, 1, 1, 2], ["ok", "ng", "ok", None, "ng"]) == [0]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_groups_are_the_connected_ones(data):
    n = data.draw(st.integers(1, 12))
    parts = data.draw(st.lists(st.sampled_from(["", "a", "b", "c"]), min_size=n, max_size=n))
    place = st.integers(0, n - 1)
    alike = data.draw(st.dictionaries(place, place, max_size=6))
    near = np.eye(n, dtype=bool)
    for i in range(n):
        for j in range(n):
            near[i, j] |= bool(parts[i]) and parts[i] == parts[j]
            near[i, j] |= alike.get(i) == j or alike.get(j) == i
    reach = np.linalg.matrix_power(near.astype(np.int64), n) > 0
    ids = np.array(group_ids(parts, alike))
    assert np.array_equal(ids[:, None] == ids[None], reach)


def test_parts_by_pattern_and_by_table():
    names = ["A/exp1_num_7.jpg", "A/exp2_num_7.jpg", "B/other.jpg"]
    assert parts_by_pattern(names, r"num_(\d+)") == dict.fromkeys(names[:2], "7")
    assert parts_by_pattern(names, r"exp(\d)_num_(\d+)")["A/exp2_num_7.jpg"] == "2/7"
    assert parts_by_pattern(names, r"exp\d_num_(?P<part>\d+)")["A/exp2_num_7.jpg"] == "7"
    with pytest.raises(ValueError, match="no regular expression"):
        parts_by_pattern(names, "(")
    table = b"class,file,tile_group\nA,exp1_num_7.jpg,3\nA,A/exp2_num_7.jpg,3\nC,gone.jpg,1\n"
    assert parts_by_table(table, "g.csv", names) == (dict.fromkeys(names[:2], "3"), ["gone.jpg"])
    for text, message in {
        "file\na": "column named one of part", "part\n1": "column named one of image",
        "file,part\nB/other.jpg,1\nother.jpg,2": "g.csv:3: 'other.jpg' has two parts",
    }.items():  # fmt: skip
        with pytest.raises(AnnotationError, match=message):
            parts_by_table(text.encode(), "g.csv", names)
    with pytest.raises(AnnotationError, match="give the whole path"):
        parts_by_table(b"file,part\na.png,1", "g.csv", ["x/a.png", "y/a.png"])


@pytest.mark.parametrize("seed", range(10))
def test_splits_keep_groups_together_and_types_in_proportion(seed):
    frame = tiles()
    split = split_groups(frame, {"train": 0.6, "test": 0.4}, seed)
    check_split(frame, split)
    assert split["name"].to_list() == frame["name"].to_list()
    joined = frame.join(split, on="name")
    for (label, kind), rows in joined.group_by("label", "kind"):
        share = (rows["split"] == "train").mean()
        # A group of six is the finest step there is; the rare type has three groups.
        assert abs(share - 0.6) <= 6 / rows.height, (label, kind)
        assert rows["split"].n_unique() == 2
    shuffled = frame.sample(fraction=1.0, shuffle=True, seed=3)
    assert split_groups(shuffled, {"train": 0.6, "test": 0.4}, seed).equals(split)


def test_other_seeds_give_other_splits():
    frame = tiles()
    splits = [tuple(split_groups(frame, {"a": 0.5, "b": 0.5}, s)["split"]) for s in range(10)]
    assert len(set(splits)) == 10


def test_folds_hold_every_group_once():
    frame = tiles()
    folds = k_folds(frame, 5, 1)
    check_split(frame, folds)
    assert set(folds["split"]) == set("01234")
    sizes = folds.group_by("split").len()["len"]
    assert sizes.max() - sizes.min() <= 12


rows = st.lists(
    st.tuples(
        st.integers(0, 9),
        st.sampled_from([(None, ""), ("ok", ""), ("ng", "a"), ("ng", "b"), ("ng", "")]),
    ),
    min_size=3,
    max_size=40,
)


@settings(max_examples=80, deadline=None)
@given(rows=rows, seed=st.integers(0, 9), share=st.floats(0.1, 0.9))
def test_any_split_is_whole_and_leaks_nothing(rows, seed, share):
    frame = frame_of([(g, label, kind) for g, (label, kind) in rows])
    shares = {"train": share, "test": 1 - share}
    if frame["group"].n_unique() < 2:
        with pytest.raises(SplitError, match="1 groups for 2 parts"):
            split_groups(frame, shares, seed)
        return
    split = split_groups(frame, shares, seed)
    check_split(frame, split)
    assert sorted(split["name"]) == sorted(frame["name"])


@settings(max_examples=80, deadline=None)
@given(rows=rows, seed=st.integers(0, 9), per_kind=st.integers(0, 2), ok=st.integers(0, 3))
def test_draws_are_one_of_a_group_and_of_the_wanted_types(rows, seed, per_kind, ok):
    frame = frame_of([(g, label, kind) for g, (label, kind) in rows])
    try:
        names = draw_labels(frame, per_kind, ok, 1, seed)
    except SplitError as error:
        assert "groups are left" in str(error)  # noqa: PT017 - either is right
        return
    drawn = frame.filter(pl.col("name").is_in(names))
    assert drawn["group"].n_unique() == drawn.height == len(names)
    assert drawn["label"].null_count() == 0
    assert (drawn["label"] == "ok").sum() == ok
    types = frame.filter(pl.col("label") == "ng")["kind"].unique()
    counts = [drawn.filter(label="ng", kind=kind).height for kind in types]
    assert min(counts, default=0) >= per_kind
    assert sum(counts) == per_kind * len(types) + 1
    rest = rest_of(frame, names)
    assert not set(rest["group"]) & set(drawn["group"])


def test_draws_are_fixed_and_refused_with_numbers():
    frame = tiles()
    first = draw_labels(frame, 2, 10, 1, 5)
    assert first == draw_labels(frame.reverse(), 2, 10, 1, 5)
    assert len(first) == 17
    assert len({tuple(draw_labels(frame, 2, 10, 1, s)) for s in range(10)}) == 10
    with pytest.raises(SplitError, match=r"type fray: 4 wanted, but only 3 groups are left"):
        draw_labels(frame, 4)
    with pytest.raises(SplitError, match="good images: 61 wanted, but only 60"):
        draw_labels(frame, 0, 61)
    with pytest.raises(SplitError, match="give 0 or more"):
        draw_labels(frame, -1)
    with pytest.raises(SplitError, match="not in the dataset"):
        rest_of(frame, ["gone.png"])


def test_leaking_and_strange_splits_are_refused():
    frame = frame_of([(0, "ok", ""), (0, "ok", ""), (1, "ng", "a")])
    whole = pl.DataFrame({"name": frame["name"], "split": ["train", "test", "test"]})
    with pytest.raises(
        SplitError, match=r"group 0 straddles: 0000.png is in train, 0001.png in test"
    ):
        check_split(frame, whole)
    with pytest.raises(SplitError, match="occurs twice"):
        check_split(frame, pl.concat([whole, whole]))
    with pytest.raises(SplitError, match=r"gone.png and 0 more"):
        check_split(frame, pl.DataFrame({"name": ["gone.png"], "split": ["a"]}))
    with pytest.raises(SplitError, match="has name and split"):
        check_split(frame, whole.rename({"split": "part"}))
    with pytest.raises(SplitError, match="1 in all"):
        split_groups(frame, {"a": 0.5})
    with pytest.raises(SplitError, match="2 or more folds"):
        k_folds(frame, 1)
    with pytest.raises(SplitError, match="lacks the columns kind"):
        split_groups(frame.drop("kind"), {"a": 1.0})
