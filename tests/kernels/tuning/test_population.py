"""Population-based training: members copy better ones, change on the way, survive a kill."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from kernels.runtime.checkpoint_files import CheckpointError
from kernels.runtime.clipping import ClippingConfig
from kernels.runtime.config import RunConfig
from kernels.runtime.ema import EmaConfig
from kernels.runtime.job import TrainingJob
from kernels.runtime.optimizer import OptimizerConfig
from kernels.runtime.schedule import ScheduleConfig
from kernels.tuning.explore import copies, perturbed
from kernels.tuning.population import Population, PopulationConfig
from kernels.tuning.space import Choice, Integer, Space, Uniform
from tests.kernels.runtime.small import batches, squared
from tests.kernels.tuning.small import evaluate, make_model

SPACE = Space({"rate": Uniform(1e-5, 1.0, log=True)})
CONFIG = PopulationConfig(steps=24, interval=6, members=4)


def build(parameters, number, **more):
    settings = {"schedule": ScheduleConfig(name="constant", warmup=0.0)} | more
    return TrainingJob(
        model=make_model(8, seed=number),
        batches=batches,
        loss=squared,
        evaluate=evaluate,
        config=RunConfig(
            steps=1, optimizer=OptimizerConfig(learning_rate=parameters["rate"]), **settings
        ),
    )


def test_it_beats_the_same_members_left_alone_over_ten_seeds():
    """Left alone: the same first weights, rates and batches, never compared."""
    ratios = []
    for seed in range(10):
        config = replace(CONFIG, seed=seed)
        learning = Population(SPACE, build, config)
        alone = [Population(SPACE, build, config).members[n].parameters for n in range(4)]
        report = learning.run()
        # An interval of all but one step compares only before the last one.
        left = Population(SPACE, build, replace(config, interval=23))
        assert [m.parameters for m in left.members] == alone
        assert report.copied == 3
        assert len(report.best.schedule) > 1 or report.best.parameters in alone
        ratios.append(report.best.value / left.run().best.value)
    assert np.exp(np.mean(np.log(ratios))) < 0.9
    assert sum(r < 1 for r in ratios) >= 6


def test_the_best_model_is_the_one_that_was_judged():
    report = Population(SPACE, build, CONFIG).run()
    model = make_model(8)
    model.load_state_dict(report.best.model)
    model.eval()
    with torch.no_grad():
        assert evaluate(model) == report.best.value
    assert report.best.value == min(m.value for m in report.members)
    assert [step for step, _ in report.best.schedule] == sorted(
        {0, *(step for step, _ in report.best.schedule)}
    )


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_one_member_alone_trains_as_one_run_does(schedule):
    """Weights, optimizer, batches and schedule are handed on whole: no copying, the same bits."""
    from kernels.runtime.runner import run

    narrow = Space({"rate": Uniform(0.01, 0.011)})
    config = PopulationConfig(steps=12, interval=5, members=3)

    def scheduled(parameters, number):
        return build(parameters, number, schedule=ScheduleConfig(name=schedule))

    population = Population(narrow, scheduled, config)
    rates = [m.parameters for m in population.members]
    report = population.run()
    untouched = [n for n, m in enumerate(report.members) if len(m.schedule) == 1]
    assert untouched
    for number in untouched:
        whole = scheduled(rates[number], number)
        run(whole.model, batches, squared, replace(whole.config, steps=12))
        for name, value in whole.model.state_dict().items():
            assert torch.equal(value, report.members[number].model[name])


def test_a_killed_population_goes_on_the_same(tmp_path, monkeypatch):
    whole = Population(SPACE, build, CONFIG).run()
    builds = []

    def dying(parameters, number):
        builds.append(number)
        if len(builds) == 10:
            raise KeyboardInterrupt
        return build(parameters, number)

    with pytest.raises(KeyboardInterrupt):
        Population(SPACE, dying, CONFIG, folder=tmp_path).run()
    again = Population(SPACE, build, CONFIG, folder=tmp_path).run()
    assert again.copied == whole.copied
    assert [(m.value, m.parameters, m.schedule) for m in again.members] == [
        (m.value, m.parameters, m.schedule) for m in whole.members
    ]
    finished = Population(SPACE, lambda *_: 1 / 0, CONFIG, folder=tmp_path).run()
    assert finished.best.value == whole.best.value
    assert len(list(tmp_path.glob("step-*"))) == 2
    with pytest.raises(CheckpointError, match="other settings"):
        Population(SPACE, build, replace(CONFIG, seed=1), folder=tmp_path).run()
    for file in tmp_path.glob("step-*/state.json"):
        file.write_text("{}")
    with pytest.raises(CheckpointError, match="every checkpoint"):
        Population(SPACE, build, CONFIG, folder=tmp_path).run()


def test_who_diverges_copies_and_all_diverging_is_an_error():
    def torn(parameters, number):
        made = build(parameters, number)
        if number < 2:
            return replace(made, loss=lambda m, b: (squared(m, b)[0] * math.nan, 1))
        return made

    report = Population(SPACE, torn, replace(CONFIG, steps=12)).run()
    assert report.copied >= 2
    assert math.isfinite(report.best.value)
    with pytest.raises(RuntimeError, match="every member diverged"):
        Population(
            SPACE,
            lambda p, n: replace(build(p, n), loss=lambda m, b: (squared(m, b)[0] * math.nan, 1)),
            CONFIG,
        ).run()


def test_the_worst_copy_the_best():
    generator = np.random.default_rng(0)
    values = [0.5, 0.1, math.nan, 0.9, 0.2, 0.3, 0.4, 0.6]
    for _ in range(20):
        found = copies(values, 0.25, generator)
        assert set(found) == {2, 3}
        assert set(found.values()) <= {1, 4}
    assert copies([math.nan, math.nan], 0.5, generator) == {}


def test_neighbours_lie_near_and_inside():
    generator = np.random.default_rng(0)
    space = Space(
        {
            "rate": Uniform(1e-4, 1.0, log=True),
            "dropout": Uniform(0.0, 0.5),
            "steps": Integer(1, 10),
            "batch": Choice((16, 32, 64)),
        }
    )
    start = {"rate": 0.01, "dropout": 0.0, "steps": 2, "batch": 64}
    seen = [space.checked(perturbed(start, space, 0.0, generator)) for _ in range(50)]
    assert {round(p["rate"], 6) for p in seen} == {0.008, 0.0125}
    assert {p["dropout"] for p in seen} == {0.0, 0.05}
    assert {p["steps"] for p in seen} == {1, 3}
    assert {p["batch"] for p in seen} == {32, 64}
    anew = [perturbed(start, space, 1.0, generator)["rate"] for _ in range(50)]
    assert max(anew) / min(anew) > 100


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"members": 1}, "2 or more"),
        ({"interval": 24}, "nothing ever changes"),
        ({"share": 0.6}, r"share must lie in \(0, .5\]"),
        ({"goal": "low"}, "'min' or 'max'"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **settings)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"ema": EmaConfig(decay=0.9)}, "leave out ema.decay"),
        ({"clipping": ClippingConfig(kind="auto")}, "clipping.kind='auto'"),
    ],
)
def test_what_cannot_be_handed_on_is_refused(more, message):
    with pytest.raises(ValueError, match=message):
        Population(SPACE, lambda p, n: build(p, n, **more), CONFIG).run()


def test_nothing_to_judge_by_is_refused():
    with pytest.raises(ValueError, match="has no evaluate"):
        Population(SPACE, lambda p, n: replace(build(p, n), evaluate=None), CONFIG).run()


def test_a_population_may_not_change_the_models_shape():
    space = Space({"rate": Uniform(1e-3, 1e-2), "width": Integer(2, 64)})

    def shaped(parameters, number):
        return replace(build(parameters, number), model=make_model(parameters["width"]))

    config = PopulationConfig(steps=8, interval=2, members=4, redraw=1.0)
    with pytest.raises(ValueError, match="search it by AutoTune"):
        Population(space, shaped, config).run()
