"""Plans and trials on a real file: sketched, measured, quantised, judged."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from tasks.compress.budget import Budget
from tasks.compress.device import DEVICES, CompressError
from tasks.compress.footprint import Footprint, TimingConfig, footprints, peak_memory
from tasks.compress.onnx_subject import OnnxSubject, read_onnx_subject
from tasks.compress.page import compress_page
from tasks.compress.planner import BudgetError, make_plan
from tasks.compress.recipe import Recipe
from tasks.compress.record import figures_of, outcome_record, plan_record
from tasks.compress.subject import Lost, Made
from tasks.compress.trials import Trial, carry_out, front_of
from tests.tasks.compress.small_net import WIDTH, file_and_items, subject

BOX = DEVICES["box-2gb"]
QUICK = TimingConfig(rounds=2, burst=3, rest=0.0)


@pytest.fixture(scope="module")
def small():
    return subject()


@pytest.fixture(scope="module")
def planned(small):
    return make_plan(small, BOX, Budget(smaller=4.5, loss=0.2), timing=QUICK)


@pytest.fixture(scope="module")
def outcome(planned, small):
    return carry_out(planned, small, timing=QUICK)


def test_sketches_have_the_size_that_comes_of_them(planned, outcome):
    sketched = {one.recipe: one.footprint.mb for one in planned.sketches}
    for trial in outcome.trials:
        assert trial.footprint.mb == pytest.approx(sketched[trial.recipe], rel=0.35)
    assert sketched[Recipe(0.0, "int8+int4")] < sketched[Recipe(0.0, "int8")]


def test_the_plan_says_why_a_method_is_not_used(planned):
    assert "prune the torch net" in planned.ruled_out["pruned 25 % + int8"]


def test_four_bits_are_tried_where_eight_are_too_large(planned, small):
    assert [one.bits for one in planned.chosen] == ["int8+int4"]
    enough = make_plan(small, BOX, Budget(smaller=2.5, loss=0.2), timing=QUICK)
    assert [one.bits for one in enough.chosen] == ["int8"]
    assert enough.ruled_out["int8+int4"] == "8 bits are small enough"


def test_what_is_taken_keeps_every_limit(planned, outcome):
    taken = outcome.taken
    assert not planned.budget.excess(taken.footprint, outcome.whole, BOX)
    assert taken.lost.loss <= planned.budget.loss
    assert taken.lost.items == 32
    assert taken.recipe.name in {trial.recipe.name for trial in outcome.trials}


def test_no_more_goes_to_4_bits_than_the_size_asks(small):
    recipe = Recipe(0.0, "int8+int4")
    smallest, eight = small.sketch(recipe), small.sketch(Recipe(0.0, "int8"))
    limit = (len(smallest) + len(eight)) // 2
    made = small.make(recipe, lambda _: None, limit)
    assert len(smallest) < len(made.model) <= limit
    assert len(made.facts["four_bits"]["nodes"]) < 3
    with pytest.raises(CompressError, match="cannot be reached"):
        small.make(recipe, lambda _: None, 1_000)


def test_what_cannot_be_made_after_all_is_told(planned, small):
    class Failing:
        """Whose files fail when they are made."""

        def __getattr__(self, name):
            return getattr(small, name)

        def make(self, recipe, say, size=0):
            raise CompressError("a layer is missing")

    said: list[str] = []
    with pytest.raises(BudgetError, match=r"no file keeps .*: int8\+int4: a layer is missing"):
        carry_out(planned, Failing(), timing=QUICK, say=said.append)
    assert "int8+int4 cannot be made: a layer is missing" in said


def test_records_are_plain_data_and_make_a_page(planned, outcome, small):
    layers = small.layers(outcome.taken.recipe)
    plan, done = (json.loads(json.dumps(each, allow_nan=False)) for each in
                  (plan_record(planned), outcome_record(outcome, layers)))  # fmt: skip
    assert figures_of(done)["smaller"] > 3
    assert [one["weights"] for one in done["layers"]] == [64 * 256, 256 * 256, 256 * 4]
    assert all(min(one["loss_int8"], one["loss_int4"]) > 0 for one in done["layers"])
    told = done["made"]["int8+int4"]
    assert len(told["four_bits"]["nodes"]) > 0
    assert told["four_bits"]["loss"] >= min(told["losses"].values()) > 0
    page = compress_page(plan, done, layers)
    assert page.count('class="bits4"') == 3
    assert outcome.taken.recipe.name in page
    assert "32 items" in page
    assert "built-in" not in page  # a key that is a method's name, too
    assert ".dot.taken" in page.split("</style>")[0]
    assert "<svg" in page
    assert "http" not in page.split("</style>")[1].replace("http-equiv", "")


def test_a_budget_that_nothing_meets_names_the_nearest(small):
    with pytest.raises(
        BudgetError, match=r"nearest is int8\+int4 with .* times smaller.*50 is asked"
    ):
        make_plan(small, BOX, Budget(smaller=50.0), timing=QUICK)


def test_a_loss_that_nothing_keeps_names_the_nearest(small):
    class Losing:
        """The same file, judged by items that it always gets wrong."""

        def __getattr__(self, name):
            return getattr(small, name)

        def lost(self, made):
            return Lost(figure="agreement", before=1.0, after=0.5, low=0.4, high=0.6, items=32,
                        flips=16)  # fmt: skip

    plan = make_plan(Losing(), BOX, Budget(smaller=3.0), timing=QUICK, most=1)
    with pytest.raises(BudgetError, match=r"loses \+0.5000 of agreement"):
        carry_out(plan, Losing(), timing=QUICK)


def test_times_of_other_devices_are_not_promised(small):
    with pytest.raises(CompressError, match="cannot be measured on this machine"):
        make_plan(small, DEVICES["phone"], Budget(ms=5.0), timing=QUICK)


def test_the_front_holds_what_no_other_beats():
    def trial(name, mb, ms, loss):
        lost = Lost(figure="x", before=1.0, after=1 - loss, low=0, high=0, items=9, flips=0)
        recipe = Recipe(name, "int8")
        return Trial(recipe, Made(model=b""), lost, Footprint(mb, ms, ms, 1), 0.0)

    trials = [trial(0.1, 1, 3, 0.0), trial(0.2, 2, 2, 0.0), trial(0.3, 2, 3, 0.01)]
    assert front_of(trials) == {trials[0].recipe.name, trials[1].recipe.name}
    # What is gained counts as nothing lost: noise makes nobody better.
    gained = trial(0.4, 1, 3, -0.1)
    assert trials[0].recipe.name in front_of([trials[0], gained])


def test_memory_is_that_of_a_process_of_its_own(small):
    needed = peak_memory("small", small.model, small.example(), BOX)
    assert 20 < needed < 300
    tiny = replace(BOX, memory_mb=80)
    with pytest.raises(CompressError, match="does not run within the 80 MB"):
        peak_memory("small", small.model, small.example(), tiny)


def test_files_take_turns(small):
    found = footprints({"one": small.model, "other": small.model}, small.example(), BOX, QUICK)
    assert found["one"].mb == found["other"].mb == len(small.model) / 1e6


@pytest.mark.parametrize(("rounds", "burst", "rest"), [(0, 3, 0), (1, 1, 0), (1, 2, -1)])
def test_timing_needs_rounds(rounds, burst, rest):
    with pytest.raises(CompressError, match="rounds >= 1"):
        TimingConfig(rounds=rounds, burst=burst, rest=rest)


class TestWrongData:
    def test_too_few_examples(self):
        model, items = file_and_items(8)
        with pytest.raises(CompressError, match="32 or more"):
            OnnxSubject(name="small", model=model, items=items)

    def test_no_numbers(self):
        model, items = file_and_items(32)
        items[3]["rows"][0, 0] = np.nan
        with pytest.raises(CompressError, match="example 3 of rows holds NaN"):
            OnnxSubject(name="small", model=model, items=items)

    def test_another_shape(self):
        model, items = file_and_items(32)
        items = [{"rows": np.zeros((1, WIDTH + 1), np.float32)} for _ in items]
        with pytest.raises(CompressError, match="does not run on example 0"):
            OnnxSubject(name="small", model=model, items=items)

    def test_labels_of_others(self):
        model, items = file_and_items(32)
        with pytest.raises(CompressError, match="3 labels for 32"):
            OnnxSubject(name="small", model=model, items=items, labels=np.zeros(3, np.int64))

    def test_files(self, tmp_path):
        model, _ = file_and_items(32)
        path, data = tmp_path / "small.onnx", tmp_path / "items.npz"
        path.write_bytes(model)
        with pytest.raises(CompressError, match="no such file"):
            read_onnx_subject(path, data)
        data.write_bytes(b"PK no npz")
        with pytest.raises(CompressError, match="no npz"):
            read_onnx_subject(path, data)
        np.savez(data, rows=np.zeros((32, WIDTH), np.float32), labels=np.arange(32) % 4)
        assert len(read_onnx_subject(path, data).items) == 32
        np.savez(data, rows=np.zeros((32, WIDTH), np.float32), other=np.zeros((3, 1)))
        with pytest.raises(CompressError, match="of one n"):
            read_onnx_subject(path, data)
        path.write_bytes(model[: len(model) // 2])
        with pytest.raises(CompressError, match=r"small\.onnx: the file"):
            read_onnx_subject(path, data)
