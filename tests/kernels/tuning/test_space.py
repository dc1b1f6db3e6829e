"""The search space: its values lie inside, and wrong ones are refused with the fix."""

from __future__ import annotations

import numpy as np
import pytest

from kernels.tuning.space import Choice, Integer, Space, Uniform

SPACE = Space(
    {
        "rate": Uniform(1e-4, 1.0, log=True),
        "dropout": Uniform(0.0, 0.5),
        "width": Integer(8, 256, log=True),
        "batch": Choice((16, 32, 64)),
        "norm": Choice((False, True)),
    }
)


def test_what_is_drawn_lies_inside_and_covers_every_decade():
    generator = np.random.default_rng(0)
    drawn = [SPACE.checked(SPACE.draw(generator)) for _ in range(2_000)]
    decades = np.histogram([np.log10(p["rate"]) for p in drawn], bins=4, range=(-4, 0))[0]
    assert decades.min() > 400
    assert {p["batch"] for p in drawn} == {16, 32, 64}
    assert {p["norm"] for p in drawn} == {False, True}
    assert min(p["width"] for p in drawn) <= 9
    assert max(p["width"] for p in drawn) >= 240


def test_a_grid_has_both_ends_and_all_choices():
    grid = SPACE.grid({"rate": 5, "dropout": 2, "width": 1})
    assert len(grid) == len({tuple(p.values()) for p in grid}) == 5 * 2 * 1 * 3 * 2
    assert [p["rate"] for p in grid[::12]] == pytest.approx([1e-4, 1e-3, 1e-2, 1e-1, 1.0])
    assert {p["dropout"] for p in grid} == {0.0, 0.5}
    assert {p["width"] for p in grid} == {45}
    for parameters in grid:
        SPACE.checked(parameters)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Uniform(1.0, 1.0), "low < high"),
        (lambda: Uniform(0.0, float("inf")), "low < high"),
        (lambda: Uniform(0.0, 1.0, log=True), "low above 0"),
        (lambda: Integer(0.5, 3), "use Uniform"),
        (lambda: Choice(("one",)), "two values or more"),
        (lambda: Choice([1, 2]), "a tuple"),
        (lambda: Choice(((1,), (2,))), "name other things by a text"),
        (lambda: Space({}), "at least one"),
        (lambda: Space({"rate": (0, 1)}), "take Uniform, Integer or Choice"),
        (lambda: SPACE.checked({"rate": 0.1}), "differ in batch, dropout, norm, width"),
        (lambda: SPACE.checked(SPACE.draw(np.random.default_rng(0)) | {"rate": 2.0}), "outside"),
        (lambda: SPACE.checked(SPACE.draw(np.random.default_rng(0)) | {"batch": 8}), "none of"),
        (lambda: SPACE.checked(SPACE.draw(np.random.default_rng(0)) | {"rate": "a"}), "no number"),
    ],
)
def test_wrong_spaces_and_values_are_refused(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make()
