"""Counters and histograms in the text format of Prometheus, cheap enough for every request.

Everything runs in the thread of the event loop, so plain integers do; a library's locks would cost
more than the request's own arithmetic.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

BOUNDS = tuple(round(b * 10**e, 9) for e in range(-5, 1) for b in (1, 2.5, 5))  # 10 us .. 5 s
"""Upper bounds of the latency buckets, seconds."""

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Labels = tuple[str, ...]


class Counter:
    """A number per combination of label values that only grows."""

    def __init__(self, name: str, text: str, labels: Sequence[str] = ()) -> None:
        self.name, self.text, self.labels = name, text, tuple(labels)
        self.values: dict[Labels, float] = {} if labels else {(): 0.0}

    def add(self, *labels: str, by: float = 1.0) -> None:
        """Count."""
        self.values[labels] = self.values.get(labels, 0.0) + by

    def value(self, *labels: str) -> float:
        """Return the count so far."""
        return self.values.get(labels, 0.0)

    def lines(self) -> list[str]:
        """Return the exposition."""
        head = [f"# HELP {self.name} {self.text}", f"# TYPE {self.name} counter"]
        return head + [
            f"{self.name}{_braces(self.labels, labels)} {_number(value)}"
            for labels, value in sorted(self.values.items())
        ]


class Histogram:
    """Durations in seconds, or other sizes, by one label or several."""

    def __init__(
        self,
        name: str,
        text: str,
        label: str | Sequence[str],
        bounds: Sequence[float] = BOUNDS,
    ) -> None:
        self.name, self.text, self.bounds = name, text, tuple(bounds)
        self.labels = (label,) if isinstance(label, str) else tuple(label)
        self._counts: dict[Labels, list[int]] = {}
        self._sums: dict[Labels, float] = {}

    def observe(self, label: str | Labels, size: float) -> None:
        """Count one; several labels come as a tuple."""
        values = (label,) if isinstance(label, str) else label
        counts = self._counts.get(values)
        if counts is None:
            counts = self._counts[values] = [0] * (len(self.bounds) + 1)
            self._sums[values] = 0.0
        counts[bisect_left(self.bounds, size)] += 1
        self._sums[values] += size

    def count(self, label: str | Labels) -> int:
        """Return how many were observed."""
        return sum(self._counts.get((label,) if isinstance(label, str) else label, ()))

    def lines(self) -> list[str]:
        """Return the exposition."""
        out = [f"# HELP {self.name} {self.text}", f"# TYPE {self.name} histogram"]
        for values, counts in sorted(self._counts.items()):
            total = 0
            for bound, count in zip((*map(_number, self.bounds), "+Inf"), counts, strict=True):
                total += count
                braces = _braces((*self.labels, "le"), (*values, bound))
                out.append(f"{self.name}_bucket{braces} {total}")
            braces = _braces(self.labels, values)
            out.append(f"{self.name}_sum{braces} {self._sums[values]:.9g}")
            out.append(f"{self.name}_count{braces} {total}")
        return out


class Gauge:
    """A number read when it is asked for."""

    def __init__(self, name: str, text: str, read: Callable[[], float]) -> None:
        self.name, self.text, self._read = name, text, read

    def lines(self) -> list[str]:
        """Return the exposition."""
        head = [f"# HELP {self.name} {self.text}", f"# TYPE {self.name} gauge"]
        return [*head, f"{self.name} {_number(float(self._read()))}"]


class Gauges:
    """Numbers by label values, read when they are asked for."""

    def __init__(
        self,
        name: str,
        text: str,
        labels: Sequence[str],
        read: Callable[[], Mapping[Labels, float]],
    ) -> None:
        self.name, self.text, self.labels, self._read = name, text, tuple(labels), read

    def lines(self) -> list[str]:
        """Return the exposition."""
        head = [f"# HELP {self.name} {self.text}", f"# TYPE {self.name} gauge"]
        return head + [
            f"{self.name}{_braces(self.labels, labels)} {_number(float(value))}"
            for labels, value in sorted(self._read().items())
        ]


class RequestMetrics(Protocol):
    """What stands around every route of a server and is counted there.

    Attributes:
        requests: By route and status.
        shed: Requests turned away, by reason.
        stages: Time per stage.
    """

    requests: Counter
    shed: Counter
    stages: Histogram


class Metrics:
    """Everything the API counts."""

    def __init__(self) -> None:
        self.requests = Counter(
            "penstock_api_requests_total", "Requests by route and status.", ("route", "status")
        )
        self.decisions = Counter(
            "penstock_api_decisions_total", "Scored transactions by decision.", ("decision",)
        )
        self.degraded = Counter(
            "penstock_api_degraded_total", "Answers that left something out.", ("what",)
        )
        self.unexplained = Counter(
            "penstock_api_unexplained_total",
            "Transactions left without reasons, by cause.",
            ("why",),
        )
        self.conflicts = Counter(
            "penstock_api_rule_conflicts_total",
            "Disagreements of approved rules with the model, by kind.",
            ("kind",),
        )
        self.shed = Counter("penstock_api_shed_total", "Requests turned away.", ("why",))
        self.refused = Counter(
            "penstock_api_refused_total", "Transactions and labels refused, by rule.", ("rule",)
        )
        self.repeated = Counter(
            "penstock_api_repeated_total", "Events answered again from what was kept."
        )
        self.labels = Counter("penstock_api_labels_total", "Labels by outcome.", ("outcome",))
        self.reloads = Counter("penstock_api_reloads_total", "Model changes.", ("outcome",))
        self.events_out = Counter(
            "penstock_api_events_total", "Accepted events handed on, by outcome.", ("outcome",)
        )
        self.stages = Histogram("penstock_api_stage_seconds", "Time per stage.", "stage")
        self._gauges: list[Gauge] = []

    def gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Add a gauge."""
        self._gauges.append(Gauge(name, text, read))

    def render(self) -> bytes:
        """Return the whole exposition."""
        parts: list[Counter | Histogram | Gauge] = [
            self.requests,
            self.decisions,
            self.degraded,
            self.unexplained,
            self.conflicts,
            self.shed,
            self.refused,
            self.repeated,
            self.labels,
            self.reloads,
            self.events_out,
            self.stages,
            *self._gauges,
        ]
        return "\n".join([*(line for part in parts for line in part.lines()), ""]).encode()


def _braces(names: Sequence[str], values: Sequence[str]) -> str:
    if not names:
        return ""
    pairs = (f'{n}="{_escaped(v)}"' for n, v in zip(names, values, strict=True))
    return "{" + ",".join(pairs) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else f"{value:.9g}"
