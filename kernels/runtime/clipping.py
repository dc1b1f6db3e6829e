"""Gradient clipping: by the global norm, by the size of each unit's weights, by a moving quantile.

- ``norm``: Pascanu et al., "On the difficulty of training recurrent neural networks", 2013.
- ``agc``: Brock et al., "High-performance large-scale image recognition without normalization",
  2021 (adaptive gradient clipping): no unit's gradient may exceed a share of its weights' norm.
- ``auto``: Seetharaman et al., "AutoClip: adaptive gradient clipping for source separation
  networks", 2020: the limit is a quantile of the norms seen so far, here of a moving window.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

Held = tuple[str, Tensor, Tensor]
"""Name, parameter and gradient."""

AGC_FLOOR = 1e-3
"""Norm that a unit's weights are taken to have at least: else zeros could never move."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClippingConfig:
    """How gradients are limited before the update.

    Attributes:
        kind: ``norm``, ``agc``, ``auto`` or ``none``.
        max_norm: Limit of the global L2 norm (``norm``).
        share: Largest gradient norm of a unit over its weights' norm (``agc``).
        exclude: Names of parameters, or beginnings of names, that ``agc`` leaves alone; the paper
            leaves out the last linear layer.
        quantile: Quantile of the last norms that becomes the limit (``auto``).
        window: How many of them are kept (``auto``).
    """

    kind: Literal["norm", "agc", "auto", "none"] = "norm"
    max_norm: float = 1.0
    share: float = 0.01
    exclude: tuple[str, ...] = ()
    quantile: float = 0.1
    window: int = 1_000

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if self.kind not in {"norm", "agc", "auto", "none"}:
            raise ValueError(
                f"clipping.kind is {self.kind!r}; take 'norm', 'agc', 'auto' or 'none'"
            )
        if not self.max_norm > 0 or not self.share > 0:
            raise ValueError(
                "clipping.max_norm and clipping.share must be positive, got "
                f"{self.max_norm} and {self.share}; clipping.kind='none' switches clipping off"
            )
        if not 0 < self.quantile <= 1 or self.window < 1:
            raise ValueError(
                "clipping.quantile must lie in (0, 1] and clipping.window be at least 1, got "
                f"{self.quantile} and {self.window}"
            )


class Clipper:
    """Limits the gradients of a model, in place.

    Attributes:
        limit: The limit of the last step; infinite where there was none.
    """

    def __init__(self, config: ClippingConfig) -> None:
        self.config = config
        self.limit = float("inf")
        self._norms: deque[float] = deque(maxlen=config.window)

    def __call__(self, held: Sequence[Held], norm: float) -> None:
        """Clip.

        Args:
            held: Name, parameter and gradient of all that is trained.
            norm: Global L2 norm of the gradients, finite.
        """
        if self.config.kind == "norm":
            self.limit = self.config.max_norm
        elif self.config.kind == "auto":
            self._norms.append(norm)
            self.limit = float(np.quantile(self._norms, self.config.quantile))
        elif self.config.kind == "agc":
            clip_units(held, self.config.share, self.config.exclude)
        if norm > self.limit:
            torch._foreach_mul_([gradient for _, _, gradient in held], self.limit / norm)

    def state_dict(self) -> dict[str, Any]:
        """Return what the next limit depends on."""
        return {"norms": list(self._norms)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self._norms = deque(state["norms"], maxlen=self.config.window)


@torch.no_grad()
def clip_units(held: Sequence[Held], share: float, exclude: tuple[str, ...] = ()) -> None:
    """Scale down each unit's gradient to ``share`` of its weights' norm.

    A unit is what makes one output: a row of a matrix, a filter of a convolution; of a vector
    (biases, norms) it is the whole.
    """
    for name, parameter, gradient in held:
        if name.startswith(exclude):
            continue
        dims = tuple(range(1, parameter.ndim)) or None
        keep = parameter.ndim > 1
        weight = torch.linalg.vector_norm(parameter, dim=dims, keepdim=keep).clamp_(min=AGC_FLOOR)
        found = torch.linalg.vector_norm(gradient, dim=dims, keepdim=keep).clamp_(min=1e-12)
        gradient.mul_((share * weight / found).clamp_(max=1.0))
