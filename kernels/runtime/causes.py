"""Why a step takes longer than its arithmetic: causes of lost time, in words, with their fix.

Every cause is a share of the time that was measured, told apart so that no second counts twice:
what an operator of the optimizer takes is the optimizer's, a copy is a copy however short.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from kernels.runtime.trace import DATA, Operator, Trace

LEAST_SHARE = 0.02
TINY_SECONDS = 10e-6
"""On CPUs, calling an operator takes a few microseconds whatever it computes."""
FUSED_GAIN = 2.4
"""How many times as fast the fused AdamW was as the plain loop, measured."""

LAYOUT = {"aten::contiguous", "aten::clone", "aten::reshape"}
FORMAT = {"aten::to", "aten::_to_copy", "aten::type_as"}
READ_OUT = {"aten::item", "aten::_local_scalar_dense", "aten::is_nonzero"}
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")
COLLECTIVE = ("gloo:", "nccl:", "c10d::")
FORWARD_ONLY = {
    "aten::linear", "aten::conv1d", "aten::conv2d", "aten::conv3d", "aten::layer_norm",
    "aten::batch_norm", "aten::gelu", "aten::relu", "aten::dropout",
    "aten::scaled_dot_product_attention", "aten::embedding", "aten::softmax",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the trace does not know of the profiled steps.

    Attributes:
        stall_seconds: Seconds without data.
        core_wait_seconds: Seconds in which the main thread was ready and had no core.
        threads: Threads that torch computes with.
        cores: Cores that the process may use.
        plain_step_seconds: A step before the profiler ran; 0 when unknown.
    """

    stall_seconds: float = 0.0
    core_wait_seconds: float = 0.0
    threads: int = 1
    cores: int = 1
    plain_step_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Cause:
    """A cause of lost time.

    Attributes:
        name: Short.
        seconds: Lost per step.
        share: Of the step.
        evidence: What was seen.
        fix: What to do.
    """

    name: str
    seconds: float
    share: float
    evidence: str
    fix: str

    def __str__(self) -> str:
        return (
            f"{self.name}: {1e3 * self.seconds:.2f} ms a step ({self.share:.0%}); "
            f"{self.evidence}. {self.fix}."
        )


class Found(NamedTuple):
    """A cause before it is weighed: its name, seconds of all steps, what was seen, what to do."""

    name: str
    seconds: float
    evidence: str
    fix: str


def causes_of(trace: Trace, facts: Facts, *, at_most: int = 3) -> tuple[Cause, ...]:
    """Return the causes that lose the most time, those of at least 2 % of a step.

    Args:
        trace: The profiled steps.
        facts: What else is known of them.
        at_most: How many.
    """
    steps, wall = max(len(trace.steps), 1), trace.wall_seconds
    if not wall:
        return ()
    found = []
    for look in LOOKS:
        name, seconds, evidence, fix = look(trace, facts)
        if seconds > 0:
            found.append(Cause(name, seconds / steps, seconds / wall, evidence, fix))
    found = [cause for cause in found if cause.share >= LEAST_SHARE]
    return tuple(sorted(found, key=lambda cause: -cause.seconds)[:at_most])


Look = Callable[[Trace, Facts], Found]


def _data(trace: Trace, facts: Facts) -> Found:
    marked = sum(a.seconds for a in trace.annotations if a.name == DATA)
    seconds = marked or facts.stall_seconds
    return Found(
        "Waiting for data",
        seconds,
        f"the step had no batch for {_ms(seconds, trace)}",
        "Wrap the source in prefetched(source, ahead=2, threads=2), or make a batch cheaper: "
        "decode less, store it as it is needed",
    )


def _python(trace: Trace, facts: Facts) -> Found:
    """Time in which no operator ran, and which was not spent waiting for data or a core."""
    marked = [a for a in trace.annotations if a.name == DATA or a.phase == "optimizer"]
    idle = trace.wall_seconds - trace.covered_seconds([*trace.operators, *marked])
    if not any(a.name == DATA for a in marked):
        idle -= facts.stall_seconds
    seconds = idle * _share_with_core(trace, facts)
    return Found(
        "Python between operators",
        seconds,
        f"for {_ms(seconds, trace)} no operator ran",
        "Take loops over samples or tokens out of the model and the loss, evaluate and log less "
        "often, or let CompileConfig(mode='auto') try to trace them away",
    )


def _tiny(trace: Trace, facts: Facts) -> Found:
    found = [
        o
        for o in trace.operators
        if o.self_seconds < TINY_SECONDS and o.phase != "optimizer" and not _has_own_cause(o)
    ]
    seconds = sum(o.self_seconds for o in found)
    count = len(found) / max(len(trace.steps), 1)
    # As many again would be there in a model with work to do: only where they are the rule.
    rest = sum(o.self_seconds for o in trace.operators if o.phase != "optimizer")
    # One that stands still for want of a core is no work: a single one could outlast all tiny ones.
    rest *= _share_with_core(trace, facts)
    return Found(
        "Many tiny operators",
        seconds if seconds > rest / 4 else 0.0,
        f"{count:,.0f} calls a step take below {1e6 * TINY_SECONDS:.0f} µs each, which is what "
        "calling costs",
        "Give larger batches, stack small tensors into one, use fused operators "
        "(kernels.ops.fused), or CompileConfig(mode='auto')",
    )


