"""What a job will take, foretold from earlier jobs of its kind.

A user's limit says little: jobs end after any share of it. What the same program took before says
more (Tsafrir, Etsion and Feitelson, IEEE TPDS 2007). The forecast is the mean logarithm of
earlier durations of the kind, drawn towards the user's limit times the usual share of it while
there are few.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from kernels.scheduling.jobs import Request

PRIOR_RUNS = 1.0  # the user's limit counts as much as one run
NEW_SHARE = 0.35  # of a limit, before any run is known


@dataclass(slots=True)
class Seen:
    """Runs of one kind.

    Attributes:
        runs: How many ended.
        log_seconds: Sum of the logarithms of their durations alone on their devices.
        measured: How many were measured.
        utilization: Sum of the utilizations measured.
    """

    runs: int = 0
    log_seconds: float = 0.0
    measured: int = 0
    utilization: float = 0.0


class History:
    """Earlier jobs by kind."""

    def __init__(self) -> None:
        self.kinds: dict[str, Seen] = {}
        self._log_share = math.log(NEW_SHARE)
        self._shares = 1
        self.version = 0

    def finished(self, request: Request, duration: float) -> None:
        """Learn from a job that ended.

        Args:
            request: The job.
            duration: Seconds, as if alone on its devices.
        """
        seen = self.kinds.setdefault(request.kind, Seen())
        seen.runs += 1
        seen.log_seconds += math.log(duration)
        self._log_share += math.log(duration / request.estimate)
        self._shares += 1
        self.version += 1

    def measured(self, request: Request, utilization: float) -> None:
        """Learn from probes of a running job.

        Args:
            request: The job.
            utilization: Share of its devices' time that it keeps busy when alone.
        """
        seen = self.kinds.setdefault(request.kind, Seen())
        seen.measured += 1
        seen.utilization += utilization
        self.version += 1

    def duration(self, request: Request) -> float:
        """Return the forecast of its seconds alone, at most the user's limit."""
        prior = math.log(request.estimate) + self._log_share / self._shares
        seen = self.kinds.get(request.kind)
        if seen is None:
            return math.exp(prior)
        mean = (PRIOR_RUNS * prior + seen.log_seconds) / (PRIOR_RUNS + seen.runs)
        return min(math.exp(mean), request.estimate)

    def utilization(self, request: Request) -> float | None:
        """Return the forecast of its utilization, or None for a kind never measured."""
        seen = self.kinds.get(request.kind)
        return seen.utilization / seen.measured if seen and seen.measured else None

    def record(self) -> dict[str, Any]:
        """Return all of it in plain values."""
        return {
            "log_share": self._log_share,
            "shares": self._shares,
            "kinds": {name: asdict(seen) for name, seen in sorted(self.kinds.items())},
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> History:
        """Return what `record` wrote.

        Raises:
            ValueError: A value is missing, or of the wrong kind.
        """
        made = cls()
        try:
            made._log_share = float(record["log_share"])
            made._shares = int(record["shares"])
            made.kinds = {
                str(name): Seen(
                    runs=int(seen["runs"]),
                    log_seconds=float(seen["log_seconds"]),
                    measured=int(seen["measured"]),
                    utilization=float(seen["utilization"]),
                )
                for name, seen in record["kinds"].items()
            }
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"history: {error!r}; write it anew by tuning") from error
        counts = [count for seen in made.kinds.values() for count in (seen.runs, seen.measured)]
        if made._shares < 1 or min(counts, default=0) < 0:
            raise ValueError("history: counts must not be negative; write it anew by tuning")
        return made
