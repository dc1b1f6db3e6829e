"""A user's function becomes a job; settings change by name; what does not fit is said."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import pytest
import torch

from kernels.runtime.config import RunConfig
from kernels.runtime.job import (
    JobError,
    TrainingJob,
    build_job,
    find_builder,
    run_job,
    source_files,
)
from kernels.runtime.overrides import parse_changes, settings_of, with_changes


def make_job():
    net = torch.nn.Linear(2, 1)
    return TrainingJob(
        model=net,
        batches=lambda _: torch.ones(4, 2),
        loss=lambda model, batch: (model(batch).pow(2).sum(), len(batch)),
        config=RunConfig(steps=3),
    )


def test_changes_are_read_by_the_type_of_the_setting():
    config = with_changes(
        RunConfig(steps=5),
        {
            "steps": "7",
            "optimizer.learning_rate": "1e-3",
            "optimizer.fused": "none",
            "optimizer.betas": "0.8,0.9",
            "deterministic": "true",
            "clipping.kind": "agc",
            "clipping.exclude": "head.,norm.",
            "checkpoint.second": "/else/where",
            "checkpoint.second_every": "5",
            "precision.compute": "auto",
            "ema.decay": 0.5,
        },
    )
    assert config.steps == 7
    assert config.deterministic
    assert config.optimizer.learning_rate == 1e-3
    assert config.optimizer.fused is None
    assert config.optimizer.betas == (0.8, 0.9)
    assert (config.clipping.kind, config.clipping.exclude) == ("agc", ("head.", "norm."))
    assert config.checkpoint.second == Path("/else/where")
    assert (config.precision.compute, config.ema.decay) == ("auto", 0.5)


def test_every_setting_can_be_given_as_the_text_of_its_default():
    config = RunConfig(steps=5)
    texts = {}
    for name in settings_of(RunConfig):
        value = config
        for part in name.split("."):
            value = getattr(value, part)
        pairs = [f"{k}={v}" for k, v in value.items()] if isinstance(value, Mapping) else value
        text = ",".join(map(str, pairs)) if isinstance(pairs, list | tuple) else str(value)
        texts[name] = {"True": "true", "False": "false", "None": "none"}.get(text, text)
    assert with_changes(config, texts) == config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer.learning_rat": 1}, "near it: optimizer.learning_rate"),
        ({"steps": "many"}, "steps must be a whole number, got 'many'"),
        ({"steps": 1.5}, "steps must be a whole number"),
        ({"deterministic": "yes"}, "true or false"),
        ({"clipping.kind": "agx"}, "one of norm, agc, auto, none"),
        ({"optimizer.betas": "0.9"}, "2 numbers"),
        ({"optimizer": "sgd"}, "no setting 'optimizer'"),
    ],
)
def test_wrong_changes_name_the_fix(changes, message):
    with pytest.raises(ValueError, match=message):
        parse_changes(RunConfig, changes)


@dataclass(frozen=True)
class Layers:
    cuts: Mapping[str, Literal["row", "column"]]


def test_names_with_values_are_read_between_commas():
    found = with_changes(Layers({}), {"cuts": "first=row,second=column"})
    assert found == Layers({"first": "row", "second": "column"})
    assert with_changes(found, {"cuts": {"third": "row"}}) == Layers({"third": "row"})
    with pytest.raises(ValueError, match="name=one of row, column between commas, got 'first'"):
        parse_changes(Layers, {"cuts": "first"})


def test_a_changed_config_is_judged_like_any_other():
    with pytest.raises(ValueError, match="steps must be at least 1"):
        with_changes(RunConfig(steps=5), {"steps": 0})


def test_a_job_is_built_changed_and_run(tmp_path):
    job = build_job(make_job, changes={"steps": "4"})
    assert run_job(job, tmp_path).finished == 4
    seen = []
    build_job(lambda data: (seen.append(data), make_job())[1], Path("rows"))
    build_job(lambda data=None: (seen.append(data), make_job())[1])
    assert seen == [Path("rows"), None]


@pytest.mark.parametrize(
    ("builder", "data", "message"),
    [
        (lambda data: make_job(), None, "none was named: pass --data"),
        (make_job, Path("rows"), "takes no data"),
        (lambda data, more: make_job(), Path("rows"), "needs data, more"),
        (lambda: torch.nn.Linear(1, 1), None, "returned Linear; return kernels.runtime.job"),
    ],
)
def test_a_function_that_does_not_fit_is_told_why(builder, data, message):
    with pytest.raises(JobError, match=message):
        build_job(builder, data)


def test_what_is_not_there_is_told(tmp_path, monkeypatch):
    (tmp_path / "own_job.py").write_text("import math\nfrom os import getcwd\ndef build(): ...\n")
    (tmp_path / "broken_job.py").write_text("import no_such_library\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert find_builder("own_job:build").__name__ == "build"
    for place, message in {
        "own_job": "package.module:function",
        "own_job:make": "has no function 'make'; it has build$",
        "no_job:build": "no module 'no_job'",
        "broken_job:build": "needs no_such_library",
    }.items():
        with pytest.raises(JobError, match=message):
            find_builder(place)
    sys.modules.pop("own_job")


OTHERWISE = """
from functools import partial, wraps
from time import time
from own_parts import Builder, make

def told(function):
    @wraps(function)
    def inner(*arguments):
        return function(*arguments)
    return inner

build = partial(partial(make, 3), steps=4)
made = Builder()
method = made.build
wrapped = told(make)

def own(): ...
"""
PARTS = """
class Builder:
    def __call__(self): ...
    def build(self): ...
def make(*arguments, **settings): ...
"""


def test_source_is_found_of_whatever_can_be_called(tmp_path, monkeypatch):
    module, parts = tmp_path / "own_otherwise.py", tmp_path / "own_parts.py"
    module.write_text(OTHERWISE)
    parts.write_text(PARTS)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("build", "made", "method", "wrapped", "Builder"):
        assert source_files(f"own_otherwise:{name}") == [module, parts], name
    assert source_files("own_otherwise:own") == [module]
    assert source_files("own_otherwise:time") == [module]  # what it gives is seen to later
    with pytest.raises(JobError, match="'time:time' has no source file"):
        source_files("time:time")
    for name in ("own_otherwise", "own_parts"):
        sys.modules.pop(name)


def test_a_partial_and_an_object_are_builders():
    def make(steps, data=None):
        return replace(make_job(), config=RunConfig(steps=steps))

    class Maker:
        def __call__(self, data):
            return make(4, data)

    assert build_job(partial(make, 4), Path("rows")).config.steps == 4
    assert build_job(Maker(), Path("rows")).config.steps == 4
