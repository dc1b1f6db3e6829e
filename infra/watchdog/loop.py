"""The watchdog itself: looks, judges, acts, tells, and looks again."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

from infra.errors import ConfigurationError, PenstockError
from infra.settings import Settings
from infra.watchdog.actions import Actions, attempt
from infra.watchdog.config import WatchdogConfig, config_path, load_config
from infra.watchdog.hold import settle
from infra.watchdog.judge import Judge, Verdict
from infra.watchdog.observe import Observation, Observer
from infra.watchdog.report import Report, read_status, write_status

LOG = logging.getLogger(__name__)
REVIVE_PAUSE = 2.0
REVIVE_PAUSE_MAX = 60.0
FILE_SECONDS = 1.0
SETTLE_SECONDS = 5.0
STANDS_IN = {"flink-taskmanager": "flink-standby", "flink-standby": "flink-taskmanager"}


class Watchdog:
    """Watches the services and one job.

    Services are brought back at once, each in a thread of its own, with growing pauses between
    failing attempts; remedies for the job come one at a time.

    Args:
        settings: where the services are.
        config: what to watch.
        actions: what can be done.
        observer: looks at the job; the real one by default.
    """

    def __init__(
        self,
        settings: Settings,
        config: WatchdogConfig,
        actions: Actions,
        observer: Callable[[], Observation] | None = None,
    ) -> None:
        self.report = Report(since=time.time())
        self._settings = settings
        self._actions = actions
        self._observer = observer
        self._pool = ThreadPoolExecutor(max_workers=12, thread_name_prefix="watchdog")
        self._reviving: dict[str, Future[bool]] = {}
        self._failed: dict[str, tuple[int, float]] = {}
        self._crashed_at: dict[str, float] = {}
        self._checkpoint_at = 0.0
        self._dead_since = 0.0
        self._remedy: Future[str] | None = None
        self._remedy_name = ""
        self._written_at = 0.0
        self._looked_at = 0.0
        self._take(config)
        self._recall()

    def _take(self, config: WatchdogConfig) -> None:
        self.config = config
        self._judge = Judge(config, time.time())
        self._look = self._observer or Observer(self._settings, config).look

    def _recall(self) -> None:
        """Take the last known run of the job from the file of an earlier watchdog."""
        self._job = self._path = ""
        earlier = read_status(self._settings) or {}
        seen = earlier.get("observation")
        if earlier.get("job") == self.config.job and isinstance(seen, dict):
            self._job, self._path = str(seen.get("job", "")), str(seen.get("path", ""))

    def run(self, stop: threading.Event) -> None:
        """Look until ``stop`` is set."""
        read_at = self._config_time()
        while not stop.is_set():
            if self._config_time() != read_at:
                read_at = self._config_time()
                self._reload()
            try:
                self.step()
            except Exception:  # the watch must go on, whatever one look ran into
                LOG.exception("this look failed; the next one comes")
            stop.wait(self.config.poll_s)
        self._pool.shutdown(wait=False, cancel_futures=True)

    def step(self) -> None:
        """One look with all that follows from it."""
        self._tend_services()
        self._tend_remedy()
        if time.monotonic() - self._looked_at >= self.config.look_s:
            self._looked_at = time.monotonic()
            self._tend_job()

    def _tend_job(self) -> None:
        """Look at the job, judge, begin a remedy."""
        seen = self._look() if self.config.job else Observation(at=time.time())
        self._job, self._path = seen.job or self._job, seen.path or self._path
        self._checkpoint_at = max(self._checkpoint_at, seen.checkpoint_at)
        if self._remedy is None:
            verdict = self._judge.judge(seen)
        else:
            verdict = Verdict("restarting", f"{self._remedy_name} is under way")
        if verdict.state != self.report.state:
            LOG.info("%s: %s", verdict.state, verdict.reason)
        self.report.update(self.config.job, seen, verdict)
        if verdict.remedy:
            self._start_remedy(verdict, seen)
        self._settle_holder(seen, verdict)
        if time.time() - self._written_at >= FILE_SECONDS or verdict.remedy:
            self._written_at = time.time()
            self._write()

    def _settle_holder(self, seen: Observation, verdict: Verdict) -> None:
        """Forget who died while changing the job, once that can have no more consequences.

        A savepoint that ends the job may be under way; until it is there or has failed, Flink makes
        no checkpoint.
        """
        if seen.holder != "dead":
            self._dead_since = 0.0
            return
        self._dead_since = self._dead_since or seen.at
        well = verdict.state in {"healthy", "lagging"}
        if well and seen.checkpoint_at > self._dead_since + SETTLE_SECONDS:
            settle(self._settings, self.config.holder, self.config.holder_since)

    def _write(self) -> None:
        try:
            write_status(self._settings, self.report)
        except OSError as error:  # a full disk must not end the watch
            LOG.warning("the status cannot be written: %s", error)

    def _config_time(self) -> float:
        try:
            return config_path(self._settings).stat().st_mtime_ns
        except OSError:
            return 0.0

    def _reload(self) -> None:
        try:
            config = load_config(self._settings)
        except ConfigurationError as error:
            LOG.warning("the old settings stay in force: %s", error)
            return
        known, self.config = self.config, config
        if replace(known, holder=0, holder_since=0.0) == replace(
            config, holder=0, holder_since=0.0
        ):
            self._look = self._observer or Observer(self._settings, config).look
            self._dead_since = 0.0
            return  # what is known of the job holds on
        LOG.info("watching job %r", config.job)
        self._take(config)
        self._recall()

    def _tend_services(self) -> None:
        """Bring back what crashed; note what came of earlier attempts."""
        for name, future in list(self._reviving.items()):
            if future.done():
                del self._reviving[name]
                self._note_revival(name, future)
        self.report.services = self._actions.states(self.config.services)
        crashed = [name for name, state in self.report.services.items() if state == "crashed"]
        now = time.time()
        self._crashed_at = {name: self._crashed_at.get(name, now) for name in crashed}
        waiting = {name for name in crashed if self._waits(name)}
        for name in crashed:
            _, pause_until = self._failed.get(name, (0, 0.0))
            if name not in self._reviving and name not in waiting and now >= pause_until:
                LOG.warning("%s has crashed; it is started again", name)
                self._reviving[name] = self._pool.submit(self._actions.revive, name)
        if self._reviving or waiting:
            self._judge.disturb(now)

    def _waits(self, name: str) -> bool:
        """Whether a TaskManager is better started once the job runs on the other one."""
        since = self._crashed_at[name]
        other = self.report.services.get(STANDS_IN.get(name, ""))
        return (
            other == "running"
            and bool(self.config.job)
            and time.time() - since < self.config.standby_s
            and self._checkpoint_at <= since
        )

    def _note_revival(self, name: str, future: Future[bool]) -> None:
        error = future.exception()
        if error is None:
            self._failed.pop(name, None)
            if future.result():
                self.report.act(f"revive {name}", "done")
            return
        count = self._failed.get(name, (0, 0.0))[0] + 1
        pause = min(REVIVE_PAUSE * 2 ** (count - 1), REVIVE_PAUSE_MAX)
        self._failed[name] = (count, time.time() + pause)
        known = error if isinstance(error, PenstockError) else PenstockError(repr(error))
        self.report.act(f"revive {name}", attempt(f"attempt {count} to start {name}", known))

    def _start_remedy(self, verdict: Verdict, seen: Observation) -> None:
        """Carry out a remedy in a thread, for it may take a minute."""
        LOG.warning("%s: %s", verdict.remedy, verdict.reason)
        self._remedy_name = verdict.remedy
        job, path = seen.job or self._job, seen.path or self._path

        def carry_out() -> str:
            if verdict.remedy == "end-workers":
                ended = self._actions.end_workers()
                if ended:
                    return f"{ended} workers ended"
                done = self._actions.replace("flink-taskmanager")
                return "no workers; " + ("TaskManager replaced" if done else "no TaskManager")
            if verdict.remedy == "resubmit":
                used = self._actions.resubmit(self.config.submit, job, path)
                return f"submitted from {used or 'nothing: no checkpoint was found'}"
            name = verdict.remedy.replace("replace-", "flink-")
            return "done" if self._actions.replace(name) else f"{name} was stopped on purpose"

        self._remedy = self._pool.submit(carry_out)

    def _tend_remedy(self) -> None:
        if self._remedy is None or not self._remedy.done():
            return
        error = self._remedy.exception()
        if error is None:
            result = self._remedy.result()
        else:
            known = error if isinstance(error, PenstockError) else PenstockError(repr(error))
            result = attempt(self._remedy_name, known)
        LOG.info("%s: %s", self._remedy_name, result)
        self.report.act(self._remedy_name, result)
        self._judge.disturb(time.time())
        self._remedy = None
