"""One training, several widths: a net whose narrower nets lie inside it.

A narrow net uses the most important channels of every layer, so that each width holds all narrower
ones (Yu et al. 2018, https://arxiv.org/abs/1812.08928). Which channels depend on each other is
what pruning finds, so any net that can be pruned can be slimmed. A step trains the widest net on
labels, and narrower ones, drawn anew each time, on labels and on what the widest says (Yu and Huang
2019, https://arxiv.org/abs/1903.05134, who train the narrowest in every step); statistics of batch
norms are kept for each width.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from kernels.compression.pruning.budget import keep_share
from kernels.compression.pruning.channel_sets import ChannelSets, NetCost
from kernels.compression.pruning.criteria import importance
from kernels.compression.pruning.errors import PruningError
from kernels.compression.pruning.propagate import channel_graph
from kernels.compression.pruning.surgery import Surgery
from kernels.runtime.runner import Loss


class Slimmable(nn.Module):
    """A net and the narrower ones inside it.

    Attributes:
        net: The widest; all weights are its own.
        widths: Share of the channels of each net, ascending, the last 1.
        costs: What each costs for the example.
    """

    def __init__(
        self,
        net: nn.Module,
        example: Tensor,
        widths: Sequence[float] = (0.25, 0.5, 0.75, 1.0),
        *,
        multiple: int = 8,
    ) -> None:
        """Find the nets inside a net.

        Args:
            net: Any module that can be pruned; trained or not.
            example: Its input.
            widths: Shares of channels, ascending, the last 1.
            multiple: Layers keep multiples of so many channels.

        Raises:
            PruningError: When no channel of the net can go.
            ValueError: When the widths are no ascending shares up to 1.
        """
        super().__init__()
        ascending = all(a < b for a, b in pairwise(widths))
        if len(widths) < 2 or not ascending or widths[0] <= 0 or widths[-1] != 1:
            raise ValueError(f"widths must be ascending shares up to 1.0, got {tuple(widths)}")
        self.net, self.widths = net, tuple(widths)
        # A copy: the graph is that of evaluation, and what is trained keeps its modes.
        sets = ChannelSets(net, channel_graph(copy.deepcopy(net), (example,)))
        if not len(sets):
            raise PruningError(
                "no channel of the net can go; see ChannelPruner for what holds them"
            )
        scores = importance("group", net, sets)
        masks = [keep_share(sets, scores, share, multiple=multiple) for share in widths]
        self.costs: tuple[NetCost, ...] = tuple(sets.cost(mask) for mask in masks)
        self._surgeries: tuple[Surgery, ...] = tuple(sets.surgery(mask) for mask in masks)
        # Shapes without weights of their own: what they compute with is cut from the widest.
        self._shapes = tuple(_shaped(net, surgery) for surgery in self._surgeries)
        self.statistics = nn.ModuleList(_Buffers(shape) for shape in self._shapes)

    def get_extra_state(self) -> Tensor:
        """Return which channels each width has, JSON as uint8: as much a part as weights are."""
        plans = json.dumps([surgery.to_json() for surgery in self._surgeries])
        return torch.frombuffer(bytearray(plans.encode()), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        """Take over which channels each width has.

        Raises:
            PruningError: When the state is one of other widths or of another net.
        """
        plans = tuple(Surgery.from_json(each) for each in json.loads(bytes(state.cpu().tolist())))
        if len(plans) != len(self.widths):
            raise PruningError(f"the state is one of {len(plans)} widths, not {len(self.widths)}")
        self._shapes = tuple(_shaped(self.net, surgery) for surgery in plans)
        self._surgeries = plans

    def forward(self, x: Tensor, width: int = -1) -> Any:
        """Return what the net of a width (its number, the widest by default) answers."""
        number = range(len(self.widths))[width]
        shape, surgery = self._shapes[number], self._surgeries[number]
        shape.train(self.training)
        tensors = {name: surgery.cut(name, p) for name, p in self.net.named_parameters()}
        return functional_call(shape, tensors | self._counted(number), (x,))

    def at(self, width: int) -> nn.Module:
        """Return the net of a width alone, in evaluation mode."""
        number = range(len(self.widths))[width]
        made = copy.deepcopy(self.net)
        self._surgeries[number].apply(made)
        made.load_state_dict(self._counted(number), strict=False)
        return made.eval()

    def loss(
        self,
        on_labels: Callable[[Any, Any], tuple[Tensor, int]],
        inputs: Callable[[Any], Tensor] = lambda batch: batch[0],
        *,
        labels: float = 0.5,
        narrower: int = 1,
    ) -> Loss[Any]:
        """Return the loss of a run that trains all widths.

        Args:
            on_labels: Logits and batch -> summed loss on labels, number of items. A batch may hold
                more images than labels: narrower nets learn of those what the widest says.
            inputs: What of a batch goes into the net.
            labels: Weight of labels for all but the widest net, in [0, 1]; what the widest says has
                the rest. At 0, as published, short trainings fall far behind: until the widest
                knows something, it has nothing to teach.
            narrower: Widths beside the widest in each step, drawn of all narrower ones. More of
                them cost the widest steps, which it lacks more than they do.

        Raises:
            ValueError: When the weight is outside, or there are not so many narrower widths.
        """
        if not 0 <= labels <= 1:
            raise ValueError(f"labels must lie in [0, 1], got {labels}; what is left is imitation")
        others = len(self.widths) - 1
        if not 1 <= narrower <= others:
            raise ValueError(f"narrower is {narrower}; give 1 to {others}, the narrower widths")

        def total(model: nn.Module, batch: Any) -> tuple[Tensor, int]:
            x = inputs(batch)
            widest = model(x)
            summed, items = on_labels(widest, batch)
            given = widest.detach().log_softmax(1)
            # Drawn by torch, whose state a checkpoint holds.
            for number in torch.randperm(others)[:narrower].tolist():
                answers = model(x, number)
                ours = answers.log_softmax(1)
                told = functional.kl_div(ours, given, reduction="sum", log_target=True)
                summed = summed + labels * on_labels(answers, batch)[0] + (1 - labels) * told
            return summed, items

        return total

    def _counted(self, number: int) -> dict[str, Tensor]:
        return {
            name.replace("/", "."): buffer
            for name, buffer in self.statistics[number].named_buffers()
        }


def widest_within(measured: Sequence[float], budget: float) -> int:
    """Return the number of the widest net whose cost is within a budget.

    Args:
        measured: Of each width, ascending as they are: milliseconds on the device, bytes, or what
            else is short there.
        budget: In the same unit.

    Raises:
        ValueError: When no width is; names the least that is.
    """
    fitting = [number for number, cost in enumerate(measured) if cost <= budget]
    if not fitting:
        raise ValueError(
            f"no width costs {budget:g} or less; the least is {min(measured):g}: give more, or a "
            "smaller share among the widths"
        )
    return fitting[-1]


class _Buffers(nn.Module):
    """Buffers of a net of one width, which checkpoints hold."""

    def __init__(self, shape: nn.Module) -> None:
        super().__init__()
        for name, buffer in shape.named_buffers():
            self.register_buffer(name.replace(".", "/"), buffer.clone())


def _shaped(net: nn.Module, surgery: Surgery) -> nn.Module:
    """Return a net of the sizes that a surgery leaves; its weights are never used."""
    made = copy.deepcopy(net)
    surgery.apply(made)
    return made
