"""Searches for the tests of the flow, named as a user names them."""

from __future__ import annotations

from kernels.tuning.asha import AshaConfig
from kernels.tuning.job import TuningJob
from tests.kernels.tuning.small import SPACE, STEPS, build


def broken(parameters):
    raise RuntimeError("no such column: amount")


job = TuningJob(space=SPACE, build=build, asha=AshaConfig(first=2, last=STEPS))
broken_job = TuningJob(space=SPACE, build=broken)
nothing = 3
