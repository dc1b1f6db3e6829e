"""Imputation: intervals that cover, fills only where a declared line asks for them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from tasks.cleaning.clean import clean
from tasks.cleaning.contract.model import ColumnContract, Contract, ContractError, Denial, Reference
from tasks.cleaning.contract.toml import from_toml, to_toml
from tasks.cleaning.findings import FINDINGS
from tasks.cleaning.repair.changes import undo
from tasks.cleaning.repair.conformal import missing_odds, needed_by_group
from tasks.cleaning.repair.engine import repair
from tasks.cleaning.repair.estimate import ImputeConfig
from tasks.cleaning.repair.impute import estimates, impute
from tasks.cleaning.repair.number_texts import write_number
from tests.benchmarks import clean_slices
from tests.benchmarks._slice_tables import masked, to_fill

FEW = ImputeConfig(trees=30)
TEXTS = {"a": pl.String, "b": pl.String}


def lacking(rows=400, seed=0, how="mcar", *, uneven=False):
    """A table, its contract, the table with cells taken away, and which."""
    frame, contract = to_fill(rows, seed, uneven)
    rng = np.random.default_rng((seed, 1))
    masks = {name: masked(frame, name, how, rng, "age") for name in ("income", "kind")}
    dirty = frame.with_columns(
        pl.when(~pl.Series(mask)).then(pl.col(name)).alias(name) for name, mask in masks.items()
    )
    return frame, contract, dirty, masks


def changed(contract, **lines):
    columns = {n: replace(c, **lines.get(n, {})) for n, c in contract.columns.items()}
    return Contract(name=contract.name, columns=columns)


def test_intervals_and_sets_cover_what_they_say_and_beat_the_median():
    each = []
    for seed in range(10):
        frame, contract, _, masks = lacking(400, seed)
        got = clean_slices.impute_once(frame, contract, masks, FEW)
        each.append([got["income"], got["kind"]])
    coverage, width, error, usual = np.moveaxis(np.array(each), 2, 0)
    # The sd of ten tables' mean is about .012 here.
    assert (coverage.mean(axis=0) > 0.87).all()
    assert (coverage.mean(axis=0) < 0.96).all()
    assert width[:, 0].mean() < 0.8
    assert (error.mean(axis=0) < 0.8 * usual.mean(axis=0)).all()


def test_weights_restore_coverage_where_missing_depends_on_another_column():
    with_weights, without = [], []
    for seed in range(10):
        frame, contract, _, masks = lacking(500, seed, "mar", uneven=True)
        masks = {"income": masks["income"]}
        for config, kept in ((FEW, with_weights), (replace(FEW, weighted=False), without)):
            kept.append(clean_slices.impute_once(frame, contract, masks, config)["income"][0])
    assert np.mean(without) < 0.85
    assert np.mean(with_weights) > 0.87


def test_coverage_by_group_where_noise_differs_by_group():
    """Group d has twice the noise: all together it is covered too seldom, by itself it is not."""
    together, alone = [], []
    for seed in range(10):
        frame, contract, dirty, masks = lacking(1_200, seed)
        noisy = (frame["group"] == "d").to_numpy()
        true = frame["income"].cast(pl.Float64).to_numpy()
        contract = changed(contract, kind={"impute": ""})
        # The models do not know the group, so that only the held-out rows can.
        blind = dirty.with_columns(pl.lit("x").alias("hidden"), pl.col("group").alias("by"))
        hidden = Contract(
            name="h", columns={n: c for n, c in contract.columns.items() if n != "group"}
        )
        for by, kept in (("", together), ("by", alone)):
            found = estimates(blind, hidden, FEW, by=by)["income"]
            inside = (found.low <= true[found.rows]) & (true[found.rows] <= found.high)
            kept.append(inside[noisy[found.rows]].mean())
        assert set(found.rows) == set(np.flatnonzero(masks["income"]))
    assert np.mean(alone) > np.mean(together) + 0.02
    assert np.mean(alone) > 0.85


def test_suggestions_wait_for_a_person_and_say_what_they_rest_on():
    _, contract, dirty, masks = lacking()
    found = impute(dirty, contract, FEW)
    assert found.schema == pl.Schema(dict(FINDINGS))
    for name, mask in masks.items():
        assert found.filter(pl.col("column") == name)["row"].to_list() == list(np.flatnonzero(mask))
    assert found["observed"].null_count() == found.height
    assert found["confidence"].max() == 0.5
    premise = found.filter(pl.col("column") == "income")["premise"][0]
    assert premise.startswith("90% interval ")
    assert premise.endswith("if its being missing does not depend on the value itself")
    assert impute(dirty, contract, FEW).equals(found)
    done = repair(dirty, contract)
    assert done.changes.is_empty()
    assert done.review.height == found.height


def test_a_declared_line_fills_flagged_and_undoably():
    _, contract, dirty, masks = lacking()
    asked = changed(contract, income={"impute": "fill"}, kind={"impute": "fill"})
    done = repair(dirty, asked)
    assert done.frame["income"].null_count() == 0
    assert set(done.changes["rule"]) == {"impute"}
    assert done.changes["before"].null_count() == done.changes.height
    assert done.changes["premise"].str.contains("90% ").all()
    # Of words only what has one value left; the others wait.
    words = done.changes.filter(pl.col("column") == "kind")
    assert 0 < words.height < masks["kind"].sum()
    assert (words["premise"].str.extract("set ([^,]*),", 1) == words["after"]).all()
    assert done.frame["kind"].null_count() == masks["kind"].sum() - words.height
    restored, kept = undo(done.frame, done.changes)
    assert restored.equals(dirty)
    assert kept.is_empty()
    assert done.promised_harm == 0.0


def test_an_inferred_line_never_fills():
    _, contract, dirty, _ = lacking(200)
    guessed = changed(contract, income={"impute": "fill", "confidence": {"impute": 0.9}})
    assert repair(dirty, guessed).changes.is_empty()


def test_fills_come_last_and_give_no_vote():
    _, contract, dirty, _ = lacking(300)
    asked = changed(contract, income={"impute": "fill", "missing": ("N/A",)})
    dirty = dirty.with_columns(pl.col("income").fill_null("N/A"))
    done = clean(dirty, asked, "fill.csv")
    rules = done.changes.sort("order")["rule"].to_list()
    assert rules == sorted(rules, key=("missing-code", "impute").index)
    assert done.changes.filter(pl.col("rule") == "impute")["pass"].min() > 1
    assert done.frame["income"].null_count() == 0


def test_suggestions_keep_the_contract():
    frame, contract, dirty, _ = lacking(300)
    top = frame["income"].cast(pl.Float64).median()
    asked = changed(contract, income={"maximum": top, "kind": "decimal"})
    found = impute(dirty, asked, FEW).filter(pl.col("column") == "income")
    assert found["suggestion"].cast(pl.Float64).max() <= top
    digits = found["suggestion"].str.extract(r"\.(\d+)$", 1).fill_null("").str.len_chars()
    assert digits.max() <= 1


def towns(rows=240, every=8):
    """Return towns that fix their land, which is missing here and there, and a contract."""
    town = [f"t{i % 3}" for i in range(rows)]
    land = [None if i % every == 0 else f"l{i % 3}" for i in range(rows)]
    ids = [f"{27 if i == 24 else i}" for i in range(rows)]  # rows 24 and 27 are both of t0
    frame = pl.DataFrame({"id": ids, "town": town, "land": land})
    lines = "[columns.id]\nkind = 'integer'\n[columns.town]\n[columns.land]\nimpute = 'fill'\n"
    return frame, from_toml(lines)


DENIED = (Denial("d", "land = 'l0' AND id < 100"),)
KNOWN = (Reference(("town", "land"), "known.csv", ("town", "land")),)
"""Rows that keep these may not be filled with ``l0``: t0 and l0 are not known together."""


@pytest.mark.parametrize(
    ("lines", "rows"),
    [({"denials": DENIED}, range(0, 100, 24)), ({"references": KNOWN}, range(0, 240, 24)),
     ({"keys": (("id", "land"),)}, [24])],
)  # fmt: skip
def test_a_guess_never_sets_a_row_aside(lines, rows):
    frame, contract = towns()
    asked = replace(contract, **lines)
    known = pl.DataFrame({"town": ["t1", "t2"], "land": ["l1", "l2"]})
    plain = replace(asked, columns={n: replace(c, impute="") for n, c in contract.columns.items()})
    tables = {"known.csv": known}
    without, done = (clean(frame, one, "f", tables=tables) for one in (plain, asked))
    assert done.rows.equals(without.rows)
    filled = done.changes.filter(pl.col("rule") == "impute")["row"]
    assert filled.len() > 0
    assert not set(filled) & set(rows)


@pytest.mark.parametrize(
    "frame",
    [
        pl.DataFrame({"a": ["1", None] * 20, "b": ["x", "y"] * 20}),  # too few
        pl.DataFrame({"a": [None] * 200, "b": ["x", "y"] * 100}, schema=TEXTS),  # none at all
        pl.DataFrame(
            {"a": ["7"] * 150 + [None] * 50, "b": [None] * 200}, schema=TEXTS
        ),  # nothing varies
        pl.DataFrame({"a": [str(i) for i in range(150)] + [None] * 50}),  # nothing beside it
        pl.DataFrame({"a": ["inf", None] * 100, "b": ["x"] * 200}),
    ],
)
@pytest.mark.parametrize("kind", ["decimal", "integer", "text"])
def test_columns_that_teach_nothing_are_left_or_filled_soberly(frame, kind):
    lines = {"a": ColumnContract(kind=kind, impute="review")}
    contract = Contract(
        name="t", columns={n: lines.get(n, ColumnContract()) for n in frame.columns}
    )
    found = impute(frame, contract, FEW)
    assert set(found["suggestion"]) <= {"7"}


def test_needed_scores_by_hand():
    scores, ones = np.arange(1.0, 10.0), np.ones(9)
    nobody = np.zeros(9, int), np.zeros(2, int)
    # Nine held out: the ninth covers .9, more than that nothing.
    both = (ones, np.ones(2))
    assert needed_by_group(scores, both, nobody, 0.9).tolist() == [9.0, 9.0]
    assert np.isinf(needed_by_group(scores, both, nobody, 0.95)).all()
    heavy = (np.r_[np.zeros(8), 9.0], np.zeros(2))
    assert needed_by_group(scores, heavy, nobody, 0.5).tolist() == [9.0, 9.0]


def test_odds_are_equal_where_nothing_tells_missing_cells_apart():
    from sklearn.linear_model import LogisticRegression

    x = np.random.default_rng(0).normal(size=(600, 1))
    rows = np.arange(600)

    def fit(seen, missed):
        return LogisticRegression().fit(x[seen], missed)

    assert set(missing_odds(x, rows[:450], rows[450:], fit)) == {1.0}
    high = x[:, 0] > 0.5
    odds = missing_odds(x, rows[~high], rows[high], fit)
    assert odds[high].mean() > 10 * odds[~high].mean()


def test_lines_and_settings_that_cannot_be_are_refused():
    for lines in (
        {"impute": "yes"},
        {"impute": "fill", "kind": "date"},
        {"impute": "fill", "unique": True},
    ):
        with pytest.raises(ContractError, match="impute"):
            ColumnContract(**lines)
    with pytest.raises(ValueError, match="coverage"):
        ImputeConfig(coverage=1.0)
    with pytest.raises(ValueError, match="least_rows of 80"):
        ImputeConfig(coverage=0.95)
    text = 'name = "t"\n\n[columns.a]\nimpute = "fill"\n'
    assert from_toml(text).columns["a"].impute == "fill"
    assert 'impute = "fill"' in to_toml(from_toml(text))


def test_numbers_are_written_as_the_column_writes_them():
    assert [write_number(v, d) for v, d in ((2.50, 2), (-0.0001, 2), (1e6, 0), (0.125, 3))] == [
        "2.5", "0", "1000000", "0.125",
    ]  # fmt: skip
