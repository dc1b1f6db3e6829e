"""Optimizers of a run: which parameters decay, which implementation of the step is used.

AdamW: Loshchilov and Hutter, "Decoupled weight decay regularization", 2019.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

logger = logging.getLogger(__name__)

Group = dict[str, Any]
OptimizerFactory = Callable[[list[Group]], torch.optim.Optimizer]
"""Builds an optimizer over parameter groups with ``params`` and ``weight_decay``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerConfig:
    """Which optimizer, and its settings.

    Attributes:
        name: ``adamw`` or ``sgd``.
        learning_rate: Peak learning rate; the schedule scales it.
        weight_decay: Decoupled decay of matrices; biases, norms and scalars are left out.
        betas: Decay of AdamW's moments.
        momentum: Momentum of SGD.
        fused: One kernel for all parameters; None takes it wherever every parameter allows it.
    """

    name: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    betas: tuple[float, float] = (0.9, 0.999)
    momentum: float = 0.9
    fused: bool | None = None

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if self.name not in {"adamw", "sgd"}:
            raise ValueError(
                f"optimizer.name is {self.name!r}; take 'adamw' or 'sgd', or give the Runner a "
                "factory of your own"
            )
        if not self.learning_rate > 0:
            raise ValueError(f"optimizer.learning_rate must be positive, got {self.learning_rate}")
        if self.weight_decay < 0:
            raise ValueError(f"optimizer.weight_decay is {self.weight_decay}; give 0 or more")
        if not all(0 <= b < 1 for b in (*self.betas, self.momentum)):
            raise ValueError(
                f"optimizer.betas {self.betas} and momentum {self.momentum} must lie in [0, 1)"
            )


def parameter_groups(model: nn.Module, decay: float) -> list[Group]:
    """Return two groups: matrices with weight decay, the rest without."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups: list[Group] = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def build(
    config: OptimizerConfig, groups: list[Group], factory: OptimizerFactory | None = None
) -> torch.optim.Optimizer:
    """Build the optimizer of a config, or that of a factory.

    Raises:
        ValueError: When there is nothing to train, or the factory's trains something else.
    """
    parameters = [p for group in groups for p in group["params"]]
    if not parameters:
        raise ValueError("the model has no parameter with requires_grad; there is nothing to train")
    if factory is not None:
        made = factory(groups)
        require_parameters(made, parameters)
        return made
    fused = config.fused if config.fused is not None else _can_fuse(parameters)
    if config.name == "sgd":
        return torch.optim.SGD(
            groups, lr=config.learning_rate, momentum=config.momentum, fused=fused
        )
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, fused=fused)


def require_parameters(optimizer: torch.optim.Optimizer, wanted: list[Tensor]) -> None:
    """Refuse an optimizer that would train something else than what it was given.

    Sharding and casting replace parameters: an optimizer built before them holds the old ones, and
    the run would learn nothing without any error.

    Raises:
        ValueError: When it holds another tensor, or lacks one.
    """
    own = {id(p) for p in wanted}
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    if held != own:
        raise ValueError(
            f"the optimizer holds {len(held - own)} tensors that are not trained (any more) and "
            f"lacks {len(own - held)} that are; let build_optimizer build it from the groups it "
            "is given, after the model was cast or sharded"
        )


def warn_of_unused(names: list[str]) -> None:
    """Tell of parameters that no gradient reaches."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    logger.warning("no gradient reaches %s%s: not used by the loss?", ", ".join(names[:5]), more)


def _can_fuse(parameters: Iterable[Tensor]) -> bool:
    return all(type(p) is nn.Parameter and p.is_floating_point() for p in parameters)
