"""What the scorer's server counts."""

from __future__ import annotations

from collections.abc import Iterable

from connectors.api.metrics import Counter, Gauges, Histogram


class PrivateMetrics:
    """Counters and histograms; labels name models and verdicts, never tenants' rows."""

    def __init__(self) -> None:
        self.requests = Counter(
            "penstock_private_requests_total", "Requests by route and status.", ("route", "status")
        )
        self.shed = Counter("penstock_private_shed_total", "Requests turned away.", ("why",))
        self.verdicts = Counter(
            "penstock_private_verdicts_total",
            "Scoring requests by what came of them.",
            ("verdict",),
        )
        self.rows = Counter("penstock_private_rows_total", "Rows scored.", ("model",))
        self.stages = Histogram("penstock_private_stage_seconds", "Time per stage.", "stage")
        self._gauges: list[Gauges] = []

    def gauges(self, gauges: Iterable[Gauges]) -> None:
        """Add gauges."""
        self._gauges += gauges

    def render(self) -> bytes:
        """Return the whole exposition."""
        parts: list[Counter | Histogram | Gauges] = [
            self.requests,
            self.shed,
            self.verdicts,
            self.rows,
            self.stages,
            *self._gauges,
        ]
        return "\n".join([*(line for part in parts for line in part.lines()), ""]).encode()
