"""Students that follow their teachers, within what may be lost."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tasks.privacy.compile import CompileOptions, compile_model
from tasks.privacy.distil import DistilConfig, DistilError, Judged, distil, find_steps
from tasks.privacy.simulate import simulate

COLUMNS = ["a", "b", "c", "d", "e"]
CONFIG = DistilConfig(steps=40, rounds=40, hidden=8, updates=600, floor=0.0, top=0.2)


def table(n: int, seed: int):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 5)).astype(np.float32)


def teacher(rows):
    """Cuts at thresholds, alone and together, as trees make them."""
    a, b, c = rows[:, 0], rows[:, 1], rows[:, 2]
    alone = 2.0 * (a > 0.5) - 1.5 * (b < -0.3)
    return alone + 3.0 * ((a > 0.5) & (c > 0.2)) - 3.0


@pytest.fixture(scope="module")
def judged():
    rows = table(3_000, 1)
    scores = teacher(rows)
    labels = np.random.default_rng(2).random(3_000) < 1 / (1 + np.exp(-scores))
    return Judged(rows, labels.astype(int), scores)


@pytest.fixture(scope="module")
def student(judged):
    rows = table(8_000, 0)
    return distil(rows, teacher(rows), COLUMNS, judged, CONFIG)


class TestDistil:
    def test_a_student_ranks_as_its_teacher(self, student):
        assert student.auc_loss < 0.005
        assert student.ap_loss < 0.02

    def test_columns_that_say_nothing_are_left_out(self, student):
        assert {0, 1, 2} <= set(student.places)
        assert student.model.encoding.columns == tuple(COLUMNS[place] for place in student.places)

    def test_scores_come_near_where_they_count(self, student, judged):
        found = student.model.score(judged.rows[:, student.places])[:, 0]
        top = judged.scores > np.quantile(judged.scores, 0.9)
        assert np.abs(found[top] - judged.scores[top]).mean() < 0.6

    def test_it_compiles_and_keeps_its_scores_under_encryption(self, student, judged):
        rows = judged.rows[:500, student.places].astype(np.float64)
        compiled = compile_model(student.model, rows, CompileOptions(tolerance=1e-2))
        noisy = simulate(compiled, rows, np.random.default_rng(0))
        assert np.abs(noisy - student.model.score(rows)).max() <= compiled.proof.likely_calibration

    def test_a_student_that_loses_too_much_is_refused_unless_asked_for(self, judged):
        rows = table(2_000, 0)
        poor = replace(CONFIG, steps=1, rounds=1, hidden=1, updates=1)
        with pytest.raises(DistilError, match=r"loses 0\.\d+ of AUC, more than 0\.005"):
            distil(rows, teacher(rows), COLUMNS, judged, poor)
        accepted = distil(rows, teacher(rows), COLUMNS, judged, replace(poor, most_auc_loss=1.0))
        assert accepted.auc_loss > 0.005
        with pytest.raises(DistilError, match="average precision"):
            distil(
                rows,
                teacher(rows),
                COLUMNS,
                judged,
                replace(poor, most_auc_loss=1.0, most_ap_loss=0.001),
            )

    def test_what_ties_for_the_teacher_ties_for_the_student(self, judged):
        rows = table(4_000, 0)
        made = distil(
            rows, teacher(rows), COLUMNS, judged, replace(CONFIG, most_auc_loss=1), ties_below=1.0
        )
        assert made.model.readout.floor == 1.0

    def test_the_same_seed_gives_the_same_student(self, student, judged):
        rows = table(8_000, 0)
        again = distil(rows, teacher(rows), COLUMNS, judged, CONFIG)
        np.testing.assert_array_equal(again.model.weights, student.model.weights)

    def test_thresholds_are_those_of_the_teacher(self):
        rows = table(8_000, 0)
        found = find_steps(rows, teacher(rows), replace(CONFIG, steps=6))
        for place, limit in ((0, 0.5), (1, -0.3), (2, 0.2)):
            assert any(p == place and abs(at - limit) < 0.05 for p, at in found), found

    @pytest.mark.parametrize("wrong", [{"hidden": 0}, {"floor": 1.0}, {"top": 0.0}])
    def test_settings_name_the_fix(self, wrong):
        with pytest.raises(ValueError, match="must be"):
            DistilConfig(**wrong)
