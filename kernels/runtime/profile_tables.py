"""Tables of a profile: operators by their own time, memory over time and what held its peak."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from kernels.runtime.trace import BACKWARD, MemoryChange, Operator, Trace

POINTS = 400


@dataclass(frozen=True, slots=True)
class OperatorRow:
    """Calls of one operator with inputs of the same shapes.

    Attributes:
        name: Its name.
        shapes: Shapes of its inputs.
        phase: Part of the step.
        calls: How many, per step.
        self_seconds: CPU seconds outside of the calls inside, per step.
        seconds: Those inside included.
        share: Of the time of a step.
    """

    name: str
    shapes: str
    phase: str
    calls: float
    self_seconds: float
    seconds: float
    share: float


@dataclass(frozen=True, slots=True)
class Holder:
    """What held memory at the peak.

    Attributes:
        name: The operator that took it, and the part of the step.
        bytes: How much.
        blocks: In how many blocks.
    """

    name: str
    bytes: int
    blocks: int


@dataclass(frozen=True, slots=True)
class MemoryTimeline:
    """Memory taken since the profiler began.

    Attributes:
        seconds: Moments since the first step.
        bytes: Bytes taken then: the largest within a moment.
        peak_bytes: The largest of all.
        peak_seconds: When.
        holders: What held it, largest first.
    """

    seconds: tuple[float, ...] = ()
    bytes: tuple[int, ...] = ()
    peak_bytes: int = 0
    peak_seconds: float = 0.0
    holders: tuple[Holder, ...] = ()


def operator_table(trace: Trace) -> tuple[OperatorRow, ...]:
    """Return the operators of the steps, the most expensive first."""
    steps = max(len(trace.steps), 1)
    wall = trace.wall_seconds or 1.0
    calls: dict[tuple[str, str, str], list[float]] = defaultdict(lambda: [0, 0.0, 0.0])
    for operator in trace.operators:
        found = calls[(operator.name, operator.shapes, operator.phase)]
        found[0] += 1
        found[1] += operator.self_seconds
        found[2] += operator.seconds
    rows = [
        OperatorRow(*key, count / steps, own / steps, whole / steps, own / wall)
        for key, (count, own, whole) in calls.items()
    ]
    return tuple(sorted(rows, key=lambda row: -row.self_seconds))


def memory_timeline(trace: Trace) -> MemoryTimeline:
    """Return memory over time; only changes since the profiler began are known."""
    if not trace.memory:
        return MemoryTimeline()
    begin = trace.steps[0].start if trace.steps else trace.memory[0].moment
    live: dict[int, MemoryChange] = {}
    peak, at_peak = trace.memory[0], dict(live)
    total, largest = 0, -1
    points: list[tuple[float, int]] = []
    for change in trace.memory:
        if change.bytes > 0:
            live[change.address] = change
            total += change.bytes
        elif (taken := live.pop(change.address, None)) is not None:
            total -= taken.bytes
        points.append(((change.moment - begin) / 1e6, total))
        if total > largest:
            largest, peak, at_peak = total, change, dict(live)
    held: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for change in at_peak.values():
        entry = held[_taker(change.operator)]
        entry[0] += change.bytes
        entry[1] += 1
    holders = [Holder(name, size, blocks) for name, (size, blocks) in held.items()]
    holders.sort(key=lambda holder: -holder.bytes)
    drawn = _thinned(points)
    return MemoryTimeline(
        tuple(moment for moment, _ in drawn),
        tuple(size for _, size in drawn),
        largest,
        (peak.moment - begin) / 1e6,
        tuple(holders),
    )


def _taker(operator: Operator | None) -> str:
    """Return the outermost call, which is what a model's code names; the node when backward."""
    if operator is None:
        return "outside of operators"
    outer = [o for o in (operator, *operator.parents()) if o.kind == "cpu_op"]
    if not outer:
        return f"{operator.name} (annotation)"
    name = outer[-1].name
    if name.startswith(BACKWARD):
        return f"{name.removeprefix(BACKWARD).lstrip(': ')} in the backward pass"
    where = {"forward": "the forward pass", "optimizer": "the optimizer"}
    shapes = f" of {outer[-1].shapes}" if outer[-1].shapes else ""
    return f"{name}{shapes} in {where.get(outer[-1].phase, outer[-1].phase)}"


def _thinned(points: list[tuple[float, int]]) -> list[tuple[float, int]]:
    """Return few enough points to be drawn, the largest of each stretch."""
    size = -(-len(points) // POINTS)
    return [
        max(points[i : i + size], key=lambda point: point[1]) for i in range(0, len(points), size)
    ]
