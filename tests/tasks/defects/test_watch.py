"""The watch of a line: false alarms no oftener than stated, changes found, states that go on."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from scipy.integrate import quad
from scipy.stats import kstest

from tasks.defects.watch.camera import CameraReference
from tasks.defects.watch.exposure import brightness
from tasks.defects.watch.line import LineWatch, WatchConfig
from tasks.defects.watch.ranks import MOVES, RankWatch, _factors
from tasks.defects.watch.rates import ODDS, RateWatch
from tests.benchmarks import defects_watch
from tests.benchmarks._watched_line import Look, rough_score, surfaces, taken


def first_alarm(watch, values):
    for place, value in enumerate(values, start=1):
        if move := watch.look(float(value)):
            return place, move
    return len(values) + 1, ""


def test_every_bet_is_fair():
    for place in range(len(MOVES)):
        halves = [
            quad(lambda p, i=place: _factors(p)[i], *ends)[0] for ends in ((0, 0.5), (0.5, 1))
        ]
        assert sum(halves) == pytest.approx(1.0, abs=1e-4)
    # Up to the promised rate the bets are fair or lose.
    for rate in (0.05, 0.02):
        for odds in ODDS:
            other = odds * 0.05 / (0.95 + odds * 0.05)
            mean = rate * other / 0.05 + (1 - rate) * (1 - other) / 0.95
            assert mean <= 1 + 1e-12
            assert (mean > 1 - 1e-12) == (rate == 0.05)


def test_ranks_are_uniform_although_the_state_has_few_bins():
    found = []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        values = rng.gamma(1, size=44)
        watch = RankWatch.learn(values[:40], 1e9, seed)
        for one in values[40:]:
            before = list(watch.counts)
            watch.look(float(one))
            place = int(np.argmax(np.array(watch.counts) - before))
            chance = float(np.random.default_rng((seed, watch.seen)).random())
            below = sum(watch.counts[:place]) + chance * watch.counts[place]
            found.append(below / sum(watch.counts))
    assert kstest(found, "uniform").pvalue > 0.001


@pytest.mark.parametrize("values", ["normal", "few"])
def test_false_alarms_come_no_oftener_than_stated(values):
    """Whatever is watched; few values have many ties."""
    steps = []
    for seed in range(40):
        rng = np.random.default_rng((seed, 3))
        every = rng.normal(size=660) if values == "normal" else rng.integers(0, 3, 660)
        steps.append(first_alarm(RankWatch.learn(every[:60], 150, seed), every[60:])[0])
    assert np.mean(steps) > 150  # although they are cut off at 600
    assert np.mean(np.array(steps) <= 75) <= 0.5


@pytest.mark.parametrize(
    ("shift", "spread", "within", "move"),
    [(1.5, 1, 40, "higher"), (-1.5, 1, 40, "lower"), (0, 3, 80, "wider spread")],
)
def test_changes_are_found_and_named(shift, spread, within, move):
    moves = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        watch = RankWatch.learn(rng.normal(size=100), 10_000, seed)
        assert not first_alarm(watch, rng.normal(size=100))[1]
        place, found = first_alarm(watch, shift + spread * rng.normal(size=200))
        assert place <= within
        moves.append(found)
    assert moves.count(move) >= 8


def test_a_rate_above_the_promised_is_found_and_one_at_it_is_not():
    delays, false = [], 0
    for seed in range(10):
        rng = np.random.default_rng(seed)
        watch = RateWatch.start(0.01, 10_000)
        false += sum(watch.look(hit=bool(one)) for one in rng.random(1_000) < 0.01)
        hits = rng.random(300) < 0.15
        delays.append(next(i for i, one in enumerate(hits, 1) if watch.look(hit=bool(one))))
    assert false <= 1
    assert max(delays) < 150


def test_brightness_moves_by_parts_of_a_level():
    ramp = np.tile(np.arange(100, 164, dtype=np.uint8), (64, 1))
    one, other = brightness(ramp), brightness(np.where(np.eye(64, dtype=bool), ramp + 1, ramp))
    assert one["brightness_p50"] == pytest.approx(131.5)
    assert 0 < other["brightness_p50"] - one["brightness_p50"] < 0.5
    assert brightness(np.repeat(ramp[:, :, None], 3, axis=2)) == one


@pytest.fixture(scope="module")
def parts():
    rng = np.random.default_rng(0)
    made = surfaces(3, 100)
    return made, [taken(one, Look(), rng) for one in made]


@pytest.mark.parametrize(
    ("look", "field", "value"),
    [
        (Look(right=5), "right", 5 / 128),
        (Look(turn=4), "turn", 4),
        (Look(turn=-7), "turn", -7),
        (Look(zoom=1.08), "zoom", np.log(1.08)),
    ],
)
def test_where_the_camera_stands_is_measured(parts, look, field, value):
    made, images = parts
    reference, _, why = CameraReference.learn(images[:60])
    rng = np.random.default_rng(1)
    placed = [reference.place(taken(one, look, rng)) for one in made[60:84]]
    assert not why
    assert float(np.median([getattr(one, field) for one in placed])) == pytest.approx(
        value, rel=0.35
    )


def test_a_picture_turned_against_the_clock_counts_up(parts):
    _, images = parts
    reference, _, _ = CameraReference.learn(images[:60])
    turned = [np.asarray(Image.fromarray(one).rotate(5, fillcolor=25)) for one in images[60:80]]
    assert 3 < np.median([reference.place(one).turn for one in turned]) < 7


def test_a_surface_that_fills_the_picture_says_that_its_camera_is_not_judged(parts):
    made, _ = parts
    rng = np.random.default_rng(0)
    images = [taken(one, Look(outline=False), rng) for one in made[:60]]
    watch = LineWatch.learn(images, [rough_score(one) for one in images])
    assert "nothing stands still" in watch.not_judged["camera"]
    assert not [name for name in watch.ranks if name.startswith("camera")]


def test_a_line_is_watched_across_restarts(parts):
    made, images = parts
    scores = [rough_score(one) for one in images]
    watch = LineWatch.learn(images[:70], scores[:70], WatchConfig(arl=5_000))
    twin = LineWatch.from_json(watch.to_json())
    for one, score in zip(images[70:], scores[70:], strict=True):
        assert watch.look(one, score) == [] == twin.look(one, score)
        twin = LineWatch.from_json(twin.to_json())
    assert watch.to_json() == twin.to_json()
    assert len(watch.to_json()) < 60_000
    rng = np.random.default_rng(2)
    told = []
    for place, one in enumerate(made[:60]):
        image = taken(one, Look(right=6, gain=1.4), rng)
        told += watch.look(image, scores[place], unknown=place % 2 == 0, name=f"{place}.png")
    first = {}
    for alarm in told:
        first.setdefault(alarm.about, alarm)
    assert set(first) >= {"brightness", "camera", "unknown"}
    assert "check the lamp" in first["brightness"].message
    assert "to the right" in first["camera"].message
    assert ".png" in first["unknown"].message


def test_states_that_are_none_are_refused(parts):
    _, images = parts
    scores = [rough_score(one) for one in images]
    state = json.loads(LineWatch.learn(images, scores).to_json())
    with pytest.raises(ValueError, match="at least 40"):
        LineWatch.learn(images[:30], scores[:30])
    for wrong, says in (
        ({"version": 2}, "version 2"),
        ({"seen": None}, "learn the watch anew"),
        ({"seen": float("inf")}, "learn the watch anew"),
        ({"ranks": {"score": state["ranks"]["score"]}}, "learn the watch anew"),
        ({"camera": None}, "learn the watch anew"),
        ({"camera": "AAAA"}, "wrong size"),
        ({"ranks": {"score": {**state["ranks"]["score"], "counts": [1]}}}, "do not fit"),
        ({"ranks": {"score": {**state["ranks"]["score"], "money": [-1.0] * 6}}}, "out of its"),
    ):
        with pytest.raises(ValueError, match=says):
            LineWatch.from_json(json.dumps(state | wrong))
    with pytest.raises(ValueError, match="arl is inf"):
        WatchConfig(arl=float("inf"))
    with pytest.raises(ValueError, match="no state"):
        LineWatch.from_json(" " * 2_000_000)


def test_the_benchmark_runs_at_its_small_size(capsys):
    defects_watch.main(["--smoke", "--json"])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["score_shift_1_delay"] < 100
    assert result["line_false_alarms"] == 0
