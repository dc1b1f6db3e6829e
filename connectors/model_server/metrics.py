"""What the model server counts, per model and version where that says more."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from connectors.api.metrics import Counter, Gauges, Histogram

BATCH_BOUNDS = tuple(float(2**power) for power in range(11))  # 1 .. 1024
_VERSION = ("model", "version")


class ModelMetrics:
    """Counters, histograms and gauges; labels name only models that are served."""

    def __init__(self) -> None:
        self.requests = Counter(
            "penstock_models_requests_total", "Requests by route and status.", ("route", "status")
        )
        self.shed = Counter("penstock_models_shed_total", "Requests turned away.", ("why",))
        self.reloads = Counter("penstock_models_reloads_total", "Looks for models.", ("outcome",))
        self.inferences = Counter(
            "penstock_models_inferences_total",
            "Requests that reached a model, by what became of them.",
            (*_VERSION, "outcome"),
        )
        self.rows = Counter("penstock_models_rows_total", "Rows that a model has run on.", _VERSION)
        self.stages = Histogram("penstock_models_stage_seconds", "Time per stage.", "stage")
        self.latency = Histogram(
            "penstock_models_seconds", "From a read request to its answer.", _VERSION
        )
        self.waits = Histogram(
            "penstock_models_queue_seconds", "Wait of a request for its batch.", _VERSION
        )
        self.runs = Histogram("penstock_models_run_seconds", "Time of one batch.", _VERSION)
        self.batches = Histogram(
            "penstock_models_batch_requests", "Requests of a batch.", _VERSION, BATCH_BOUNDS
        )
        self._gauges: list[Gauges] = []

    def gauges(self, gauges: Iterable[Gauges]) -> None:
        """Add gauges."""
        self._gauges += gauges

    def families(self) -> dict[str, list[str]]:
        """Return the lines of every metric by its name."""
        parts: list[Counter | Histogram | Gauges] = [
            self.requests,
            self.shed,
            self.reloads,
            self.inferences,
            self.rows,
            self.stages,
            self.latency,
            self.waits,
            self.runs,
            self.batches,
            *self._gauges,
        ]
        return {part.name: part.lines() for part in parts}

    def render(self) -> bytes:
        """Return the whole exposition."""
        return exposition({"": self.families()})


def exposition(workers: Mapping[str, Mapping[str, list[str]]]) -> bytes:
    """Return the text of what some processes count.

    Args:
        workers: Label of a process -> its `ModelMetrics.families`; an empty label is left out.
    """
    names = dict.fromkeys(name for families in workers.values() for name in families)
    lines: list[str] = []
    for name in names:
        heads: list[str] = []
        samples: list[str] = []
        for worker, families in workers.items():
            own = families.get(name, [])
            heads = heads or own[:2]
            samples += (_labelled(line, worker) for line in own[2:])
        lines += heads + samples
    return "\n".join([*lines, ""]).encode()


def _labelled(line: str, worker: str) -> str:
    if not worker:
        return line
    name, brace, rest = line.partition("{")
    if brace:
        return f'{name}{{worker="{worker}",{rest}'
    name, _, value = line.partition(" ")
    return f'{name}{{worker="{worker}"}} {value}'
