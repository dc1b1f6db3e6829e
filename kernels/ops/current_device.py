"""The device that kernels are launched on."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from torch import Tensor


def current_device_of(tensor: Tensor) -> AbstractContextManager[None]:
    """Make a tensor's GPU the current one, where Triton launches; nothing for CPU tensors."""
    made: AbstractContextManager[None] = torch.cuda.device_of(tensor)  # type: ignore[no-untyped-call]  # torch's
    return made
