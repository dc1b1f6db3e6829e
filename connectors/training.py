"""A user's training, run in one process or several, its figures sent to MLflow.

``python -m connectors.training REQUEST`` is one process of several: of those that `train` starts,
or of ``torchrun --nproc-per-node 4 -m connectors.training REQUEST``. The first one writes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from connectors.files import atomic_path
from connectors.profiles import FOLDER as PROFILE
from connectors.profiles import profile_logger
from infra.errors import PenstockError
from kernels.runtime.launch import GRACE_SECONDS

if TYPE_CHECKING:
    from kernels.runtime.callbacks import Callback
    from kernels.runtime.group import Group
    from kernels.runtime.job import TrainingJob
    from kernels.runtime.report import Report

logger = logging.getLogger(__name__)

WEIGHTS, REPORT, REQUEST = "model.safetensors", "report.json", "request.json"
HANGS = "hangs"
HANG_SECONDS = 900.0
"""Longest silence of a process: the others hear nothing while the first one evaluates."""
GROUP_SECONDS = 120.0
"""Least time after which the group itself gives up: processes do not all start at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRequest:
    """What is trained, and where its files go.

    Attributes:
        module: The function that builds the job, ``package.module:function``.
        data: Path for it; empty for a function without arguments.
        changes: Settings of its config by dotted name.
        folder: Checkpoints, weights and report.
        run_id: MLflow run for the figures of every step; empty for none.
        profile: Profile some steps of the first process; the report lies in ``folder/profile``.
        hang_seconds: Of several processes, how long one may finish no step before it counts as
            hanging and all are ended; longer than the longest evaluation.
    """

    module: str
    data: str = ""
    changes: Mapping[str, Any] = field(default_factory=dict)
    folder: str
    run_id: str = ""
    profile: bool = False
    hang_seconds: float = HANG_SECONDS

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if not 0 < self.hang_seconds < math.inf:
            raise ValueError(
                f"hang_seconds must be a number above 0, got {self.hang_seconds}; give what the "
                "longest evaluation takes, and some more"
            )

    @classmethod
    def load(cls, path: Path) -> TrainingRequest:
        """Read a request.

        Raises:
            PenstockError: When the file is missing or no request.
        """
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise PenstockError(
                f"{path} is no request for a training: {error}", "Start it by: penstock train"
            ) from error

    def save(self) -> Path:
        """Write the request into its folder; return its path."""
        place = Path(self.folder) / REQUEST
        _write_json(place, asdict(self))
        return place


