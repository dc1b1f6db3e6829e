"""From what was seen to what is to be done: the rules, without any effect."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from infra.flink_rest import ENDED
from infra.watchdog.config import WatchdogConfig
from infra.watchdog.observe import Observation

# Remedies for a job that makes no checkpoints, the mildest first; the last one is repeated.
LADDER = ("end-workers", "replace-taskmanager", "resubmit")


@dataclass(frozen=True)
class Verdict:
    """State of the job and the remedy.

    Args:
        state: "idle" (no job named), "held" (somebody is changing it), "unreachable", "missing",
            "stopped", "starting", "healthy", "lagging", "restarting", "overdue", "failed" or
            "given-up".
        reason: one line for people.
        remedy: "", "end-workers", "replace-taskmanager", "replace-jobmanager" or "resubmit".
    """

    state: str
    reason: str
    remedy: str = ""


class Judge:
    """Applies the rules to one observation after the other.

    A job is healthy when its checkpoints are fresh; that it is RUNNING proves nothing. An
    incident begins with the first remedy and ends with a checkpoint made after it.

    Args:
        config: job and patience.
        now: the present, seconds since the epoch.
    """

    def __init__(self, config: WatchdogConfig, now: float) -> None:
        self._config = config
        self._began = now
        self._disturbed_at = now
        self._reached_at = now
        self._present_at = now
        self._checkpoint_at = 0.0
        self._step = 0
        self._gave_up = False
        self._remedies: deque[float] = deque()

    def disturb(self, now: float) -> None:
        """Note that a process was brought back: the job gets its grace anew."""
        self._disturbed_at = max(self._disturbed_at, now)

    def judge(self, seen: Observation) -> Verdict:
        """State and remedy; a remedy given is counted as carried out."""
        if not self._config.job:
            return Verdict("idle", "no job is named")
        if seen.holder == "alive":
            self._reached_at = self._present_at = self._disturbed_at = seen.at
            return Verdict("held", "a process is changing the job: it is left to it")
        return self._present(seen) if seen.reachable else self._unreachable(seen)

    def _present(self, seen: Observation) -> Verdict:
        self._reached_at = seen.at
        if not seen.job:
            return self._absent(seen)
        self._present_at = seen.at
        self._note(seen)
        return self._ended(seen) if seen.state in ENDED else self._living(seen)

    def _ended(self, seen: Observation) -> Verdict:
        if seen.state == "FAILED":
            return self._remedy(seen, "failed", "the job failed for good", "resubmit")
        if seen.holder == "dead":
            reason = f"the job is {seen.state}, and was not started again"
            return self._remedy(seen, "missing", reason, "resubmit")
        return Verdict("stopped", f"the job is {seen.state}: somebody ended it")

    def _note(self, seen: Observation) -> None:
        """Keep what the next judgement needs; a fresh checkpoint ends an incident."""
        if seen.checkpoint_at > self._checkpoint_at:
            self._checkpoint_at = seen.checkpoint_at
            last = self._remedies[-1] if self._remedies else 0.0
            if seen.checkpoint_at > last:
                self._step = 0
                self._gave_up = False

    def _unreachable(self, seen: Observation) -> Verdict:
        silent = seen.at - self._reached_at
        reason = f"the JobManager has not answered for {silent:.0f} s"
        if silent < self._config.hang_s:
            return Verdict("unreachable", reason)
        verdict = self._remedy(seen, "unreachable", reason, "replace-jobmanager")
        if verdict.remedy:
            self._reached_at = seen.at
        return verdict

    def _absent(self, seen: Observation) -> Verdict:
        gone = seen.at - max(self._present_at, self._disturbed_at)
        reason = f"the cluster has known no job {self._config.job!r} for {gone:.0f} s"
        if gone < self._config.missing_s:
            return Verdict("missing", reason)
        return self._remedy(seen, "missing", reason, "resubmit")

    def _living(self, seen: Observation) -> Verdict:
        if seen.interval_s == 0:
            return Verdict("healthy", "the job takes no checkpoints: only its state is known")
        checked = max(self._checkpoint_at, seen.started_at, self._began)
        age = seen.at - checked
        limit = self._config.checkpoint_age_s + seen.interval_s + 2 * seen.checkpoint_s
        disturbed = max(self._disturbed_at, seen.changed_at)
        settling = self._checkpoint_at <= disturbed
        last = self._remedies[-1] if self._remedies else 0.0
        alone = seen.at - max(checked, last)
        if age <= limit:
            return self._fresh(seen, age)
        patient = seen.at - disturbed <= self._config.start_grace_s + limit
        if settling and patient and alone <= self._config.loop_s:
            word = "restarting" if seen.state in {"RESTARTING", "FAILING"} else "starting"
            return Verdict(word, f"{seen.state}, no checkpoint yet for {age:.0f} s")
        reason = f"{seen.state}, but no checkpoint for {age:.0f} s (limit {limit:.0f})"
        return self._remedy(seen, "overdue", reason, LADDER[min(self._step, len(LADDER) - 1)])

    def _fresh(self, seen: Observation, age: float) -> Verdict:
        if self._checkpoint_at < max(seen.started_at, self._began):
            return Verdict("starting", f"{seen.state}, no checkpoint yet")
        told = f"last checkpoint {age:.1f} s ago"
        if seen.state in {"RESTARTING", "FAILING"}:
            return Verdict("restarting", f"{seen.state}, {told}")
        limit = self._config.lag_limit
        if limit and seen.lag is not None and seen.lag > limit:
            return Verdict("lagging", f"{seen.lag:,} records behind (limit {limit:,}); {told}")
        return Verdict("healthy", told)

    def _remedy(self, seen: Observation, state: str, reason: str, remedy: str) -> Verdict:
        """The remedy, unless it is too soon, too often, or cannot be had."""
        config = self._config
        while self._remedies and seen.at - self._remedies[0] > config.window_s:
            self._remedies.popleft()
        if max(self._step, len(self._remedies)) >= config.max_remedies:
            self._gave_up = True
        if self._gave_up:
            tried = f"after {max(self._step, len(self._remedies))} remedies"
            return Verdict("given-up", f"{reason}; given up {tried}: a person must look")
        if remedy == "resubmit" and not config.submit:
            return Verdict(state, f"{reason}; no command to submit it again is known")
        if self._remedies:
            pause = min(config.backoff_s * 2 ** (len(self._remedies) - 1), config.backoff_max_s)
            if seen.at - self._remedies[-1] < pause:
                return Verdict(state, f"{reason}; the next remedy waits")
        self._remedies.append(seen.at)
        self._step += 1
        self.disturb(seen.at)
        return Verdict(state, reason, remedy)
