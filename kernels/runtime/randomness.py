"""All random states of a process: seeded for a run, saved with it, put back after it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


@contextmanager
def seeded(seed: int, *, deterministic: bool = False) -> Iterator[None]:
    """Seed Python, NumPy and torch inside; whoever drew before goes on as if nothing had been.

    Args:
        seed: The seed.
        deterministic: Refuse operations whose result depends on chance or on timing.
    """
    before = random_state()
    strict = torch.are_deterministic_algorithms_enabled()
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - what users' own code draws from
    torch.manual_seed(seed)
    if deterministic:
        torch.use_deterministic_algorithms(mode=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(strict)
        set_random_state(before)


def random_state() -> dict[str, Any]:
    """Return the states of Python, NumPy, torch and its devices, as tensors and plain values."""
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002 - as above
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {
        "torch": torch.get_rng_state(),
        "devices": devices,
        "python": {"version": version, "words": torch.tensor(words), "gauss": gauss},
        "numpy": {
            "name": str(name),
            "keys": torch.from_numpy(np.asarray(keys).astype(np.int64)),
            "rest": [int(position), int(has_gauss), float(cached)],
        },
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Restore them; of devices as many as there are here."""
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available():
        for device, each in enumerate(state["devices"][: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(each, device)
    python, numpy = state["python"], state["numpy"]
    random.setstate((python["version"], tuple(python["words"].tolist()), python["gauss"]))
    keys = numpy["keys"].numpy().astype(np.uint32)
    np.random.set_state((numpy["name"], keys, *numpy["rest"]))  # noqa: NPY002 - as above
