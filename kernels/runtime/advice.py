"""Advice on number formats, layout and data, from a model, a batch and the steps so far."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from kernels.runtime.callbacks import StepMetrics

Topic = Literal["format", "layout", "data", "memory", "threads"]
PADDED_SHARE = 0.3
STALL_SHARE = 0.05
CONVOLUTIONS = (nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True, slots=True)
class Advice:
    """Something that costs time or memory.

    Attributes:
        topic: What it is about.
        where: Part of the model or of the batch.
        what: What was seen.
        fix: What to do.
    """

    topic: Topic
    where: str
    what: str
    fix: str

    def __str__(self) -> str:
        return f"{self.topic}, {self.where}: {self.what}. {self.fix}."


def format_advice(model: nn.Module, batch: Any) -> list[Advice]:
    """Return what is odd about the number formats of a model and a batch.

    Args:
        model: The model, on the device it will train on.
        batch: A batch as its source gives it.
    """
    found = []
    tensors = dict(tensors_of(batch))
    wide = [n for n, p in model.named_parameters() if p.dtype == torch.float64]
    if wide:
        found.append(
            Advice(
                "format",
                _some(wide),
                "parameters are float64: twice the memory, half the speed or less",
                "Call model.float(); NumPy's arrays are float64 unless told otherwise",
            )
        )
    wide = [n for n, t in tensors.items() if t.dtype == torch.float64]
    if wide:
        found.append(
            Advice(
                "format",
                f"batch {_some(wide)}",
                "the batch is float64, and is converted at every step or widens what it meets",
                "Make it float32 where it is made (astype('float32'))",
            )
        )
    narrow = {p.dtype for p in model.parameters() if p.dtype in {torch.float16, torch.bfloat16}}
    device = next((p.device.type for p in model.parameters()), "cpu")
    if narrow and device == "cpu" and not has_matrix_units():
        found.append(
            Advice(
                "format",
                ", ".join(str(d).removeprefix("torch.") for d in sorted(narrow, key=str)),
                "this CPU has no matrix units for narrow formats (AMX): a step takes longer than "
                "in fp32 (.78 times the speed where it was measured)",
                "Take fp32, or PrecisionConfig(compute='auto'), which measures",
            )
        )
    return found


def layout_advice(model: nn.Module, batch: Any) -> list[Advice]:
    """Return what is odd about layouts and widths.

    Layout and widths matter to matrix units; on other CPUs channels_last often loses, so that it
    is not advised there: measure it.
    """
    found = []
    device = next((p.device.type for p in model.parameters()), "cpu")
    if device == "cuda" or has_matrix_units():
        first = [
            n
            for n, m in model.named_modules()
            if isinstance(m, CONVOLUTIONS) and not _is_channels_last(m.weight)
        ]
        if first:
            found.append(
                Advice(
                    "layout",
                    _some(first),
                    "convolutions have their channels first, which matrix units have to turn",
                    "Call model.to(memory_format=torch.channels_last), and the same of the images",
                )
            )
        odd = odd_widths(model)
        if odd:
            told = ", ".join(f"{name} {width}" for name, width in list(odd.items())[:5])
            found.append(
                Advice(
                    "layout",
                    told,
                    "widths are no multiples of 8: matrix units pad them, or are not used at all",
                    "Round them up, vocabularies to a multiple of 64",
                )
            )
    scattered = [n for n, t in tensors_of(batch) if t.ndim > 1 and not _is_dense(t)]
    if scattered:
        found.append(
            Advice(
                "layout",
                f"batch {_some(scattered)}",
                "the batch is a view that is not laid out row by row; every operator goes over it "
                "in strides",
                "Call .contiguous() once, where the batch is made",
            )
        )
    return found


def data_advice(model: nn.Module, batch: Any) -> list[Advice]:
    """Return what is odd about a batch: padding, its device, too few rows for a batch norm."""
    found = []
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    for name, tensor in tensors_of(batch):
        if tensor.device.type != device.type:
            found.append(
                Advice(
                    "data",
                    f"batch {name}",
                    f"it lies on {tensor.device}, the model on {device}: every step copies it",
                    "Copy ahead (pin_memory and non_blocking=True, in a prefetched source)",
                )
            )
        share = padded_share(tensor)
        if share > PADDED_SHARE:
            found.append(
                Advice(
                    "data",
                    f"batch {name}",
                    f"{share:.0%} of it are zeros at the ends of rows: padding that is computed",
                    "Put samples of about equal length into a batch, or pack several into a row",
                )
            )
    rows = next((len(t) for _, t in tensors_of(batch) if t.ndim), 0)
    norms = [n for n, m in model.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]  # noqa: SLF001 - the only common class
    if norms and 0 < rows < 8:
        found.append(
            Advice(
                "data",
                _some(norms),
                f"batch norms see {rows} rows: their statistics are noise",
                "Give larger batches, or take GroupNorm or LayerNorm",
            )
        )
    return found


def loader_advice(steps: Sequence[StepMetrics]) -> Advice | None:
    """Return how to have batches in time, None where they are.

    Args:
        steps: Figures of some steps, such as `History` keeps.
    """
    lasted = [s.items / s.items_per_second for s in steps if s.items_per_second > 0]
    stalls = [s.stall_seconds for s in steps if s.items_per_second > 0]
    total, waited = sum(lasted), sum(stalls)
    if not total or waited / total < STALL_SHARE:
        return None
    # As many threads as keep up with what is computed in the meantime, within the cores.
    busy = max(total - waited, 1e-9)
    threads = min(math.ceil(waited / busy), 8)
    worst = sorted(stalls, reverse=True)
    burst = sum(worst[: max(len(worst) // 10, 1)]) / waited
    if burst > 0.8 and len(stalls) >= 20:
        what = f"{burst:.0%} of it in a tenth of the steps, as when a new file is opened"
        fix = f"Make more batches ahead: prefetched(source, ahead={max(8, 2 * threads)}, threads=2)"
    else:
        what = f"{1e3 * waited / len(stalls):.1f} ms in every step"
        fix = f"prefetched(source, ahead={2 * threads}, threads={threads}) makes them meanwhile"
    return Advice(
        "data",
        f"{len(stalls)} steps",
        f"they waited for batches {waited / total:.0%} of their time, {what}",
        fix,
    )


def threads_advice() -> Advice | None:
    """Return how many threads to take, None where there are not too many."""
    threads, cores = torch.get_num_threads(), len(os.sched_getaffinity(0))
    if threads <= cores:
        return None
    return Advice(
        "threads",
        "torch",
        f"it computes with {threads} threads on {cores} cores: they wait for each other",
        f"Call torch.set_num_threads({cores}), or set OMP_NUM_THREADS",
    )


def odd_widths(model: nn.Module, multiple: int = 8) -> dict[str, int]:
    """Return layers whose widths are no multiples, by name; outputs below it are left out."""
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            widths = [module.in_features, module.out_features]
        elif isinstance(module, nn.Embedding):
            widths = [module.num_embeddings, module.embedding_dim]
        else:
            continue
        odd = [w for w in widths if w % multiple and w > multiple]
        if odd:
            found[name] = odd[0]
    return found


def padded_share(tensor: Tensor) -> float:
    """Return the share of zeros that end rows of integers [rows, length] or a mask."""
    if tensor.ndim != 2 or tensor.is_floating_point() or not tensor.numel():
        return 0.0
    used = tensor.ne(0).flip(1).long().cumsum(1).ne(0)
    return 1.0 - float(used.sum()) / tensor.numel()


def tensors_of(batch: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """Give the tensors of a batch with their places."""
    if isinstance(batch, Tensor):
        yield name or "tensor", batch
    elif isinstance(batch, Mapping):
        for key, value in batch.items():
            yield from tensors_of(value, f"{name}[{key!r}]")
    elif isinstance(batch, list | tuple):
        for index, value in enumerate(batch):
            yield from tensors_of(value, f"{name}[{index}]")
    elif is_dataclass(batch) and not isinstance(batch, type):
        for each in fields(batch):
            yield from tensors_of(getattr(batch, each.name), f"{name}.{each.name}")


@cache
def has_matrix_units() -> bool:
    """Whether this CPU multiplies matrices of bf16 in hardware of its own (AMX)."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return "amx_bf16" in text


def _is_channels_last(weight: Tensor) -> bool:
    wanted = torch.channels_last if weight.ndim == 4 else torch.channels_last_3d
    return weight.is_contiguous(memory_format=wanted)


def _is_dense(tensor: Tensor) -> bool:
    return tensor.is_contiguous() or (tensor.ndim in {4, 5} and _is_channels_last(tensor))


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(name or "the model" for name in names[:3]) + more
