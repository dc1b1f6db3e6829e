"""One look at the job: what Flink's REST interface says of it now."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Literal

from infra.errors import ServiceError
from infra.flink_rest import FlinkRest, FlinkRestError, Vertices
from infra.services.flink_cluster import flink_address
from infra.services.process import is_alive
from infra.settings import Settings
from infra.watchdog.config import WatchdogConfig

SLOW_SECONDS = 3.0


@dataclass(frozen=True)
class Observation:
    """What was seen at one moment. Times are seconds since the epoch.

    Args:
        at: the moment.
        reachable: whether the JobManager answered.
        job: Flink's id, "" where no job of the name is known.
        state: Flink's word for its state.
        started_at: when it was submitted.
        changed_at: when its state changed last, as by a restart.
        checkpoint_at: when its last checkpoint was completed, 0 for never.
        checkpoint_s: how long that one took.
        interval_s: time between checkpoints, 0 for none.
        restarts: how often Flink restarted it.
        path: URI of that checkpoint.
        lag: records its sources have not read, None where they do not tell.
        back_pressure: share of time a vertex is held back, 0 to 1.
        holder: whether a process that set out to change the job lives, or died on the way;
            "" without one.
    """

    at: float
    reachable: bool = False
    job: str = ""
    state: str = ""
    started_at: float = 0.0
    changed_at: float = 0.0
    checkpoint_at: float = 0.0
    checkpoint_s: float = 0.0
    interval_s: float = 0.0
    restarts: int = 0
    path: str = ""
    lag: int | None = None
    back_pressure: float = 0.0
    holder: Literal["", "alive", "dead"] = ""


class Observer:
    """Looks at one job; asks for what is dear (lag, back-pressure) only every few seconds.

    Args:
        settings: where the cluster is found.
        config: names the job, and who is changing it.
    """

    def __init__(self, settings: Settings, config: WatchdogConfig) -> None:
        self._settings = settings
        self._name = config.job
        self._holder = (config.holder, config.holder_since)
        self._slow_at = 0.0
        self._lag: int | None = None
        self._pressure = 0.0
        self._interval: tuple[str, float] = ("", 0.0)

    def look(self) -> Observation:
        """What is the case now; never raises for a cluster that is away."""
        now = time.time()
        try:
            host, port = flink_address(self._settings)
            seen = self._look(FlinkRest(host, port), now)
        except (ServiceError, KeyError, TypeError, ValueError):
            seen = Observation(at=now)
        pid, since = self._holder
        if not pid:
            return seen
        return replace(seen, holder="alive" if is_alive(pid, since) else "dead")

    def _look(self, rest: FlinkRest, now: float) -> Observation:
        job = rest.find(self._name)
        if job is None:
            return Observation(at=now, reachable=True)
        found = rest.checkpoints(job.id)
        graph = rest.graph(job.id)
        if job.id != self._interval[0]:
            self._interval = (job.id, rest.checkpoint_interval_ms(job.id) / 1000)
        if not job.ended and now - self._slow_at >= SLOW_SECONDS:
            self._look_slowly(rest, job.id, graph.vertices)
            self._slow_at = now
        return Observation(
            at=now,
            reachable=True,
            job=job.id,
            state=job.state,
            started_at=job.started_ms / 1000,
            changed_at=graph.changed_ms / 1000,
            checkpoint_at=found.last_ms / 1000,
            checkpoint_s=found.duration_ms / 1000,
            interval_s=self._interval[1],
            restarts=0 if job.ended else rest.restarts(job.id),
            path=found.path,
            lag=None if job.ended else self._lag,
            back_pressure=0.0 if job.ended else self._pressure,
        )

    def _look_slowly(self, rest: FlinkRest, job: str, vertices: Vertices) -> None:
        try:
            self._lag = rest.lag(job, vertices)
            self._pressure = rest.back_pressure(job, vertices)
        except FlinkRestError:  # a TaskManager that is away takes its measures with it
            self._lag, self._pressure = None, 0.0