def _copies(trace: Trace, facts: Facts) -> Found:
    del facts
    copies = [o for o in trace.operators if o.name == "aten::copy_" and o.phase != "optimizer"]
    by_kind = {"layout": 0.0, "format": 0.0, "other": 0.0}
    for copy in copies:
        around = {o.name for o in copy.parents()}
        kind = "format" if around & FORMAT else "layout" if around & LAYOUT else "other"
        by_kind[kind] += copy.self_seconds
    seconds = sum(by_kind.values())
    main = max(by_kind, key=lambda kind: by_kind[kind])
    what = {
        "layout": "tensors are laid out anew (contiguous, clone, reshape)",
        "format": "tensors go from one number format to another",
        "other": "tensors are copied",
    }[main]
    fix = {
        "layout": "Keep one layout: permute weights once, avoid transpose before view, set "
        "memory_format once for model and batch",
        "format": "Make batches in the format in which the model computes, and look for float64 or "
        "integers that creep in",
        "other": "Write into the tensor that is wanted, or take views",
    }[main]
    return Found(
        "Copies and conversions",
        seconds,
        f"in {len(copies) / max(len(trace.steps), 1):,.0f} copies a step {what}",
        fix,
    )


def _waiting(trace: Trace, facts: Facts) -> Found:
    del facts
    reads = [o for o in trace.operators if o.name in READ_OUT and o.phase != "optimizer"]
    reads = [o for o in reads if not any(p.name in READ_OUT for p in o.parents())]
    waits = [o for o in trace.operators if o.name in WAITS]
    seconds = sum(o.seconds for o in [*reads, *waits])
    return Found(
        "Reading results out",
        seconds,
        f"{len(reads) / max(len(trace.steps), 1):,.0f} times a step a number is read out of a "
        "tensor (.item(), float(), if)",
        "Keep numbers as tensors and read them once, after the step",
    )


def _processes(trace: Trace, facts: Facts) -> Found:
    del facts
    found = [o for o in trace.operators if o.name.startswith(COLLECTIVE)]
    seconds = trace.covered_seconds(found)
    return Found(
        "Waiting for other processes",
        seconds,
        f"{len(found) / max(len(trace.steps), 1):,.0f} collective calls a step",
        "Share the work out evenly (share_out), update after more batches "
        "(AccumulationConfig(batches=4)), or send fewer bytes",
    )


def _optimizer(trace: Trace, facts: Facts) -> Found:
    del facts
    steps = [a for a in trace.annotations if a.name.startswith("Optimizer.step")]
    names = {o.name for o in trace.operators if o.phase == "optimizer"}
    is_fused = any(name.startswith("aten::_fused_") for name in names)
    whole = sum(s.seconds for s in steps)
    count = sum(o.phase == "optimizer" for o in trace.operators) / max(len(trace.steps), 1)
    return Found(
        "Optimizer not fused",
        0.0 if is_fused else whole * (1 - 1 / FUSED_GAIN),
        f"updates take {_ms(whole, trace)} in {count:,.0f} operators; one kernel took 1 / "
        f"{FUSED_GAIN} of that where it was measured",
        "Let OptimizerConfig build it, or pass fused=True",
    )


def _recompute(trace: Trace, facts: Facts) -> Found:
    """Calls in the backward pass that only a forward pass makes."""
    del facts
    again = [o for o in trace.operators if o.phase == "backward" and o.name in FORWARD_ONLY]
    again = [o for o in again if not any(p.name in FORWARD_ONLY for p in o.parents())]
    seconds = sum(o.seconds for o in again)
    return Found(
        "Activations computed again",
        seconds,
        f"{len(again) / max(len(trace.steps), 1):,.0f} operators of the forward pass run in the "
        "backward pass",
        "Raise memory.budget_mib or lower memory.share, where memory allows",
    )


def _cores(trace: Trace, facts: Facts) -> Found:
    del trace
    fix = "Let fewer processes share the machine"
    if facts.threads > facts.cores:
        fix = f"Call torch.set_num_threads({facts.cores}), or set OMP_NUM_THREADS"
    return Found(
        "Waiting for a core",
        facts.core_wait_seconds,
        "the main thread was ready and had no core; torch computes with "
        f"{_some(facts.threads, 'thread')} on {_some(facts.cores, 'core')}",
        fix,
    )


def _device(trace: Trace, facts: Facts) -> Found:
    del facts
    idle = trace.wall_seconds - trace.covered_seconds(trace.kernels)
    return Found(
        "GPU without work",
        idle if trace.kernels else 0.0,
        f"no kernel ran for {_ms(idle, trace)}",
        "Kernels are started too slowly: larger batches, CompileConfig(mode='auto'), data ahead "
        "(prefetched)",
    )


LOOKS: tuple[Look, ...] = (
    _data, _python, _tiny, _copies, _waiting, _processes, _optimizer, _recompute, _cores, _device,
)  # fmt: skip


def _has_own_cause(operator: Operator) -> bool:
    return operator.name == "aten::copy_" or operator.name in READ_OUT


def _share_with_core(trace: Trace, facts: Facts) -> float:
    """Return the share of the steps in which the main thread did not miss a core.

    It is missed inside of operators as well as between them.
    """
    return 1 - min(facts.core_wait_seconds / trace.wall_seconds, 1.0)


def _some(count: int, thing: str) -> str:
    return f"{count} {thing}{'' if count == 1 else 's'}"


def _ms(seconds: float, trace: Trace) -> str:
    return f"{1e3 * seconds / max(len(trace.steps), 1):.2f} ms a step"
