"""A search that can be named: what is searched and how a trial is built, in a module of yours."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any, Literal

from kernels.tuning.asha import AshaConfig
from kernels.tuning.space import Space
from kernels.tuning.training import Build


class TuningJobError(ValueError):
    """A name that leads to no search; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TuningJob:
    """What a search needs to know of a model.

    Attributes:
        space: What is searched.
        build: Builds the training of a trial.
        asha: When trials are compared; None: every trial trains to its end.
        goal: Whether a low (``min``) or a high (``max``) figure is good.
    """

    space: Space
    build: Build[Any]
    asha: AshaConfig | None = None
    goal: Literal["min", "max"] = "min"


def find_job(name: str) -> TuningJob:
    """Return the job named ``package.module:attribute``.

    Raises:
        TuningJobError: When there is none; says what is missing.
    """
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise TuningJobError(f"{name!r} names no job; write package.module:attribute")
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # it is there, but imports something that is not
        raise TuningJobError(
            f"no module {error.name!r} for {name!r}; start in the folder it lies in, or install it"
        ) from error
    job = getattr(found, attribute, None)
    if not isinstance(job, TuningJob):
        kind = "nothing" if job is None else f"a {type(job).__name__}"
        raise TuningJobError(f"{name!r} is {kind}; make it a kernels.tuning.job.TuningJob")
    return job
