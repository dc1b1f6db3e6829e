"""Which waiting job starts now, and where.

One family of policies, of which the known ones are members: strict first come, first served;
EASY backfill (Lifka 1995; Mu'alem and Feitelson, IEEE TPDS 2001), where a later job may start if
it does not delay the first waiting one; first fit, largest first, where nothing is held back for
anyone. Beyond these, jobs whose measured profiles fit share devices, durations come from history
instead of the user's limit, and the order of the queue is a weighted score.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kernels.scheduling.history import History
from kernels.scheduling.jobs import HOUR, Cluster, Request
from kernels.scheduling.occupancy import Occupancy
from kernels.scheduling.policy_config import PolicyConfig


@dataclass(slots=True)
class Running:
    """A job that runs.

    Attributes:
        request: The job.
        devices: Where.
        start: Second at which it started.
        ran: Seconds of its duration that are done, told by its own progress.
        measured: Utilization by probes, None before they have seen enough.
    """

    request: Request
    devices: tuple[int, ...]
    start: float
    ran: float = 0.0
    measured: float | None = None


@dataclass(frozen=True, slots=True)
class View:
    """What a policy sees.

    Attributes:
        now: Second.
        queue: Waiting jobs by arrival.
        running: Running ones by number.
    """

    now: float
    queue: Sequence[Request]
    running: Mapping[int, Running]


@dataclass(frozen=True, slots=True)
class Start:
    """A decision: this job starts now on these devices."""

    number: int
    devices: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Reservation:
    """What was promised to the first waiting job.

    Attributes:
        number: Which job.
        time: Second at which it will fit, as far as is foretold.
    """

    number: int
    time: float


class Policy:
    """Decides by a config and by what it has seen.

    Args:
        config: Which member of the family.
        cluster: The devices.
        history: Earlier jobs; it grows by what runs.
    """

    def __init__(
        self, config: PolicyConfig, cluster: Cluster, history: History | None = None
    ) -> None:
        self.config = config
        self.cluster = cluster
        self.history = history or History()
        self.reservation: Reservation | None = None
        self._limit = config.load_limit if config.share else 1.0
        self._tenants = min(config.tenants, cluster.tenants) if config.share else 1
        self._foretold: dict[int, tuple[Request, tuple[float, float]]] = {}
        self._version = -1

    def finished(self, request: Request, duration: float) -> None:
        """Learn from a job that ended after so many seconds of its own duration."""
        self.history.finished(request, duration)
        self._foretold.pop(request.number, None)

    def measured(self, request: Request, utilization: float) -> None:
        """Learn from probes of a running job."""
        self.history.measured(request, utilization)

    def choose(self, view: View) -> list[Start]:
        """Return what starts now, in order; empty if nothing fits.

        Args:
            view: The queue and what runs.
        """
        self.reservation = None
        starts: list[Start] = []
        if not view.queue:
            return starts
        now = self._occupancy(view)
        held: _Held | None = None
        refused: list[tuple[int, float, float]] = []
        room = now.has_room()
        for request in self._ordered(view):
            if not room:
                break
            seconds, used = self._forecast(request)
            devices, memory = request.devices, request.memory
            if any(devices >= d and memory >= m and used >= u for d, m, u in refused):
                continue  # needs no less than one for which there was no room
            found = self.place(request, now)
            if found is None:
                refused.append((devices, memory, used))
                if not self.config.overtake:
                    break
                if held is None:
                    held = self._hold(request, view, now)
                continue
            end = view.now + seconds * now.slowdown(used, found)
            if held is not None and end > held.time and not held.allows(request, used, found):
                continue
            now.add(request, used, found, end=end)
            room = now.has_room()
            starts.append(Start(request.number, found))
        if held is not None:
            self.reservation = Reservation(held.head.number, held.time)
        return starts

    def _hold(self, head: Request, view: View, now: Occupancy) -> _Held | None:
        """Foretell when a job fits; None if that is too far off."""
        if not self.config.reserve_hours:
            return None
        used = self._forecast(head)[1]
        later = now.copy()
        last = view.now + self.config.reserve_hours * HOUR
        near = [each for each in now.ends if each[0] <= last]
        for end, request, its_use, devices in sorted(near, key=_by_end):
            later.remove(request, its_use, devices)
            if later.fits(head, used):
                return _Held(head, used, end, later)
        return None

    def score(self, request: Request) -> float:
        """Return what puts a job before others, its waiting left out."""
        config = self.config
        seconds, used = self._forecast(request)
        score = config.size * math.log2(request.devices)
        score += config.length * math.log2(seconds / HOUR) + config.load * used
        return score + config.memory * request.memory / self.cluster.memory

    def place(self, request: Request, occupancy: Occupancy) -> tuple[int, ...] | None:
        """Return the devices that a job gets now, or None.

        Args:
            request: The job.
            occupancy: What lies on the devices.
        """
        used = self._forecast(request)[1]
        return occupancy.place(request, used, fullest_first=self.config.fullest_first)

    def utilization(self, request: Request) -> float:
        """Return the forecast of a job's utilization."""
        return self._forecast(request)[1]

    def occupancy(self) -> Occupancy:
        """Return empty devices under the limits of the policy."""
        return Occupancy(self.cluster, self._limit, self._tenants)

    def _ordered(self, view: View) -> list[Request]:
        config = self.config
        if not (config.size or config.length or config.load or config.memory):
            return list(view.queue)
        oldest = view.now - config.patience_hours * HOUR

        def rank(request: Request) -> tuple[bool, float, int]:
            if request.arrival <= oldest:
                return False, request.arrival, request.number
            waited = config.age * (view.now - request.arrival) / HOUR
            return True, -self.score(request) - waited, request.number

        return sorted(view.queue, key=rank)

    def _forecast(self, request: Request) -> tuple[float, float]:
        """Return seconds and utilization."""
        if self._version != self.history.version:
            self._foretold.clear()
            self._version = self.history.version
        known = self._foretold.get(request.number)
        if known is not None and known[0] is request:
            return known[1]
        seconds = self.history.duration(request) if self.config.forecast else request.estimate
        used = self._utilization(request) if self.config.share else 1.0
        self._foretold[request.number] = request, (seconds, used)
        return seconds, used

    def _utilization(self, request: Request) -> float:
        used = self.history.utilization(request)
        return self.config.unmeasured if used is None else used

    def _occupancy(self, view: View) -> Occupancy:
        made = self.occupancy()
        uses = {}
        for number, job in view.running.items():
            used = self._forecast(job.request)[1]
            if self.config.share and job.measured is not None:
                used = job.measured
            uses[number] = used
            made.add(job.request, used, job.devices)
        for number, job in view.running.items():
            end = view.now + self._left(job) * made.slowdown(uses[number], job.devices, there=True)
            made.ends.append((end, job.request, uses[number], job.devices))
        return made

    def _left(self, job: Running) -> float:
        """Return the seconds that a running job still needs, in its own time.

        One that outlives its forecast is taken to need a quarter of what it took so far.
        """
        limit = job.request.estimate - job.ran
        if not self.config.forecast:
            return limit
        return min(limit, max(self._forecast(job.request)[0] - job.ran, 0.25 * job.ran))


@dataclass(frozen=True, slots=True)
class _Held:
    """Devices as they will be when a waiting job fits."""

    head: Request
    used: float
    time: float
    devices: Occupancy

    def allows(self, request: Request, used: float, devices: tuple[int, ...]) -> bool:
        """Whether the head will still fit beside a job; if so, the job is noted."""
        self.devices.add(request, used, devices)
        if self.devices.fits(self.head, self.used):
            return True
        self.devices.remove(request, used, devices)
        return False


def _by_end(entry: tuple[float, Request, float, tuple[int, ...]]) -> tuple[float, int]:
    return entry[0], entry[1].number
