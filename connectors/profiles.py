"""Profiles of training runs in MLflow: the report, the trace and the figures of a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from connectors.tracking import TrackedRun
    from kernels.runtime.profiler import Profile

FOLDER = "profile"


def log_profile(run: TrackedRun, profile: Profile) -> None:
    """Attach report and trace under ``profile/``; log the seconds of a step and of its causes.

    Args:
        run: The run.
        profile: What a `Profiler` found.
    """
    run.log_file(profile.report_path, FOLDER)
    run.log_file(profile.trace_path, FOLDER)
    run.log_metrics(
        {
            "profile.step_seconds": profile.step_seconds,
            "profile.peak_bytes": profile.memory.peak_bytes,
            **{f"profile.lost.{_name(c.name)}": c.seconds for c in profile.causes},
        }
    )
    run.set_tags({"profile.summary": profile.summary})


def profile_logger(run: TrackedRun) -> Callable[[Profile], None]:
    """Return what to give a `Profiler` as ``then``."""

    def then(profile: Profile) -> None:
        log_profile(run, profile)

    return then


def _name(words: str) -> str:
    return words.lower().replace(" ", "_")
