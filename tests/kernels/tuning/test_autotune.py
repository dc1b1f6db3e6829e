"""AutoTune: it ends the right trials, finds the optimum, keeps its budget, survives its death."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kernels.runtime.accumulation import AccumulationConfig
from kernels.tuning.asha import AshaConfig, may_go_on
from kernels.tuning.autotune import AutoTune, AutoTuneConfig, Trial
from kernels.tuning.journal import Journal, JournalError
from kernels.tuning.space import Choice, Integer, Space, Uniform
from kernels.tuning.training import run_trial
from tests.kernels.tuning.small import SPACE, STEPS, build, search_config

ROOT = Path(__file__).resolve().parents[3]
BOWL = Space({"x": Uniform(-5.0, 5.0), "scale": Uniform(1e-3, 1e3, log=True)})


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def bowl(parameters):
    return (parameters["x"] - 2) ** 2 + math.log10(parameters["scale"]) ** 2


def search(path, config, figure=bowl, space=BOWL):
    with AutoTune(space, path, config) as tune:
        while trial := tune.ask():
            tune.tell(trial, figure(trial.parameters))
        return tune.best, tune.trials


def test_the_estimator_beats_random_search_over_ten_seeds(tmp_path):
    found, drawn = [], []
    for seed in range(10):
        config = AutoTuneConfig(trials=40, seed=seed)
        found.append(search(tmp_path / f"{seed}.jsonl", config)[0].value)
        generator = np.random.default_rng(seed)
        drawn.append(min(bowl(BOWL.draw(generator)) for _ in range(40)))
    assert np.mean(found) < 0.5 * np.mean(drawn)
    assert sum(f < d for f, d in zip(found, drawn, strict=True)) >= 8


def test_a_high_figure_can_be_the_goal(tmp_path):
    config = AutoTuneConfig(trials=30, goal="max")
    best, trials = search(tmp_path / "a.jsonl", config, lambda p: -bowl(p))
    assert best.value == max(t.value for t in trials) > -1


def test_a_search_of_all_kinds_proposes_the_same_when_it_is_opened_anew(tmp_path):
    space = Space(
        {
            "rate": Uniform(1e-4, 1.0, log=True),
            "width": Integer(2, 64, log=True),
            "batch": Choice((16, 32, 64)),
            "kind": Choice(("relu", "tanh")),
            "norm": Choice((False, True)),
        }
    )

    def figure(p):
        return math.log10(p["rate"] * p["batch"]) ** 2 + p["width"] / 64 + (p["kind"] == "relu")

    config = AutoTuneConfig(trials=24, startup=5)
    _, whole = search(tmp_path / "whole.jsonl", config, figure, space)
    search(tmp_path / "parts.jsonl", replace(config, trials=13), figure, space)
    best, parts = search(tmp_path / "parts.jsonl", config, figure, space)
    assert [t.parameters for t in parts] == [t.parameters for t in whole]
    assert len({t.parameters["batch"] for t in parts[5:]}) == 3
    for trial in parts:
        space.checked(trial.parameters)
    assert best.parameters["kind"] == "tanh"


def test_halving_lets_the_best_third_of_each_rung_go_on(tmp_path):
    """One curve per trial, told step by step: who goes on is what the definition says."""
    config = AutoTuneConfig(trials=30, asha=AshaConfig(first=1, last=27))
    seen, whole = {1: [], 3: [], 9: []}, 0
    generator = np.random.default_rng(0)
    with AutoTune(BOWL, tmp_path / "a.jsonl", config) as tune:
        while trial := tune.ask():
            level, going, step = float(generator.random()), True, 0
            while going and step < 27:
                step += 1
                going = tune.report(trial, step, level + 1 / step)
                if step in seen:
                    places = max((len(seen[step]) + 1) // 3, 1)
                    assert going == (sum(v < level for v in seen[step]) < places)
                    seen[step].append(level)
                else:
                    assert going
            if going:
                whole += 1
                tune.tell(trial, level)
        states = [t.state for t in tune.trials]
    assert states.count("complete") == whole >= 1
    assert states.count("pruned") == 30 - whole
    assert 30 == len(seen[1]) > len(seen[3]) > len(seen[9]) >= whole
    assert len(seen[3]) <= 15


def test_brackets_pass_over_rungs():
    asha = AshaConfig(first=1, last=27, brackets=4)
    first = [next(s for s in range(1, 28) if asha.rung_of(n, s - 1, s)) for n in range(3)]
    assert first == [1, 3, 9]
    assert not any(asha.rung_of(3, s - 1, s) for s in range(1, 28))
    assert asha.rung_of(0, 1, 20) == 9  # the highest of those passed at once


def test_nothing_that_is_not_finite_goes_on(tmp_path):
    assert not may_go_on(math.nan, [], 3)
    assert not may_go_on(math.inf, [math.inf], 3)
    with AutoTune(BOWL, tmp_path / "a.jsonl", AutoTuneConfig(trials=4, startup=1)) as tune:
        trial = tune.ask()
        assert not tune.report(trial, 1, math.nan)
        assert not tune.report(trial, 2, 0.0)
        tune.tell(trial, 0.0)  # too late
        told = tune.ask()
        tune.tell(told, math.inf)
        assert tune.best is None
        good = tune.ask()
        tune.tell(good, 1.0)
        assert [t.state for t in tune.trials] == ["pruned", "complete", "complete"]
        assert tune.best.number == good.number


def test_the_budget_counts_working_seconds_over_all_processes(tmp_path):
    clock, config = Clock(), AutoTuneConfig(seconds=100)
    path = tmp_path / "a.jsonl"
    with AutoTune(BOWL, path, config, clock=clock) as tune:
        trial = tune.ask()
        clock.now += 60
        assert tune.report(trial, 1, 1.0)
        tune.tell(trial, 1.0)
    clock.now += 10_000  # nobody works
    with AutoTune(BOWL, path, config, clock=clock) as tune:
        assert tune.spent == pytest.approx(60)
        trial = tune.ask()
        clock.now += 50
        assert not tune.report(trial, 1, 0.5)
        assert tune.ask() is None
        assert tune.trials[-1].state == "out of time"
        assert tune.best.number == 0  # a whole trial, before one that was cut off
        assert tune.spent == pytest.approx(110)
    more = replace(config, seconds=200)
    with AutoTune(BOWL, path, more, clock=clock) as tune:
        assert tune.ask() is not None


def test_trials_at_the_same_time_differ_and_count_as_bad(tmp_path):
    """Ten asked for at once in one thread each: no two alike, all numbers once."""
    choices = Space({"x": Choice(tuple(range(1_000))), "y": Uniform(0.0, 1.0)})
    config = AutoTuneConfig(trials=30, startup=5)
    with AutoTune(choices, tmp_path / "a.jsonl", config) as tune:
        for _ in range(10):
            trial = tune.ask()
            tune.tell(trial, trial.parameters["y"])
        asked = []
        threads = [threading.Thread(target=lambda: asked.append(tune.ask())) for _ in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(t.number for t in asked) == list(range(10, 20))
    assert len({t.parameters["y"] for t in asked}) == 10


def test_two_searches_on_one_journal_see_each_other(tmp_path):
    path, config = tmp_path / "a.jsonl", AutoTuneConfig(trials=6, startup=2)
    with AutoTune(BOWL, path, config) as one, AutoTune(BOWL, path, config) as two:
        numbers = []
        while (a := one.ask()) and (b := two.ask()):
            numbers += [a.number, b.number]
            one.tell(a, bowl(a.parameters))
            two.report(b, 1, 3.0)
            two.tell(b, bowl(b.parameters))
        assert numbers == list(range(6))
        assert one.trials == two.trials


@pytest.mark.long
def test_a_killed_search_goes_on_as_if_nothing_had_happened(tmp_path):
    """Killed (-9) in the middle of a trial: the same trials and figures as without."""
    script = Path(__file__).with_name("killed_search.py")

    def start(folder, *more):
        command = [sys.executable, str(script), str(folder), "6", *more]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)

    killed = tmp_path / "killed"
    with start(killed, "20") as process:
        for _ in range(6):
            assert process.stdout.readline()
        os.kill(process.pid, signal.SIGKILL)
    with (killed / "search.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"event":"rep')  # as a machine that loses power leaves it
    ends = {}
    for name in ("killed", "whole"):
        folder = tmp_path / name
        with AutoTune(SPACE, folder / "search.jsonl", search_config(6)) as tune:
            begun = [t.number for t in tune.trials if t.state == "running"]
            while trial := tune.ask():
                if begun and trial.number == begun[0]:
                    assert trial.attempt == 2
                outcome = run_trial(tune, trial, build, folder=folder / "trials")
                assert outcome.steps >= 2
            ends[name] = [(t.parameters, t.state, t.value, t.reports) for t in tune.trials]
            assert begun == ([] if name == "whole" else begun[:1])
    assert ends["killed"] == ends["whole"]
    assert any(t[1] == "pruned" for t in ends["whole"])
    assert not list(killed.glob("*.lock"))


def test_a_report_that_nobody_judged_is_judged_by_the_next_process(tmp_path):
    """Its process died between the line of the report and that of the end."""
    path = tmp_path / "a.jsonl"
    config = AutoTuneConfig(trials=3, asha=AshaConfig(first=2, last=9))
    with AutoTune(BOWL, path, config) as tune:
        good, bad = tune.ask(), tune.ask()
        assert tune.report(good, 2, 0.1)
        assert not tune.report(bad, 2, 0.9)
        tune.give_back(good)
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    cut = next(i for i, line in enumerate(lines) if '"end"' in line)
    back = lines[cut].replace('"end"', '"give back"')
    path.write_text("".join([*lines[:cut], back, *lines[cut + 1 :]]), encoding="utf-8")
    with AutoTune(BOWL, path, config) as tune:
        assert tune.ask() == good
        assert tune.ask().number == 2
        assert [t.state for t in tune.trials] == ["running", "pruned", "running"]


def test_a_trial_that_kills_its_process_is_given_up(tmp_path):
    path, config = tmp_path / "a.jsonl", AutoTuneConfig(trials=2, attempts=2)
    with AutoTune(BOWL, path, config) as tune:
        first = tune.ask()
    gone = "gone-host 1 1"
    clock = Clock()
    clock.now = 1e10  # silent for long

    def disown():
        text = path.read_text(encoding="utf-8").splitlines()
        lines = [json.loads(line) for line in text]
        for line in lines:
            if "worker" in line:
                line["worker"] = gone
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")

    disown()
    with AutoTune(BOWL, path, config, clock=clock) as tune:
        again = tune.ask()
        assert (again.number, again.attempt, again.key) == (0, 2, first.key)
    disown()
    clock.now += 1e5
    with AutoTune(BOWL, path, config, clock=clock) as tune:
        assert tune.ask().number == 1
        assert tune.trials[0].state == "failed"
        assert "2 times in vain" in tune.trials[0].reason


def test_a_training_that_diverges_is_the_worst_and_an_error_is_a_failure(tmp_path):
    with AutoTune(SPACE, tmp_path / "a.jsonl", search_config(3, asha=None)) as tune:
        trial = tune.ask()
        nan = build(trial.parameters)
        spoilt = replace(nan, loss=lambda m, b: (nan.loss(m, b)[0] * float("nan"), 1))
        outcome = run_trial(tune, trial, lambda _: spoilt)
        assert outcome.value is None
        assert "nan" in outcome.stopped.lower()
        assert outcome.steps == 0
        broken = replace(nan, loss=lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run_trial(tune, tune.ask(), lambda _: broken)
        assert [t.state for t in tune.trials] == ["complete", "failed"]
        assert tune.best is None
        outcome = run_trial(tune, tune.ask(), build)
        assert outcome.steps == STEPS
        assert tune.best.value == outcome.value


def test_what_a_trial_trained_before_it_diverged_or_grew_too_large_is_told(tmp_path):
    plain = build({"rate": 0.1, "width": 4})

    def batches(index):
        x, y = plain.batches(index)
        return (x * float("nan"), y) if index == 5 else (x, y)

    def large(model, batch):
        if batch[0].isnan().any():
            raise MemoryError
        return plain.loss(model, batch)

    parts = replace(plain.config, accumulation=AccumulationConfig(max_parts=2))
    jobs = {
        "step 6: loss nan": replace(plain, batches=batches),
        "step 6 ran out of memory": replace(plain, batches=batches, loss=large, config=parts),
    }
    with AutoTune(SPACE, tmp_path / "a.jsonl", search_config(2, asha=None)) as tune:
        for why, job in jobs.items():
            outcome = run_trial(tune, tune.ask(), lambda _, job=job: job)
            assert (outcome.value, outcome.steps) == (None, 5)
            assert why in outcome.stopped
        assert [trial.state for trial in tune.trials] == ["complete", "complete"]


def test_wrong_input_is_refused_with_the_fix(tmp_path):
    path = tmp_path / "a.jsonl"
    with AutoTune(BOWL, path, AutoTuneConfig(trials=1)) as tune:
        with pytest.raises(ValueError, match="not of this search"):
            tune.tell(Trial(0, {"x": 1.0}), 1.0)
        trial = tune.ask()
        with pytest.raises(ValueError, match="not of this search"):
            tune.report(replace(trial, parameters={"x": 1.0}), 1, 1.0)
    with pytest.raises(JournalError, match="another space, seed"):
        AutoTune(SPACE, path, AutoTuneConfig(trials=1, seed=1))
    with path.open("a", encoding="utf-8") as file:
        file.write('{"event":"end","at":1,"trial":7}\n')
    with pytest.raises(JournalError, match="does not follow"):
        AutoTune(BOWL, path, AutoTuneConfig(trials=1))
    (tmp_path / "b.jsonl").write_text("no json\n", encoding="utf-8")
    with pytest.raises(JournalError, match=r"line 1 of journal .*b\.jsonl cannot be read"):
        AutoTune(BOWL, tmp_path / "b.jsonl", AutoTuneConfig(trials=1))
    with pytest.raises(JournalError, match="cannot be opened"):
        AutoTune(BOWL, tmp_path, AutoTuneConfig(trials=1))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "give a budget"),
        ({"seconds": 0.0}, "seconds must be positive"),
        ({"trials": 0}, "at least 1"),
        ({"trials": 1, "goal": "low"}, "'min' or 'max'"),
        ({"trials": 1, "attempts": 0}, "at least 1"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        AutoTuneConfig(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"first": 0, "last": 10}, "at least 1"),
        ({"first": 1, "last": 10, "reduction": 1}, "at least 2"),
        ({"first": 10, "last": 10}, "leave asha out"),
        ({"first": 1, "last": 10, "brackets": 5}, "take 1 to 4"),
    ],
)
def test_wrong_rungs_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        AshaConfig(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"goal": "max"}, "evaluation.goal is 'min'"),
        ({"asha": AshaConfig(first=1, last=STEPS)}, "evaluate at least as often"),
        ({"asha": AshaConfig(first=2, last=9)}, "steps of a whole trial"),
    ],
)
def test_a_training_that_cannot_be_judged_is_refused(tmp_path, settings, message):
    with AutoTune(SPACE, tmp_path / "a.jsonl", search_config(1, **settings)) as tune:
        with pytest.raises(ValueError, match=message):
            run_trial(tune, tune.ask(), build)
        assert tune.trials[0].state == "failed"


def test_ctrl_c_gives_a_trial_back(tmp_path):
    """The process lives on: the next ask gives the trial again, and it goes on."""

    class Interrupt:
        def on_step(self, metrics):
            if metrics.step == 10:
                raise KeyboardInterrupt

    with AutoTune(SPACE, tmp_path / "a.jsonl", search_config(1, attempts=1)) as tune:
        trial = tune.ask()
        with pytest.raises(KeyboardInterrupt):
            run_trial(tune, trial, build, folder=tmp_path, callbacks=[Interrupt()])
        again = tune.ask()
        assert again == trial
        heard = []
        listener = type("Heard", (), {"on_step": lambda self, m: heard.append(m.step)})()
        assert run_trial(tune, again, build, folder=tmp_path, callbacks=[listener]).steps == STEPS
        assert heard[0] == 9  # from the checkpoint after step 8
        assert tune.best.number == 0


def test_a_journal_that_is_closed_twice_closes_no_other_file(tmp_path):
    """The system gives the number of a closed file to the next one that is opened."""
    journal = Journal(tmp_path / "a.jsonl")
    number = journal._file
    journal.close()
    with (tmp_path / "other").open("w", encoding="utf-8") as other:
        assert other.fileno() == number
        journal.close()
        os.fstat(number)


def test_a_training_without_a_figure_is_refused(tmp_path):
    tune = AutoTune(SPACE, tmp_path / "a.jsonl", search_config(1))
    with tune, pytest.raises(ValueError, match="has no evaluate"):
        run_trial(tune, tune.ask(), lambda p: replace(build(p), evaluate=None))
