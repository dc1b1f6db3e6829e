"""Memory that one forward and backward pass takes at its peak, as the system counts it."""

from __future__ import annotations

import ctypes
import ctypes.util
import gc
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

STATUS = Path("/proc/self/status")
RESET = Path("/proc/self/clear_refs")
Attention = Callable[[Tensor, Tensor, Tensor], Tensor]


def peak_mib(attention: Attention, inputs: list[Tensor]) -> float:
    """Return how far the resident size rises above its start, in MiB (NaN where unknown).

    Everything counts that lies beside q, k, v and the incoming gradient: what is saved for the
    backward pass, working memory, the output and the three gradients.
    """
    if not RESET.exists():
        return float("nan")
    _run(attention, [x[:, :, :256].contiguous() for x in inputs])  # libraries load, buffers appear
    gc.collect()
    trim = getattr(ctypes.CDLL(ctypes.util.find_library("c")), "malloc_trim", None)
    if trim is not None:
        trim(0)  # or freed memory would be used again uncounted
    RESET.write_text("5", encoding="ascii")
    start = _kib("VmRSS")
    _run(attention, inputs)
    return (_kib("VmHWM") - start) / 1024


def saved_mib(attention: Attention, inputs: list[Tensor]) -> float:
    """Return what autograd keeps between forward and backward, each storage once, in MiB."""
    kept: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        out = attention(*(x.detach().requires_grad_() for x in inputs[:3]))
        del out
    return sum(kept.values()) / 2**20


def _run(attention: Attention, inputs: list[Tensor]) -> None:
    q, k, v = (x.detach().requires_grad_() for x in inputs[:3])
    attention(q, k, v).backward(inputs[3])


def _kib(field: str) -> int:
    for line in STATUS.read_text(encoding="ascii").splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1])
    raise OSError(f"{STATUS} has no field {field}")
