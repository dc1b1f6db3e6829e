"""How much a net would miss a set of channels."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from kernels.compression.pruning.channel_graph import Slot
from kernels.compression.pruning.channel_sets import ChannelSets
from kernels.compression.pruning.errors import PruningError
from kernels.runtime.runner import Loss

Criterion = Literal["l1", "group", "taylor", "bn-scale", "random"]
"""``l1``: size of the filters (Li et al. 2017, https://arxiv.org/abs/1608.08710). ``group``: size
of all weights that would go (Fang et al. 2023, https://arxiv.org/abs/2301.12900). ``taylor``:
squared change of the loss to first order (Molchanov et al. 2019, https://arxiv.org/abs/1906.10771).
``bn-scale``: size of the batch norms' factors (Liu et al. 2017, https://arxiv.org/abs/1708.06519).
``random``: what any of them must beat."""
CRITERIA: tuple[Criterion, ...] = ("l1", "group", "taylor", "bn-scale", "random")

Scores = NDArray[np.float64]
"""Per set: importance; comparable within a criterion."""


def importance(
    criterion: Criterion,
    model: nn.Module,
    sets: ChannelSets,
    *,
    batches: Iterable[Any] = (),
    loss: Loss[Any] | None = None,
    seed: int = 0,
) -> Scores:
    """Return the importance of each set.

    Args:
        criterion: Which.
        model: The net of the sets.
        sets: The sets.
        batches: For ``taylor``: training batches, some dozens of items of each class.
        loss: For ``taylor``: as the training has it.
        seed: For ``random``.

    Raises:
        PruningError: When the net or the arguments lack what the criterion looks at.
    """
    match criterion:
        case "l1":
            return _mean_sizes(model, sets, "makes")
        case "group":
            return _mean_sizes(model, sets, "makes", "reads")
        case "taylor":
            return _first_order(model, sets, batches, loss)
        case "bn-scale":
            return _scales(model, sets)
        case "random":
            return np.random.default_rng(seed).random(len(sets))


def _mean_sizes(model: nn.Module, sets: ChannelSets, *roles: str) -> Scores:
    """Return the mean size of a set's weights, each tensor's in units of its own mean.

    Without the units the first layers, whose filters have few and large weights, would stay whole
    and the last ones go.
    """
    total, count = np.zeros(len(sets)), np.zeros(len(sets))
    for slot, places in sets.slots(*roles):
        sizes = _along(model.get_parameter(slot.tensor).detach().abs(), slot)
        sizes /= max(sizes.mean(), 1e-30)
        _add(total, places, sizes)
        _add(count, places, np.ones(len(sizes)))
    mean: Scores = total / np.maximum(count, 1)
    return mean


def _first_order(
    model: nn.Module, sets: ChannelSets, batches: Iterable[Any], loss: Loss[Any] | None
) -> Scores:
    """Return the mean squared change of the loss if a set's channels were zero.

    A gate on a channel has the gradient sum(g * w) over the weights that read it, exactly. The
    filters that make it would not do: before a batch norm theirs is 0.
    """
    if loss is None:
        raise PruningError("criterion taylor needs batches and a loss; give both, or take group")
    wanted = [p.requires_grad for p in model.parameters()]
    reads = [
        (slot, places, model.get_parameter(slot.tensor)) for slot, places in sets.slots("reads")
    ]
    total, seen = np.zeros(len(sets)), 0
    model.eval().requires_grad_()
    try:
        for batch in batches:
            model.zero_grad(set_to_none=True)
            summed, items = loss(model, batch)
            (summed / max(items, 1)).backward()  # type: ignore[no-untyped-call]
            change = np.zeros(len(sets))
            for slot, places, weight in reads:
                if weight.grad is not None:
                    _add(change, places, _along(weight.grad * weight.detach(), slot))
            total += change**2
            seen += 1
    finally:
        model.zero_grad(set_to_none=True)
        for parameter, before in zip(model.parameters(), wanted, strict=True):
            parameter.requires_grad_(before)
    if not seen:
        raise PruningError("criterion taylor needs batches, got none; give some of the training's")
    if not np.isfinite(total).all():
        raise PruningError("criterion taylor: gradients are not finite; look at the batches")
    return total / seen


def _scales(model: nn.Module, sets: ChannelSets) -> Scores:
    """Return the mean size of the factors of a set's batch norms."""
    total, count = np.zeros(len(sets)), np.zeros(len(sets))
    for slot, places in sets.slots("scales"):
        owner = model.get_submodule(slot.tensor.rpartition(".")[0])
        if isinstance(owner, nn.modules.batchnorm._BatchNorm) and slot.tensor.endswith(".weight"):  # noqa: SLF001
            _add(total, places, _along(model.get_parameter(slot.tensor).detach().abs(), slot))
            _add(count, places, np.ones(len(places)))
    if len(without := np.flatnonzero(count == 0)):
        layers = ", ".join(sets.families[sets.family[without[0]]])
        raise PruningError(f"no batch norm scales what {layers} makes; take criterion group")
    return total / count


def _along(values: Tensor, slot: Slot) -> NDArray[np.float64]:
    """Return the sum of a tensor's values over all dimensions but the slot's."""
    others = [dim for dim in range(values.dim()) if dim != slot.dim]
    summed = values.double().sum(others) if others else values.double()
    found: NDArray[np.float64] = summed.cpu().numpy().copy()
    return found


def _add(total: Scores, places: NDArray[np.int64], values: NDArray[np.float64]) -> None:
    ours = places >= 0
    np.add.at(total, places[ours], values[ours])
