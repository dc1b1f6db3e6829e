"""From which length on sparse attention is faster than dense attention, by measurement."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

logger = logging.getLogger(__name__)
Attention = Callable[[Tensor, Tensor, Tensor], Tensor]


class Crossover:
    """Remembers, per device and shape, whether dense attention was faster.

    Each case is measured once, forward and backward on random inputs of one head at the next power
    of two, and logged.

    Args:
        path: JSON file that keeps the results between processes; None keeps them in memory.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._seconds: dict[str, tuple[float, float]] = {}
        if path is not None and path.is_file():
            kept = json.loads(path.read_text(encoding="utf-8"))
            self._seconds = {key: (float(d), float(s)) for key, (d, s) in kept.items()}

    def sparse_pays(
        self, sparse: Callable[[], Attention], dense: Attention, like: Tensor, n: int, case: str
    ) -> bool:
        """Return whether sparse attention is faster.

        Args:
            sparse: Makes sparse attention of q, k and v, all [1, 1, n, D]; called to measure.
            dense: Dense attention of the same.
            like: Gives dtype, device and D.
            n: Length; the next power of two is what is measured.
            case: What else the answer depends on.
        """
        size = 1 << max(n - 1, 1).bit_length()
        threads = torch.get_num_threads()
        key = f"{device_name(like.device)}, {threads} threads, {like.dtype}, {case}, n={size}"
        if key not in self._seconds:
            with torch.random.fork_rng(_cuda(like.device)):  # the caller's draws stay as they were
                shape = (1, 1, size, like.shape[-1])
                inputs = [torch.randn(shape, dtype=like.dtype, device=like.device) for _ in "qkvg"]
                took = (_seconds(dense, inputs), _seconds(sparse(), inputs))
            self._seconds[key] = took
            logger.info(
                "attention crossover, %s: dense %.4f s, sparse %.4f s, %s from now on",
                key, *took, "dense" if took[0] <= took[1] else "sparse",
            )  # fmt: skip
            self._keep()
        dense_s, sparse_s = self._seconds[key]
        return sparse_s < dense_s

    def _keep(self) -> None:
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            partial = self._path.with_suffix(".part")
            partial.write_text(json.dumps(self._seconds, indent=1), encoding="utf-8")
            partial.replace(self._path)


def device_name(device: torch.device) -> str:
    """Return what a measurement on the device is valid for."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def _seconds(attention: Attention, inputs: list[Tensor], repeats: int = 3) -> float:
    """Return the least wall time of forward and backward, after one pass that warms up."""
    times = []
    with torch.enable_grad():
        for _ in range(repeats + 1):
            q, k, v = (x.detach().requires_grad_() for x in inputs[:3])
            _wait(q.device)
            start = time.perf_counter()
            torch.autograd.backward(attention(q, k, v), inputs[3])
            _wait(q.device)
            times.append(time.perf_counter() - start)
    return min(times[1:])


def _cuda(device: torch.device) -> list[Any]:
    return [device] if device.type == "cuda" else []


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
