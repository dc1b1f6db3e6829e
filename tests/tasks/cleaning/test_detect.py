"""Wrong cells are found without labels, natural ones are left alone, and a few labels help."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from tasks.cleaning.detect.active import evidence_of, next_row, refined
from tasks.cleaning.detect.cells import doubtful_cells
from tasks.cleaning.detect.chance import association, groupings, runs_z
from tasks.cleaning.detect.combinations import impossible_combinations
from tasks.cleaning.detect.numbers import magnitudes, numbers_of, robust_z
from tasks.cleaning.detect.outliers import outliers, score_cells
from tasks.cleaning.detect.patterns import pattern_of, rare_patterns
from tasks.cleaning.detect.relations import expected_ranks, rank_table, slipped_units
from tasks.cleaning.detect.sequences import key_faults, longest_rise, sequence_of
from tasks.cleaning.findings import FINDINGS

N = 200


def texts(**columns):
    return pl.DataFrame({name: [None if v is None else str(v) for v in values]
                         for name, values in columns.items()})  # fmt: skip


def found(frame, column):
    return sorted(outliers(frame).filter(pl.col("column") == column)["row"].to_list())


def rng():
    return np.random.default_rng(3)


def test_years_beside_one_year():
    years = [2008] * N
    for row, wrong in ((3, 2173), (50, 1203), (77, 2944), (120, 1500), (121, 2600)):
        years[row] = wrong
    assert found(texts(year=years), "year") == [3, 50, 77, 120, 121]


def test_one_wild_amount_in_a_constant_column():
    assert found(texts(year=[2008] * 80 + [20080]), "year") == [80]
    assert found(texts(flag=[1] * 80 + [2]), "flag") == []


def test_ones_among_twos_only_where_they_fall_at_random():
    at_random = [2] * N
    for row in rng().choice(N, 16, replace=False):
        at_random[row] = 1
    assert len(found(texts(code=at_random), "code")) == 16
    together = [1] * 16 + [2] * (N - 16)
    assert found(texts(code=together), "code") == []
    town = ["Leeds" if code == 1 else "York" for code in at_random]
    assert found(texts(code=at_random, town=town), "code") == []


def test_counts_on_one_side_are_natural():
    assert found(texts(visits=rng().poisson(0.4, N)), "visits") == []


def test_a_skewed_column_is_judged_on_its_own_scale():
    area = rng().lognormal(8, 1, N).round(2)
    assert found(texts(area=area), "area") == []
    area[17] = 1e9
    assert found(texts(area=area), "area") == [17]


def test_what_leaves_a_sequence():
    ids = np.arange(1, 41)
    ids[[4, 20]] = (83, -23)
    assert found(texts(id=ids), "id") == [4, 20]
    assert found(texts(id=np.arange(1, 41)), "id") == []


def test_more_decimals_than_the_column():
    share = rng().beta(5, 5, N).round(2).tolist()
    share[9] = 1.170126313707816
    assert found(texts(share=share), "share") == [9]


def test_confidences_compare_and_findings_keep_the_schema():
    years = [2008] * N
    years[3], years[9], years[30], years[31] = 2173, 1203, 2944, 1100
    frame = texts(year=years, temperature=rng().normal(15, 4, N).round(1))
    found_ = outliers(frame, least=0.0)
    assert found_.schema == pl.Schema(dict(FINDINGS))
    assert found_["confidence"].is_between(0, 1).all()
    assert set(found_.sort("confidence")["row"].tail(4)) == {3, 9, 30, 31}


def test_longest_rise_equals_brute_force():
    for seed in range(20):
        values = np.random.default_rng(seed).integers(0, 6, 9).astype(float)
        best = max(
            mask.bit_count()
            for mask in range(1, 2**9)
            if (np.diff(values[[i for i in range(9) if mask >> i & 1]]) >= 0).all()
        )
        kept = longest_rise(values)
        assert kept.sum() == best
        assert (np.diff(values[kept]) >= 0).all()


def test_numbers_of_reads_texts():
    column = pl.Series("x", [" 1.50", "2", "3e2", None, "-4.25", "5"])
    numbers = numbers_of(column)
    assert numbers.values.tolist() == [1.5, 2, 300, -4.25, 5]
    assert numbers.rows.tolist() == [0, 1, 2, 4, 5]
    assert numbers.decimals.tolist() == [1, 0, 0, 2, 0]
    assert numbers_of(pl.Series("x", ["a", "b", "1", "2", "3", "4", "c"])) is None
    assert numbers_of(pl.Series("x", ["nan"] * 9)) is None
    assert sequence_of(numbers_of(pl.Series("x", ["1"] * 9))) is None


def test_magnitudes_survive_a_constant_column_and_a_sixth_of_errors():
    assert magnitudes(np.full(9, 5.0)).max() == 0
    values = np.r_[rng().normal(0, 1, 150), np.full(30, 100.0)]
    assert magnitudes(values)[150:].min() > 15


def test_magnitudes_of_a_skewed_column_are_those_of_its_logarithms():
    logs = rng().normal(8, 1, N)
    logs[5] = 0
    assert np.allclose(magnitudes(np.exp(logs)), np.abs(robust_z(logs)))
    assert magnitudes(np.exp(logs)).max() < 10 < np.abs(robust_z(np.exp(logs))).max()


def test_chance():
    odd = np.zeros(100, bool)
    odd[:10] = True
    assert runs_z(odd) < -5
    assert runs_z(np.arange(100) % 10 == 0) > -1
    frame = texts(town=["Leeds"] * 10 + ["York"] * 90, other=(np.arange(100) % 2))
    groups = groupings(frame)
    assert association(odd, np.arange(100), groups, "code") > 10
    assert association(odd, np.arange(100), groups, "town") == 0


def test_relations_expect_and_slipped_units_are_put_back():
    length = rng().lognormal(3, 1, N)
    metres = (length * rng().normal(1, 0.01, N)).round(4)
    metres[11] = round(metres[11] * 1000, 4)
    frame = texts(km=length.round(6), metres=metres, town=["York"] * N)
    slips = slipped_units(frame)
    assert slips.select("row", "column").rows() == [(11, "metres")]
    assert float(slips["suggestion"][0]) == pytest.approx(metres[11] / 1000)
    numbers = [numbers_of(frame[c]) for c in ("km", "metres")]
    _, explained = expected_ranks(numbers[0], rank_table(numbers, N))
    assert explained > 0.9


def test_keys_repeated_and_gaps():
    ids = list(range(100, 300))
    ids[50] = ids[49]
    ids[150:] = [i + 500 for i in ids[150:]]
    faults = key_faults(texts(id=ids))
    assert faults.filter(pl.col("rule") == "key-repeated")["row"].to_list() == [49, 50]
    assert faults.filter(pl.col("rule") == "sequence-gap")["row"].to_list() == [150]


def test_rare_patterns():
    assert pattern_of(pl.Series(["Ab-12", "ÉÉ é"]), collapsed=False).to_list() == ["Aa-99", "AA a"]
    codes = [f"AZC{i:05d}" for i in range(N)]
    codes[8] = "AZC-1"
    phones = [str(5550000 + 37 * i % 9999) for i in range(N)]
    phones[4] = "55x12x4"
    words = ["".join(rng().permutation(list("abc de-")).tolist()[: 2 + i % 5]) for i in range(N)]
    hits = rare_patterns(texts(code=codes, phone=phones, word=words))
    assert hits.select("row", "column").rows() == [(4, "phone"), (8, "code")]


def test_combinations_that_do_not_occur():
    town = ["Leeds"] * 300 + ["York"] * 300
    county = ["West"] * 300 + ["North"] * 300
    region = ["w"] * 300 + ["n"] * 300
    town[10] = "York"
    frame = texts(town=town, county=county, region=region)
    hits = impossible_combinations(frame)
    best = hits.sort("confidence").tail(1)
    assert best.select("row", "column").rows() == [(10, "town")]
    assert best["confidence"][0] > 0.9
    assert impossible_combinations(texts(town=rng().choice(["a", "b"], 600))).is_empty()


def test_all_detectors_together_on_odd_tables():
    assert doubtful_cells(pl.DataFrame({"a": pl.Series([], dtype=pl.String)})).is_empty()
    assert doubtful_cells(texts(a=[None] * 40, b=["x"] * 40, c=["1"] * 40)).is_empty()
    assert doubtful_cells(texts(a=["1", "2"], b=["inf", "nan"])).is_empty()


def test_labels_move_a_column_and_its_equal_values():
    codes = [2] * N
    for row in rng().choice(N, 16, replace=False):
        codes[row] = 1
    frame = texts(code=codes, year=[2000] * N)
    evidence = evidence_of(frame)
    wrong = np.zeros((N, 2), bool)
    before = refined(evidence, [], wrong[:0])
    row = next_row(evidence, [], before)
    assert codes[row] == 1  # the uncertain ones are asked for
    after = refined(evidence, [row], wrong[[row]])
    ones = np.array(codes) == 1
    assert (before[ones, 0] > 0.5).all()
    assert (after[ones, 0] < 0.5).all()
    assert next_row(evidence, [row], after) != row
    with pytest.raises(ValueError, match="labels of that shape"):
        refined(evidence, [0, 1], wrong[:1])
    with pytest.raises(ValueError, match="every row has a label"):
        next_row(evidence, [0, 1], before, np.array([0, 1]))


def test_labels_move_odd_cells_of_other_values_too():
    years = [2008] * N
    for row in range(0, N, 8):
        years[row] = 1500 + 7 * row
    evidence = evidence_of(texts(year=years))
    rows = [8, 16, 24]
    before = refined(evidence, [], np.zeros((0, 1), bool))
    after = refined(evidence, rows, np.zeros((3, 1), bool))
    other = np.arange(32, N, 8)
    assert (after[other, 0] < before[other, 0]).all()
    assert (after[1::8] == before[1::8]).all()  # the steady value is not touched


def test_scores_are_the_same_twice():
    frame = texts(a=rng().normal(0, 1, N), b=rng().integers(0, 3, N))
    first, second = score_cells(frame), score_cells(frame)
    assert all((a.log_odds == b.log_odds).all() for a, b in zip(first, second, strict=True))
