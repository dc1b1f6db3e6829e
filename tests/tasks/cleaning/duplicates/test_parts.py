"""Equal rows, comparisons, blocking, thresholds and clusters, each on what it must get right."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from tasks.cleaning.duplicates.blocking import BlockingRule, block, candidates
from tasks.cleaning.duplicates.clusters import average_linkage, components, one_to_one
from tasks.cleaning.duplicates.comparison import Comparison, cleaned, compare
from tasks.cleaning.duplicates.exact import first_equal_rows
from tasks.cleaning.duplicates.infer import infer_comparisons
from tasks.cleaning.duplicates.threshold import promised, promised_by_labels


def test_equal_rows_point_to_the_first():
    frame = pl.DataFrame({"a": ["x", None, "x", None, "y"], "b": ["1", "2", "1", "2", "1"]})
    assert first_equal_rows(frame).tolist() == [0, 1, 0, 1, 4]
    assert first_equal_rows(frame, ["b"]).tolist() == [0, 1, 0, 1, 0]
    with pytest.raises(ValueError, match="no columns"):
        first_equal_rows(frame, ["c"])


@pytest.mark.parametrize(
    ("kind", "left", "right", "level"),
    [
        ("name", "martha", "martha", 4),
        ("name", "martha", "marhta", 3),  # Jaro-Winkler .961
        ("name", "dixon", "dicksonx", 1),  # .813
        ("name", "anna", "zoe", 0),
        ("text", "light street", "light setreet", 3),
        ("text", "abcdefgh", "abcdxxgh", 2),
        ("date", "1971-06-24", "19710624", 3),
        ("date", "1971-06-05", "1971-05-06", 3),  # day and month swapped
        ("date", "1971-06-24", "1971-06-14", 3),
        ("date", "1971-06-24", "1981-06-14", 2),
        ("date", "1971-06-24", "1971-11-03", 1),
        ("date", "1971-06-24", "2004-11-03", 0),
        ("number", "100", "100.0", 3),
        ("number", "100", "100.5", 2),
        ("number", "100", "-100", 0),
        ("number", "100", "many", 0),
        ("exact", "nsw", "vic", 0),
    ],
)
def test_levels(kind, left, right, level):
    codes = [np.array([0, 1]), np.array([0 if left == right else 1, -1])]
    assert compare(Comparison("c", kind), [left, right], *codes).tolist() == [level, -1]


def test_levels_are_the_same_both_ways():
    values = ["robert", "rob", "robret", "1971-05-24", "1971-24-05", "7.0"]
    a, b = (x.ravel() for x in np.meshgrid(np.arange(6), np.arange(6)))
    for kind in ("exact", "name", "text", "date", "number"):
        its = Comparison("c", kind)
        assert (compare(its, values, a, b) == compare(its, values, b, a)).all()


def test_cleaned_texts():
    frame = pl.DataFrame({"a": [" New  York", "", None, "\t "], "b": [1, 2, 3, 4]})
    assert cleaned(frame, ["a"])["a"].to_list() == ["new york", None, None, None]


def test_blocking_names_each_pair_once_and_skips_what_is_too_common():
    frame = pl.DataFrame(
        {
            "name": ["anna", "anna", "annb", None, None],
            "town": ["x", "x", "x", "x", "x"],
            "born": ["1", "1", "2", "2", "2"],
        }
    )
    rules = [BlockingRule.parse(text) for text in ("town", "name", "name[:3] + town", "born")]
    found = block(frame, None, rules, pairs_per_row=1.0)
    assert found.skipped == {"town": 10}
    assert found.used == {"name": 1, "name[:3] + town": 3, "born": 4}
    # Two missing names do not agree; (3, 4) comes from born alone.
    assert sorted(zip(found.left.tolist(), found.right.tolist(), strict=True)) == [
        (0, 1), (0, 2), (1, 2), (2, 3), (2, 4), (3, 4),
    ]  # fmt: skip
    with pytest.raises(ValueError, match="every blocking rule"):
        block(frame, None, rules[:1], pairs_per_row=1.0)


def test_blocking_between_tables():
    left, right = pl.DataFrame({"k": ["a", "b", "b"]}), pl.DataFrame({"k": ["b", "c", "a"]})
    found = block(left, right, candidates(["k"]), pairs_per_row=1.0)
    assert list(zip(found.left.tolist(), found.right.tolist(), strict=True)) == [
        (0, 2), (1, 0), (2, 0),
    ]  # fmt: skip


def test_a_promise_by_the_models_own_odds():
    chance = np.array([0.99, 0.9, 0.9, 0.6, 0.3])
    odds = np.log(chance / (1 - chance))
    half = promised(odds, 0.5)
    assert half.links == 4  # never what is more likely false, whatever the mean
    assert half.log_odds == pytest.approx(odds[3])
    assert half.precision == pytest.approx(chance[:4].mean())
    # .92 holds for two of the three at .99 and .9, but of equal odds all or none are linked.
    assert promised(odds, 0.935).links == 1
    assert promised(odds, 0.999).links == 0
    assert np.isinf(promised(odds, 0.999).log_odds)


def test_a_promise_by_labels_is_kept():
    draw = np.random.default_rng(3)
    broken = 0
    for _ in range(100):
        odds = draw.normal(0, 3, 400)
        chance = 1 / (1 + np.exp(-odds / 3))  # a model three times too sure of itself
        promise = promised_by_labels(odds, draw.random(400) < chance, 0.8)
        if promise.links:
            grid = np.linspace(promise.log_odds, promise.log_odds + 12, 4000)
            weight = np.exp(-(grid**2) / 18)
            broken += float((weight / (1 + np.exp(-grid / 3))).sum() / weight.sum()) < 0.8
    assert broken <= 5  # 5 % of 100
    assert promised_by_labels(np.array([9.0]), np.array([True]), 0.8).links == 0


def test_one_wrong_pair_does_not_join_two_groups():
    rows = np.arange(8)
    same = (rows[:, None] < 4) == (rows[None, :] < 4)
    table = np.where(same, 6.0, -6.0)
    table[3, 4] = table[4, 3] = 6.0
    left, right = (x.astype(np.int64) for x in np.nonzero(np.triu(table > 0, 1)))
    assert set(components(8, left, right)) == {0}
    found = average_linkage(
        8, left, right, table[left, right], lambda a, b: table[a, b],
        threshold=0.0, clip=10.0, max_size=100,
    )  # fmt: skip
    assert found.tolist() == [0] * 4 + [4] * 4


def test_large_components_are_parted_first():
    n = 60
    left = np.arange(n - 1)
    odds = np.where(left % 10 == 9, 1.0, 8.0)  # a chain of six tens
    largest = 0

    def score(a, b):
        nonlocal largest
        largest = max(largest, len(a))
        return np.where(a // 10 == b // 10, 8.0, -8.0)

    found = average_linkage(n, left, left + 1, odds, score, threshold=0.0, clip=10.0, max_size=20)
    assert found.tolist() == [row // 10 * 10 for row in range(n)]
    assert largest <= n * 20


def test_one_to_one_takes_the_surest():
    left, right = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
    assert one_to_one(left, right, np.array([5.0, 9.0, 8.0, 7.0])).tolist() == [
        False,
        True,
        True,
        False,
    ]


def test_kinds_are_read_off_the_values():
    n = 40
    frame = pl.DataFrame(
        {
            "id": [f"r{i}" for i in range(n)],
            "one": ["same"] * n,
            "born": [f"19{i % 30 + 50}-02-11" for i in range(n)],
            "weight": [f"{i % 30}.5" for i in range(n)],
            "state": ["nsw", "vic"] * (n // 2),
            "name": ["ab" + "cdefghijklmnopqrstuvwxyz"[i % 24] for i in range(n)],
            "street": [f"{i % 30} Long Street, Some Town" for i in range(n)],
        }
    )
    found = {its.column: its.kind for its in infer_comparisons(frame)}
    assert found == {
        "born": "date", "weight": "number", "state": "exact", "name": "name", "street": "text",
    }  # fmt: skip
