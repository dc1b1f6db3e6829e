"""What each image is used for: parts stay whole, and promises get the parts that they need."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.defects.data.splits import SplitError
from tasks.defects.plan import PlanConfig, plan_roles
from tasks.defects.promise.bounds import needed
from tasks.defects.promise.thresholds import Promise, TooFewPartsError


def folder(ok, ng, each=1, kinds=("crack", "pit")):
    """A dataset's frame: parts of ``each`` images, and two images without a label."""
    rows = []
    for part in range(ok + ng):
        kind = "" if part < ok else kinds[part % len(kinds)]
        rows += [(f"{part:04d}-{i}", part, "ng" if kind else "ok", kind) for i in range(each)]
    rows += [("new-1", ok + ng, None, ""), ("new-2", ok + ng + 1, None, "")]
    return pl.DataFrame(rows, schema=["name", "group", "label", "kind"], orient="row")


def parts(frame, roles):
    joined = roles.join(frame, on="name").group_by("split", "label").agg(pl.col("group").n_unique())
    return {(split, label): n for split, label, n in joined.iter_rows()}


@settings(deadline=None, max_examples=40)
@given(ok=st.integers(2, 60), ng=st.integers(0, 80), each=st.integers(1, 3), seed=st.integers(0, 9))
def test_every_labelled_image_has_one_role_and_parts_stay_whole(ok, ng, each, seed):
    frame = folder(ok, ng, each)
    roles = plan_roles(frame, config=PlanConfig(seed=seed))
    assert roles["name"].to_list() == sorted(frame.filter(pl.col("label").is_not_null())["name"])
    joined = roles.join(frame, on="name")
    assert joined.group_by("group").agg(pl.col("split").n_unique())["split"].max() == 1
    found = parts(frame, roles)
    assert found["train", "ok"] >= 1
    assert found["calibration", "ok"] >= 1
    if ng:
        assert found["train", "ng"] >= min(ng, 4)


@pytest.mark.parametrize("share", [0.05, 0.1, 0.2])
def test_a_promise_gets_its_parts_or_says_how_many_are_missing(share):
    least = needed(share, 0.95)
    promise = Promise(max_escape=share)
    frame = folder(40, least + 8)
    found = parts(frame, plan_roles(frame, promise))
    assert found["calibration", "ng"] >= least
    assert found["train", "ng"] >= 7
    with pytest.raises(TooFewPartsError, match="label 3 more, or promise less") as caught:
        plan_roles(folder(40, least + 5), promise)
    assert caught.value.missing == {"defective parts": 3}


def test_a_handful_of_defects_all_train():
    frame = folder(20, 5)
    found = parts(frame, plan_roles(frame))
    assert found["train", "ng"] == 5
    assert ("calibration", "ng") not in found
    assert found["calibration", "ok"] >= 5


def test_a_part_with_a_good_and_a_bad_image_counts_as_defective():
    frame = folder(20, 0).vstack(
        pl.DataFrame(
            [("both-1", 90, "ok", ""), ("both-2", 90, "ng", "pit")],
            schema=["name", "group", "label", "kind"],
            orient="row",
        )
    )
    roles = dict(plan_roles(frame).iter_rows())
    assert roles["both-1"] == roles["both-2"] == "train"


def test_without_good_images_there_is_no_plan():
    with pytest.raises(SplitError, match="label at least two parts as ok"):
        plan_roles(folder(0, 9))
    with pytest.raises(ValueError, match="shares above 0"):
        PlanConfig(calibration=0.7, test=0.4)
