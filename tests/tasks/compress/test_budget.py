from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.compress.budget import Budget, distance
from tasks.compress.device import DEVICES, CompressError, Device, device_named
from tasks.compress.footprint import Footprint
from tasks.compress.recipe import Recipe, recipes

WHOLE = Footprint(8.0, 16.0, 16.0, 300.0)
BOX = DEVICES["box-2gb"]
costs = st.floats(0.01, 1e4)


@pytest.mark.parametrize("name", ["mb", "smaller", "ms", "faster", "memory_mb"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_a_budget_of_nothing_is_refused(name, value):
    with pytest.raises(CompressError, match=name):
        Budget(**{name: value})


@pytest.mark.parametrize("loss", [-0.1, 1.0, float("nan")])
def test_a_loss_is_a_share(loss):
    with pytest.raises(CompressError, match="loss"):
        Budget(loss=loss)


def test_limits_are_told_with_what_was_reached():
    budget = Budget(mb=1.0, smaller=4.0, ms=5.0, faster=4.0, memory_mb=100.0)
    over = budget.excess(Footprint(2.0, 8.0, 8.0, 200.0), WHOLE, BOX)
    assert set(over) == {"mb", "ms", "faster", "memory_mb"}
    assert over["faster"] == (2.0, 4.0)


def test_the_device_limits_memory_where_nobody_asks():
    assert set(Budget().excess(Footprint(1, 1, 1, 3_000.0), WHOLE, BOX)) == {"memory_mb"}


@given(
    st.builds(Footprint, costs, costs, costs, costs),
    st.builds(Footprint, costs, costs, costs, costs),
)
def test_a_file_that_costs_no_more_is_never_further_from_the_budget(one, other):
    budget = Budget(mb=3.0, smaller=2.0, ms=4.0, faster=3.0, memory_mb=100.0)
    best = Footprint(*(min(a, b) for a, b in zip(_all(one), _all(other), strict=True)))
    near, far = (distance(budget.excess(each, WHOLE, BOX)) for each in (best, one))
    assert near <= far * (1 + 1e-9)
    assert far >= 1


def _all(found):
    return found.mb, found.ms, found.cpu_ms, found.memory_mb


def test_an_unknown_device_names_those_there_are():
    with pytest.raises(CompressError, match="box-2gb"):
        device_named("toaster")


def test_a_device_needs_a_core_and_memory():
    with pytest.raises(CompressError, match="at least 1"):
        Device(name="x", describes="", memory_mb=0, threads=1, timed_here=True, four_bits=True)


def test_recipes_name_their_methods_in_order():
    recipe = Recipe(0.4, "int8+int4")
    assert recipe.name == "pruned 40 % + int8+int4"
    assert [one.split()[0] for one in recipe.methods] == ["prune", "repair", "quantise", "weights"]
    assert Recipe().name == "float"
    with pytest.raises(CompressError, match="prune"):
        Recipe(1.0)
    with pytest.raises(CompressError, match="bits"):
        Recipe(0.0, "int3")


def test_a_phone_gets_no_weights_of_4_bits():
    can = dict.fromkeys(("float", "int8", "int8+int4", "dynamic", "prune"), "")
    found = dict(recipes(can, DEVICES["phone"]))
    assert Recipe() not in found
    assert "4 bits" in found[Recipe(0.0, "int8+int4")]
    assert not found[Recipe(0.25, "int8")]
