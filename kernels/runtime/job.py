"""What a training is, as one value that a user's function returns."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Generic

from torch import nn

from kernels.runtime.callbacks import Callback
from kernels.runtime.config import RunConfig
from kernels.runtime.evaluation import Evaluate
from kernels.runtime.optimizer import OptimizerFactory
from kernels.runtime.overrides import with_changes
from kernels.runtime.report import Report
from kernels.runtime.runner import Loss, Runner
from kernels.runtime.source import Batch, Batches


class JobError(ValueError):
    """A training that cannot be built; the message says where and how to mend it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingJob(Generic[Batch]):
    """A model, its data and its settings; see `Runner` for each.

    Example:
        >>> import torch
        >>> def build(data):
        ...     model = torch.nn.Linear(2, 1)
        ...     rows = torch.ones(4, 2)
        ...     def loss(net, batch):
        ...         return net(batch).pow(2).sum(), len(batch)
        ...     return TrainingJob(model=model, batches=lambda i: rows, loss=loss,
        ...                        config=RunConfig(steps=3))
        >>> run_job(build(None)).finished
        3
    """

    model: nn.Module
    batches: Batches[Batch]
    loss: Loss[Batch]
    config: RunConfig
    evaluate: Evaluate | None = None
    split: Callable[[Batch, int], list[Batch]] | None = None
    build_optimizer: OptimizerFactory | None = None


Builder = Callable[..., TrainingJob[Any]]
"""A user's function: takes the path of the data, or nothing, and returns the job."""


def find_builder(place: str) -> Builder:
    """Import the function that builds a job.

    Args:
        place: ``package.module:function``.

    Raises:
        JobError: Where there is none; says what was looked for.
    """
    name, _, attribute = place.partition(":")
    if not name or name[0] == "." or not attribute:
        raise JobError(f"{place!r} names no function; write it as package.module:function")
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        # A module that the user's own one lacks is another matter than a misspelt one.
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise JobError(f"{name} needs {error.name}, which is not installed") from error
        raise JobError(
            f"there is no module {name!r}; run from the folder that holds it, or install it"
        ) from error
    found = getattr(module, attribute, None)
    if not callable(found):
        own = [n for n, v in vars(module).items() if getattr(v, "__module__", "") == name]
        offered = ", ".join(n for n in own if n[0] != "_" and inspect.isfunction(vars(module)[n]))
        raise JobError(f"{name} has no function {attribute!r}; it has {offered or 'none'}")
    builder: Builder = found
    return builder


def source_files(place: str) -> list[Path]:
    """Return the files that a builder is written in: its module's, and its function's own.

    The module's comes first. The function of a partial or of a callable object may be written
    elsewhere, while what the module gives it stands in the module.

    Args:
        place: As `find_builder` takes it.

    Raises:
        JobError: Where there is no function, or nothing of it is written in Python.
    """
    found: Any = find_builder(place)
    while True:
        inner = found.func if isinstance(found, partial) else inspect.unwrap(found)
        if inner is found:
            break
        found = inner
    module = sys.modules[place.partition(":")[0]]
    files = []
    for each in (module, found, type(found)):  # an object is as its class is written
        with suppress(TypeError, OSError):  # it is built in, an object, or typed in
            files.append(inspect.getsourcefile(each))
    paths = [Path(file).resolve() for file in files if file and Path(file).is_file()]
    if not paths:
        raise JobError(
            f"{place!r} has no source file, by which a run is told from others; write the function "
            "in a module of your own"
        )
    return list(dict.fromkeys(paths))


def build_job(
    builder: Builder, data: Path | None = None, changes: Mapping[str, Any] | None = None
) -> TrainingJob[Any]:
    """Build a job and change single settings of it.

    Args:
        builder: The user's function.
        data: Path for it; None for a function without arguments.
        changes: Settings by dotted name, e.g. ``{"optimizer.learning_rate": "1e-3"}``.

    Raises:
        JobError: When the function wants no data or lacks it, or returns something else.
        ValueError: For settings that are not there or do not fit.
    """
    wants = [
        p.name
        for p in inspect.signature(builder).parameters.values()
        if p.default is p.empty and p.kind in {p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD}
    ]
    takes = bool(inspect.signature(builder).parameters)
    if len(wants) > 1 or (wants and data is None):
        raise JobError(
            f"the function needs {', '.join(wants)}; it is given the path of the data alone"
            f"{', and none was named: pass --data' if data is None else ''}"
        )
    if data is not None and not takes:
        raise JobError("the function takes no data; leave --data away, or give it a parameter")
    job = builder(data) if data is not None else builder()
    if not isinstance(job, TrainingJob):
        raise JobError(
            f"the function returned {type(job).__name__}; return kernels.runtime.job.TrainingJob"
        )
    return replace(job, config=with_changes(job.config, changes or {}))


def run_job(
    job: TrainingJob[Any], folder: Path | None = None, callbacks: Sequence[Callback] = ()
) -> Report:
    """Train the job's model in place; see `Runner.run`."""
    return Runner(
        job.model,
        job.batches,
        job.loss,
        job.config,
        callbacks=callbacks,
        folder=folder,
        build_optimizer=job.build_optimizer,
        evaluate=job.evaluate,
        split=job.split,
    ).run()
