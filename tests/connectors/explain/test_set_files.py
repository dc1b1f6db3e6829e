"""Records of explanations on disk: the same after reading, and refused once anything changed."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from connectors.explain.set_files import ARRAYS, CONTRACT, read_set, write_set
from tasks.explain.background import Background
from tasks.explain.engine import ExplainOptions, PlayerExplainer
from tasks.explain.errors import AdditivityError
from tasks.explain.groups import FeatureGroups
from tasks.explain.players import Players
from tasks.explain.record import (
    ExplanationSet,
    ModelName,
    RecordError,
    RowFacts,
    decision_of,
    of_players,
    of_trees,
)
from tasks.explain.tree import Explanation

NAMES = ("amount", "a/b", 'said "so"', "größe")


def score(rows):
    return rows[:, 0] * rows[:, 1] + np.tanh(rows[:, 2]) - 0.5 * rows[:, 3]


def record(n=5, seed=0, players=None, options=None, **facts):
    rng = np.random.default_rng(seed)
    background = Background(NAMES, rng.normal(size=(6, 4)).astype(np.float32))
    players = players or Players.single(NAMES)
    rows = rng.normal(size=(n, 4)).astype(np.float32)
    found = PlayerExplainer(score, background, players, options).explain(rows)
    keys = tuple(f"row {i}" for i in range(n))
    thresholds = {"review": 0.5, "block": 1.0}
    model = ModelName("stranger", "3", "ab" * 32)
    return of_players(
        found, players, rows, RowFacts(keys, **facts), model=model, thresholds=thresholds
    )


def same(one: ExplanationSet, two: ExplanationSet) -> bool:
    arrays = ("values", "errors", "scores", "decided", "data")
    return (
        one.contract == two.contract
        and one.keys == two.keys
        and all(np.array_equal(getattr(one, a), getattr(two, a), equal_nan=True) for a in arrays)
        and np.array_equal(one.times, two.times)
        and one.segments == two.segments
    )


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None,
          max_examples=15)  # fmt: skip
@given(
    n=st.integers(1, 9), seed=st.integers(0, 99), grouped=st.booleans(), timed=st.booleans(),
    segments=st.lists(st.text(max_size=5), max_size=2, unique=True),
)  # fmt: skip
def test_a_record_is_the_same_after_reading(tmp_path, n, seed, grouped, timed, segments):
    players = Players.grouped(NAMES, {"both": NAMES[1:3]}) if grouped else None
    facts = {"segments": {s: tuple(f"{s}{i % 2}" for i in range(n)) for s in segments}}
    if timed:
        facts["times"] = np.arange(n) * 86_400_000
    made = record(n, seed, players, **facts)
    digest = write_set(tmp_path / "set", made)
    assert same(read_set(tmp_path / "set", expected=digest), made)


def test_a_draw_keeps_its_errors_seed_and_ties(tmp_path):
    made = record(4, 1, options=ExplainOptions(method="sampled", evaluations=4_000, seed=9))
    write_set(tmp_path, made)
    found = read_set(tmp_path)
    assert found.contract.seed == 9
    assert found.contract.method == "sampled"
    assert np.array_equal(found.ties, made.ties)


def test_groups_of_trees_are_summed_with_the_spread_of_the_models():
    names = ("amount", "card.n_1d", "card.n_7d", "card.risk_7d", "card.known_7d")
    rng = np.random.default_rng(0)
    per_model = rng.normal(size=(3, 4, 5))
    base = np.array([0.1, 0.2, 0.3])
    raw = per_model.sum(axis=2).mean(axis=0) + 0.2
    found = Explanation(names, per_model, base, raw, 0.0, "interventional", "cd" * 32)
    made = of_trees(
        found, FeatureGroups.of(names, ["card"]), np.ones((4, 5)),
        RowFacts(tuple("abcd"), decided=np.full(4, 0.5)), model=ModelName("trees"),
    )  # fmt: skip
    labels = made.contract.players.names.index("card/labels")
    by_model = per_model[:, :, 3:].sum(axis=2)
    assert np.allclose(made.values[:, labels], by_model.mean(axis=0))
    assert np.allclose(made.errors[:, labels], by_model.std(axis=0, ddof=1) / np.sqrt(3))
    assert made.contract.background_sha256 == "cd" * 32
    assert np.isnan(made.shown_data()[:, labels]).all()
    assert (made.shown_data()[:, 0] == 1).all()


def test_shap_takes_what_was_read(tmp_path):
    made = record(5)
    write_set(tmp_path, made)
    found = read_set(tmp_path).to_shap()
    assert np.allclose(found.base_values + found.values.sum(axis=1), made.scores)
    assert list(found.feature_names) == list(NAMES)


def test_decisions_are_the_gravest_reached():
    made = record(5)
    for place in range(5):
        at = made.decided[place]
        assert made.decision(place) == ("block" if at >= 1 else "review" if at >= 0.5 else "")


def test_of_decisions_with_one_threshold_the_graver_is_made():
    assert decision_of({"review": 0.5, "block": 0.5}, 0.6) == "block"
    assert decision_of({"block": 0.5, "review": 0.5, "approve": 0.5}, 0.5) == "block"
    assert decision_of({"review": 0.5, "block": 0.9}, 0.6) == "review"
    assert decision_of({"review": 0.5}, 0.4) == ""


def test_a_key_that_occurs_twice_is_found_at_once_among_many():
    """Counting each key anew took ten seconds for 20,000 of them."""
    one, n = record(1), 20_000
    arrays = {name: np.repeat(getattr(one, name), n, axis=0)
              for name in ("values", "errors", "scores", "decided", "data")}  # fmt: skip
    keys = (*map(str, range(n - 1)), str(n - 2))
    began = time.perf_counter()
    with pytest.raises(RecordError, match="key '19998' occurs 2 times"):
        replace(one, keys=keys, **arrays)
    assert time.perf_counter() - began < 2


def test_changed_arrays_are_refused(tmp_path):
    write_set(tmp_path, record())
    content = bytearray((tmp_path / ARRAYS).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / ARRAYS).write_bytes(content)
    with pytest.raises(RecordError, match="does not match its contract"):
        read_set(tmp_path)


def test_another_record_than_expected_is_refused(tmp_path):
    write_set(tmp_path, record())
    with pytest.raises(RecordError, match="is not the record"):
        read_set(tmp_path, expected="0" * 64)


def edited(folder, change):
    data = json.loads((folder / CONTRACT).read_text())
    change(data)
    (folder / CONTRACT).write_text(json.dumps(data))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d.update(format=2), "no record of format 1"),
        (lambda d: d["contract"].update(base=7.0), "misses its score"),
        (lambda d: d["contract"].pop("labels"), "holds no whole record"),
        (lambda d: d["contract"].update(own=1), "holds no whole record"),
        (lambda d: d["contract"]["players"].update(names=["x"] * 4), "occurs twice"),
        (lambda d: d.update(rows=4), "restore both files"),
        (lambda d: d.update(segments=["x"]), "restore both files"),
        (lambda d: d.pop("arrays_sha256"), "holds no whole record"),
    ],
)
def test_an_edited_contract_is_refused(tmp_path, change, says):
    write_set(tmp_path, record())
    edited(tmp_path, change)
    with pytest.raises(RecordError, match=says):
        read_set(tmp_path)


def test_values_changed_with_a_fresh_digest_no_longer_add_up(tmp_path):
    """Whoever rewrites both files is still found out by the sum."""
    from connectors.files import digest

    write_set(tmp_path, record())
    table = parquet.read_table(tmp_path / ARRAYS)
    column = table.column_names.index("value/amount")
    doubled = table.column(column).to_numpy() * 2
    import pyarrow as pa

    changed = table.set_column(column, "value/amount", pa.array(doubled))
    parquet.write_table(changed, tmp_path / ARRAYS)
    edited(tmp_path, lambda d: d.update(arrays_sha256=digest(tmp_path / ARRAYS)))
    with pytest.raises(RecordError, match="misses its score"):
        read_set(tmp_path)


def test_a_half_written_or_foreign_folder_is_refused(tmp_path):
    with pytest.raises(RecordError, match=r"holds no explanation\.json"):
        read_set(tmp_path)
    (tmp_path / CONTRACT).write_text("[1]")
    with pytest.raises(RecordError, match="no record of format"):
        read_set(tmp_path)
    (tmp_path / CONTRACT).write_text("{")
    with pytest.raises(RecordError, match="holds no whole record"):
        read_set(tmp_path)
    (tmp_path / CONTRACT).write_bytes(b" " * (2**24 + 1))
    with pytest.raises(RecordError, match="it is no contract"):
        read_set(tmp_path)


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"keys": ("x",) * 5}, RecordError, "key 'x' occurs 5 times"),
        ({"scores": np.zeros(5)}, AdditivityError, "misses its score"),
        ({"errors": np.full((5, 4), -1.0)}, RecordError, "negative"),
        ({"decided": np.full(5, np.nan)}, RecordError, "not all finite"),
        ({"values": np.zeros((4, 4))}, RecordError, "have shape"),
        ({"segments": {"s": ("a",)}}, RecordError, "one entry"),
    ],
)
def test_a_record_that_contradicts_itself_is_refused(change, error, says):
    with pytest.raises(error, match=says):
        replace(record(), **change)


def test_taking_rows_keeps_them_whole():
    made = record(6, times=np.arange(6), segments={"s": tuple("aabbcc")})
    part = made.take([4, 1])
    assert part.keys == ("row 4", "row 1")
    assert part.segments["s"] == ("c", "a")
    assert np.array_equal(part.values, made.values[[4, 1]])
    assert part.times.tolist() == [4, 1]