def identity(module: str, data: Path | None, changes: Mapping[str, Any]) -> str:
    """Return a short key of all that a training's result depends on, as far as it can be seen.

    That is the source of the user's module and function, names, sizes and times of the data files,
    and the changed settings. The same call twice goes on with the same run.

    Raises:
        PenstockError: When the data is not there.
        JobError: When there is no such function, or no source of it.
    """
    from kernels.runtime.job import source_files

    sources = [_state_of(path) for path in source_files(module)]
    parts = [module, *sources, json.dumps(dict(changes), sort_keys=True, default=str)]
    if data is not None:
        if not data.exists():
            raise PenstockError(f"there is no {data}", "Check the path given by --data")
        inside = sorted(p for p in data.rglob("*") if p.is_file()) if data.is_dir() else [data]
        parts += [_state_of(path) for path in inside]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def train(
    request: TrainingRequest,
    processes: int = 1,
    *,
    shown: bool = False,
    grace_seconds: float = GRACE_SECONDS,
) -> dict[str, Any]:
    """Train, and return the report as a JSON record.

    Args:
        request: What is trained.
        processes: Processes on this machine, each with its part of every batch.
        shown: Draw a progress bar on the terminal.
        grace_seconds: How long several may take to save and end when they are told to.

    Raises:
        RankFailedError: When one of several processes failed; its own message is on stderr.
        ValueError: For a job that cannot be built or settings that do not fit.
    """
    place = request.save()
    if processes == 1:
        from kernels.runtime.group import Group

        _run(request, Group(), shown=shown)
    else:
        from kernels.runtime.launch import launch

        command = [sys.executable, "-m", __name__, str(place)]
        threads = max((os.cpu_count() or 1) // processes, 1)
        command += ["--shown"] if shown else []
        launch(command, processes, threads=threads, grace=grace_seconds)
    record: dict[str, Any] = json.loads((Path(request.folder) / REPORT).read_text("utf-8"))
    return record


def main(arguments: list[str]) -> int:
    """Be one process of several; return the exit code."""
    from infra.environment import apply_environment
    from infra.logging import configure_logging
    from infra.settings import get_settings
    from kernels.runtime.group import Group

    settings = get_settings()
    configure_logging(settings.log_level)
    apply_environment(settings)  # where MLflow is, for processes that torchrun started
    rank = os.environ.get("RANK", "0")
    try:
        request = TrainingRequest.load(Path(arguments[0]))
        # A little later than the detector, which says whose fault it is.
        timeout = max(1.2 * request.hang_seconds, GROUP_SECONDS)
        with Group.join(timeout=timeout) as group:
            _run(request, group, shown="--shown" in arguments and group.is_first)
    except Exception as error:
        told = (rank, type(error).__name__, error)
        logger.log(logging.ERROR, "rank %s: %s: %s", *told, exc_info=True)
        return 1
    return 0


def _run(request: TrainingRequest, group: Group, *, shown: bool) -> None:
    """Build the job and train it in this process; the first one writes weights and report."""
    from kernels.runtime.job import build_job, find_builder, run_job
    from kernels.runtime.memory_advice import explaining
    from kernels.runtime.profiler import Profiler

    folder = Path(request.folder)
    builder = find_builder(request.module)
    job = build_job(builder, Path(request.data) if request.data else None, request.changes)
    with _listeners(request, job.config.steps, group, shown=shown) as callbacks:
        for profiler in callbacks:
            if isinstance(profiler, Profiler):
                job = replace(job, batches=profiler.reading(job.batches))
        with (
            _watched(job, request, group) as job,
            explaining(job.model, job.loss, partial(job.batches, 0)),
        ):
            report = run_job(job, folder / "checkpoints", callbacks)
    if group.is_first:
        from safetensors.torch import save_model

        with atomic_path(folder / WEIGHTS) as path:
            save_model(job.model, str(path))
        _write_json(folder / REPORT, _record(report, asdict(job.config), group.size))


@contextlib.contextmanager
def _watched(
    job: TrainingJob[Any], request: TrainingRequest, group: Group
) -> Iterator[TrainingJob[Any]]:
    """Of several processes name the one that hangs, before the group's own time-out blames all."""
    from kernels.runtime.hang_detector import HangConfig, HangDetector

    if group.size == 1:
        yield job
        return
    seconds, folder = request.hang_seconds, Path(request.folder) / HANGS
    plan = HangConfig(timeout=seconds, interval=min(2.0, seconds / 10))
    with HangDetector(folder, plan, rank=group.rank, size=group.size) as detector:
        yield replace(job, batches=detector.watching(job.batches))


@contextlib.contextmanager
def _listeners(
    request: TrainingRequest, steps: int, group: Group, *, shown: bool
) -> Iterator[list[Callback]]:
    """Open what listens to the steps, in the first process alone."""
    with contextlib.ExitStack() as stack:
        found: list[Callback] = []
        then = None
        if group.is_first and request.run_id:
            from connectors.tracking import MlflowCallback, resumed_run

            run = stack.enter_context(resumed_run(request.run_id))
            # A long run's pages need no more points than a screen has.
            callback = MlflowCallback(run, every=max(50, steps // 200))
            stack.callback(callback.close)
            found.append(callback)
            then = profile_logger(run)
        if group.is_first and request.profile:
            from kernels.runtime.profiler import Profiler

            profiler = Profiler(Path(request.folder) / PROFILE, then=then)
            found.append(stack.enter_context(profiler))
        if shown:
            from kernels.runtime.progress import ProgressBar

            found.append(stack.enter_context(ProgressBar(request.module)))
        yield found


def _record(report: Report, config: dict[str, Any], processes: int) -> dict[str, Any]:
    """Return the report and the settings that led to it as JSON values."""
    found = asdict(report) | {"config": config, "processes": processes}
    return json.loads(json.dumps(found, default=str))  # type: ignore[no-any-return]  # an object


def _state_of(path: Path) -> str:
    stat = path.stat()
    return f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns}"


def _write_json(place: Path, value: Mapping[str, Any]) -> None:
    with atomic_path(place) as path:
        path.write_text(json.dumps(value, indent=1, default=str), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
