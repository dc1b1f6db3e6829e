"""A profiler's trace read into operators that know their parents, and changes of memory.

Reads the Chrome trace format that ``torch.profiler`` writes, a documented file format, rather than
the profiler's own objects.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

Phase = Literal["forward", "backward", "optimizer"]
STEP = "penstock.step"
"""Name of the annotation around a step."""
DATA = "penstock.data"
"""Name of the annotation around getting a batch."""
BACKWARD = "autograd::engine::evaluate_function"
OPTIMIZER = "Optimizer."
DEVICE_KINDS = {"kernel", "gpu_memcpy", "gpu_memset"}


@dataclass(slots=True, eq=False)
class Operator:
    """One call of an operator, or a named stretch of code.

    Attributes:
        name: Its name, ``aten::mm``.
        kind: ``cpu_op``, ``user_annotation``, ``kernel`` and so on.
        start: Microseconds since some moment.
        seconds: Seconds it took, calls inside included.
        parent: The call around it on its thread.
        inner_seconds: Seconds of the calls right inside.
        phase: Part of the step it belongs to; what is neither backward nor optimizer is forward.
        shapes: Shapes of its inputs, as text.
        types: Formats of its inputs.
        constants: Its inputs that are no tensors, as text.
    """

    name: str
    kind: str
    start: float
    seconds: float
    parent: Operator | None = None
    inner_seconds: float = 0.0
    phase: Phase = "forward"
    shapes: str = ""
    types: tuple[str, ...] = ()
    constants: tuple[str, ...] = ()

    @property
    def end(self) -> float:
        """Microseconds at its end."""
        return self.start + 1e6 * self.seconds

    @property
    def self_seconds(self) -> float:
        """Seconds outside of the calls inside."""
        return max(self.seconds - self.inner_seconds, 0.0)

    def parents(self) -> Iterator[Operator]:
        """Give the calls around it, from the inside out."""
        around = self.parent
        while around is not None:
            yield around
            around = around.parent


@dataclass(frozen=True, slots=True)
class MemoryChange:
    """Memory taken or given back.

    Attributes:
        moment: Microseconds since some moment.
        address: Of the block.
        bytes: Taken; negative: given back.
        total: Bytes taken and not given back since the profiler began.
        operator: The innermost call at that moment.
    """

    moment: float
    address: int
    bytes: int
    total: int
    operator: Operator | None


@dataclass(frozen=True)
class Trace:
    """What happened in the profiled steps, in order.

    Attributes:
        operators: Calls on CPUs, without annotations.
        annotations: Named stretches.
        kernels: What ran on a GPU.
        memory: Changes of memory.
    """

    operators: list[Operator] = field(default_factory=list)
    annotations: list[Operator] = field(default_factory=list)
    kernels: list[Operator] = field(default_factory=list)
    memory: list[MemoryChange] = field(default_factory=list)

    @cached_property
    def steps(self) -> list[Operator]:
        """The steps."""
        return [a for a in self.annotations if a.name == STEP]

    @property
    def wall_seconds(self) -> float:
        """Seconds of all steps."""
        return sum(s.seconds for s in self.steps)

    def covered_seconds(self, operators: Iterable[Operator]) -> float:
        """Return the seconds of the steps in which any of some operators ran."""
        spans = sorted((o.start, o.end) for o in operators)
        total = 0.0
        for step in self.steps:
            reached = step.start
            for start, end in spans:
                low, high = max(start, reached), min(end, step.end)
                if high > low:
                    total += high - low
                    reached = high
        return total / 1e6


def read_trace(path: Path) -> Trace:
    """Read a trace file, packed or not.

    Raises:
        ValueError: When it is no Chrome trace.
    """
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8") as file:
        try:
            events = json.load(file)["traceEvents"]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is no Chrome trace: {error!r}; profile again") from error
    return parse_trace(events)


def parse_trace(events: Iterable[dict[str, Any]]) -> Trace:
    """Return the trace of Chrome trace events."""
    trace = Trace()
    threads: dict[Any, list[tuple[Any, ...]]] = {}
    for event in events:
        phase, kind = event.get("ph"), str(event.get("cat"))
        if phase == "X" and kind in DEVICE_KINDS:
            trace.kernels.append(_operator(event))
        elif phase == "X" and kind in {"cpu_op", "user_annotation", "cuda_runtime"}:
            made = _operator(event)
            key = (made.start, 0, -made.seconds, len(threads))
            threads.setdefault(event.get("tid"), []).append((*key, made))
        elif event.get("name") == "[memory]":
            key = (float(event["ts"]), 1, 0.0, 0)
            threads.setdefault(event.get("tid"), []).append((*key, event))
    for rows in threads.values():
        _nest(sorted(rows, key=lambda row: row[:4]), trace)
    for found in (trace.operators, trace.annotations, trace.kernels):
        found.sort(key=lambda o: o.start)
    trace.memory.sort(key=lambda change: change.moment)
    return trace


def _nest(rows: list[tuple[Any, ...]], trace: Trace) -> None:
    """Give the calls of a thread their parents, and changes of memory their calls."""
    stack: list[Operator] = []
    for moment, is_memory, _, _, item in rows:
        while stack and stack[-1].end <= moment:
            stack.pop()
        around = stack[-1] if stack else None
        if is_memory:
            found = item["args"]
            taken, total = int(found["Bytes"]), int(found["Total Allocated"])
            trace.memory.append(MemoryChange(moment, found["Addr"], taken, total, around))
            continue
        item.parent = around
        item.phase = _phase(item)
        if around is not None:
            around.inner_seconds += item.seconds
        is_named = item.kind == "user_annotation"
        (trace.annotations if is_named else trace.operators).append(item)
        stack.append(item)


def _phase(operator: Operator) -> Phase:
    if operator.name.startswith(BACKWARD):
        return "backward"
    if operator.name.startswith(OPTIMIZER):
        return "optimizer"
    return operator.parent.phase if operator.parent is not None else "forward"


def _operator(event: dict[str, Any]) -> Operator:
    given = event.get("args", {})
    shapes = [s for s in given.get("Input Dims", []) if s]
    return Operator(
        str(event["name"]),
        str(event["cat"]),
        float(event["ts"]),
        float(event.get("dur", 0.0)) / 1e6,
        shapes=", ".join("×".join(map(str, s)) if _is_flat(s) else "list" for s in shapes),
        types=tuple(map(str, given.get("Input type", ()))),
        constants=tuple(map(str, given.get("Concrete Inputs", ()))),
    )


def _is_flat(shape: list[Any]) -> bool:
    return all(isinstance(size, int) for size in shape)
