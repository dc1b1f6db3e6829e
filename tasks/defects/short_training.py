"""A short training of a net that knows surfaces already: the loop, and nothing of what is learned.

AdamW under one cycle of the learning rate (Smith and Topin 2019); the weights kept are a running
mean, which a handful of labels moves less than the last step's.
"""

from __future__ import annotations

import contextlib
import copy
import logging
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

LOG = logging.getLogger(__name__)
Listen = Callable[[int, float], None]
"""Called with a step and its loss."""
_WARM_UP, _DECAY = 0.15, 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class ShortTraining:
    """How long, and how boldly.

    Attributes:
        steps: Of the optimizer.
        rate: Highest learning rate.
        clip: Largest norm of a step's gradient.
        kept: Share of the running mean of the weights that a step keeps.
    """

    steps: int
    rate: float
    clip: float
    kept: float


def train_briefly(
    whole: nn.Module,
    draw_loss: Callable[[], Tensor],
    config: ShortTraining,
    listen: Listen = lambda _step, _loss: None,
) -> float:
    """Train in place; the module is in evaluation mode afterwards.

    Args:
        whole: What is trained.
        draw_loss: Draws the next batch and returns its loss; its products of matrices may be taken
            under `narrow`.
        config: Steps and learning rate.
        listen: Called with each step and its loss.

    Returns:
        Mean loss of the last tenth of the steps, NaN without steps.

    Raises:
        ArithmeticError: The loss is no number; says at which step.
    """
    if not config.steps:
        whole.eval()
        return float("nan")
    mean_of = copy.deepcopy(whole)
    weights = list(whole.parameters())
    optimizer = torch.optim.AdamW(weights, config.rate, weight_decay=_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.rate, max(2, config.steps), pct_start=_WARM_UP
    )
    whole.to(memory_format=torch.channels_last)
    whole.train()
    losses: list[float] = []
    for step in range(config.steps):
        loss = draw_loss()
        if not torch.isfinite(loss):
            raise ArithmeticError(f"the loss is {loss.item()} at step {step}; lower the rate")
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(weights, config.clip)
        optimizer.step()
        schedule.step()
        # Early on the mean follows at once, so that a short training is more than its start.
        _follow(mean_of, whole, min(config.kept, step / (step + 10)))
        losses.append(loss.item())
        listen(step, losses[-1])
    whole.load_state_dict(mean_of.state_dict())
    whole.to(memory_format=torch.contiguous_format)
    whole.eval()
    last = losses[-max(1, len(losses) // 10) :]
    mean = sum(last) / len(last)
    LOG.info("%d steps of training, loss %.3f", config.steps, mean)
    return mean


def narrow() -> contextlib.AbstractContextManager[object]:
    """Return bfloat16 where the processor multiplies it itself; elsewhere it would be slower."""
    told = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return torch.autocast("cpu", torch.bfloat16, enabled=bool(told and told()))


@torch.no_grad()
def _follow(mean_of: nn.Module, weights: nn.Module, kept: float) -> None:
    """Move a running mean of weights towards them; of the mean so far ``kept`` stays."""
    for one, new in zip(mean_of.parameters(), weights.parameters(), strict=True):
        one.lerp_(new, 1 - kept)
    for kept_one, buffer in zip(mean_of.buffers(), weights.buffers(), strict=True):
        kept_one.copy_(buffer)
