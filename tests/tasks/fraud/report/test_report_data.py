"""The report's data: kept as JSON between steps, measured from plain arrays."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from tasks.cleaning.report.svg import decades, ticks
from tasks.fraud.evaluation.metrics import average_precision
from tasks.fraud.report import ReportError, ReportInputs
from tasks.fraud.report.curves import (
    MAX_POINTS,
    finite,
    pr_curve,
    reliability,
    score_bins,
    threshold_row,
    wilson,
)
from tasks.fraud.report.model import CheckSummary, Promotion
from tasks.fraud.report.plots import calibration, importance, score_histogram
from tasks.fraud.report.published import PUBLIC_FOLDS, comparable_rows
from tasks.fraud.report.render import count, money, percent, probability, seconds, signed
from tasks.fraud.report.rows import CalibrationBin, Curve, FoldRow, Importance, ScoreBin


def test_inputs_survive_json(example_inputs):
    inputs = example_inputs(1)
    text = json.dumps(inputs.to_dict(), allow_nan=False)
    assert ReportInputs.from_dict(json.loads(text)) == inputs


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(colour="red"), "report: unknown field 'colour'"),
        (lambda d: d.pop("model"), "report: field 'model' is missing"),
        (lambda d: d["dataset"].update(rows="many"), "report.dataset.rows: expected int, got str"),
        (lambda d: d["scores"]["ap"].update(mean=math.nan), "ap.mean: nan is no finite number"),
        (lambda d: d["folds"][1].update(ap="high"), "report.folds[1].ap: expected a number"),
        (lambda d: d.update(folds={}), "report.folds: expected a list"),
        (lambda d: d.update(dataset=[]), "report.dataset: expected an object"),
        (lambda d: d["environment"].update(versions=[1]), "versions: expected an object"),
        (lambda d: d["checks"].update(rows_in=5), "every row must be one or the other"),
        (lambda d: d["promotion"].update(verdict="maybe"), "verdict 'maybe' must be one of"),
        (lambda d: d["pr"][0]["x"].pop(), "x for"),
    ],
)
def test_wrong_data_is_named(example_inputs, change, message):
    data = json.loads(json.dumps(example_inputs(1).to_dict()))
    change(data)
    with pytest.raises(ReportError) as error:
        ReportInputs.from_dict(data)
    assert message in str(error.value)


def test_balance_and_verdict_are_checked_on_construction():
    with pytest.raises(ReportError, match="10 rows in, but 8 used and 1 quarantined"):
        CheckSummary(10, 8, 1)
    with pytest.raises(ReportError, match="must be one of"):
        Promotion("perhaps", "x")  # type: ignore[arg-type]
    with pytest.raises(ReportError, match="2 x for 1 y"):
        Curve("a", (0.0, 1.0), (1.0,))


def test_thinned_curve_keeps_its_area():
    rng = np.random.default_rng(0)
    label = (rng.random(20_000) < 0.02).astype(int)
    score = label * rng.gamma(2.0, 1.0, 20_000) + rng.random(20_000)
    curve = pr_curve("a", label, score)
    assert 50 < len(curve.x) <= MAX_POINTS
    assert list(curve.x) == sorted(curve.x)
    area = float(np.sum(np.diff([0.0, *curve.x]) * np.array(curve.y)))
    assert area == pytest.approx(average_precision(label, score), abs=0.01)


def test_reliability_finds_over_confidence():
    rng = np.random.default_rng(1)
    truth = rng.random(50_000)
    label = (rng.random(50_000) < truth * 0.2).astype(np.int8)
    honest = reliability(label, truth * 0.2)
    assert all(b.low <= b.predicted * 1.15 and b.predicted * 0.85 <= b.high for b in honest)
    assert sum(b.rows for b in honest) == 50_000
    boastful = reliability(label, truth)
    assert boastful[-1].high < boastful[-1].predicted


def test_thin_bins_are_joined():
    p = np.concatenate([np.full(15, 1e-4), np.full(100, 0.01), np.full(19, 0.5), np.full(7, 0.9)])
    assert [b.rows for b in reliability(np.zeros(141), p)] == [115, 26]
    assert [b.rows for b in reliability(np.zeros(5), p[-5:])] == [5]
    assert [b.rows for b in reliability(np.zeros(141), p, fewest=1)] == [15, 100, 19, 7]


def test_unknown_labels_are_not_judged():
    label = np.array([-1, 0, 1, 1], dtype=np.int8)
    score = np.array([0.99, 0.2, 0.9, 0.4])
    assert sum(b.rows for b in reliability(label, score)) == 3
    assert sum(b.genuine + b.frauds for b in score_bins(label, score)) == 3
    assert reliability(label[:1], score[:1]) == ()
    with pytest.raises(ValueError, match="vectors of one length"):
        score_bins(label, score[:2])


def test_threshold_row_counts_by_hand():
    label = np.array([1, 1, 0, 0, 0, 0])
    score = np.array([0.9, 0.3, 0.5, 0.2, 0.1, 0.1])
    row = threshold_row("p", 0.5, label, score, 2.0, cost=3.0)
    assert (row.alerts_per_day, row.precision, row.recall, row.fpr) == (1.0, 0.5, 0.5, 0.25)
    nothing = threshold_row("p", 2.0, label[:0], score[:0], 0.0)
    assert (nothing.alerts_per_day, nothing.precision, nothing.recall, nothing.fpr) == (None,) * 4


def test_wilson_interval_of_extremes():
    assert wilson(0, 50)[0] == 0.0
    assert wilson(50, 50)[1] == 1.0
    low, high = wilson(25, 50)
    assert low + high == pytest.approx(1.0)


def test_only_the_public_folds_are_comparable():
    public = [FoldRow(i, "", n, f, 0, 0, 0, 0) for i, (n, f) in enumerate(PUBLIC_FOLDS)]
    assert len(comparable_rows(public)) == 7
    assert comparable_rows(public[:3]) == ()
    assert comparable_rows([]) == ()


def test_numbers_are_written_for_people():
    assert (count(0), count(1_000_000), count(math.nan)) == ("0", "1,000,000", "–")
    assert (percent(0.1234), percent(None)) == ("12.3 %", "–")
    assert (money(-1.5), money(None), signed(-0.5), signed(None)) == ("-1.50", "–", "−0.500", "–")
    assert (seconds(0.1), seconds(59.9), seconds(3600)) == ("0.10 s", "59.9 s", "60 min 0 s")
    said = [probability(p) for p in (0.9996, 0.9994, 0.0004, 0.5)]
    assert said == ["> 0.999", "0.999", "< 0.001", "0.500"]
    assert finite(math.inf) is None
    assert finite(1) == 1.0


def test_axes_have_round_ticks():
    assert ticks(0, 0.5) == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]
    assert ticks(3, 3) == [3]
    assert decades(0.001, 1) == [0.001, 0.01, 0.1, 1.0]


def test_plots_take_the_poorest_data():
    assert "circle" in calibration([CalibrationBin(0.0, 0.0, 5, 0.0, 0.4)])
    assert "rect" in score_histogram([ScoreBin(0.0, 1.0, 0, 0)], threshold=("late", 0.9))
    assert "rect" in importance([Importance("only", 0.0)])
