"""Layers dealt out over processes; parts of a batch go through them one after the other.

By ``torch.distributed.pipelining``: 1F1B, or interleaved with several stages in each process. The
loss stays a function of model and batch: the first stage gets what it gives to the model, the last
one hands it what the model would have returned.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from kernels.runtime.parallel import ParallelConfig, SpreadError

Loss = Callable[[nn.Module, Any], tuple[Tensor, int]]
Shapes = tuple[tuple[torch.Size, torch.dtype], ...]


class Stage(nn.Sequential):
    """Some of a model's layers, under their names in the whole model."""

    def __init__(self, members: OrderedDict[str, nn.Module]) -> None:
        super().__init__(members)
        self.autocast: Callable[[], AbstractContextManager[Any]] | None = None
        self.dtype: torch.dtype | None = None

    def forward(self, *inputs: Tensor) -> Tensor:
        """Compute the layers one after the other; stages hand over one format."""
        if self.autocast is None:
            return self._through(*inputs)
        with self.autocast():
            found = self._through(*inputs)
        return found if self.dtype is None else found.to(self.dtype)

    def _through(self, *inputs: Tensor) -> Tensor:
        found: Any = inputs
        for child in self.children():
            found = (child(*found),)
        result: Tensor = found[0]
        return result


class Stages(nn.Module):
    """The layers that lie in this process, under their names in the whole model."""

    def __init__(self, stages: dict[int, Stage]) -> None:
        super().__init__()
        for stage in stages.values():
            for name, child in stage.named_children():
                self.add_module(name, child)


def cut_stages(model: nn.Module, cuts: tuple[str, ...]) -> list[Stage]:
    """Cut a sequence of layers.

    Args:
        model: The model, an ``nn.Sequential``.
        cuts: Names of the children that begin a new stage.

    Raises:
        SpreadError: When the model is no sequence, lacks a name, or a stage has nothing to train.
    """
    if not isinstance(model, nn.Sequential):
        raise SpreadError(
            f"parallel.pipeline cuts an nn.Sequential, the model is a {type(model).__name__}; "
            "write it as a sequence of layers, each of which takes what the one before returns"
        )
    names = [name for name, _ in model.named_children()]
    places = [names.index(cut) if cut in names else -1 for cut in cuts]
    if min(places) < 1 or places != sorted(set(places)):
        raise SpreadError(
            f"parallel.cuts are {', '.join(cuts)}; give names of the model's children in their "
            f"order, but for the first: {', '.join(names[1:])}"
        )
    children = list(model.named_children())
    bounds = [0, *places, len(children)]
    found = [Stage(OrderedDict(children[a:b])) for a, b in pairwise(bounds)]
    for number, stage in enumerate(found):
        if not any(p.requires_grad for p in stage.parameters()):
            raise SpreadError(
                f"stage {number + 1} of parallel.cuts ({', '.join(dict(stage.named_children()))}) "
                "has nothing to train; cut elsewhere"
            )
    owner: dict[int, int] = {}
    for number, stage in enumerate(found):
        for name, parameter in stage.named_parameters():
            if owner.setdefault(id(parameter), number) != number:
                raise SpreadError(
                    f"parallel.cuts: {name} belongs to stage {owner[id(parameter)] + 1} and to "
                    f"stage {number + 1}; cut elsewhere, or give each a weight of its own"
                )
    return found


class Pipeline:
    """Sends parts of a batch through the stages.

    Attributes:
        stages: The stages of this process by their numbers.
    """

    def __init__(
        self, model: nn.Module, config: ParallelConfig, place: int, device: torch.device
    ) -> None:
        """Deal out the layers.

        Args:
            model: The whole model; its layers become the stages'.
            config: Cuts, schedule and micro-batches.
            place: Number of this process in the pipeline.
            device: Where it computes.

        Raises:
            SpreadError: When the model cannot be cut so.
        """
        every = cut_stages(model, config.cuts)
        # Without memory, to know which shapes the stages hand over.
        self._shapes_of = [copy.deepcopy(stage).to("meta") for stage in every]
        self.stages = {
            number: stage for number, stage in enumerate(every) if number % config.pipeline == place
        }
        self._count = len(every)
        self._config, self._place, self._device = config, place, device
        self._schedule: Any = None
        self._shapes: Shapes = ()

    def step(
        self,
        parts: list[Any],
        loss: Loss,
        handle: Any,
        autocast: Callable[[], AbstractContextManager[Any]],
    ) -> tuple[Tensor, int]:
        """Compute a share of a batch, forward and backward.

        Args:
            parts: Its micro-batches.
            loss: Summed loss and number of items.
            handle: The processes of the pipeline.
            autocast: Context of the forward pass.

        Returns:
            Summed loss and items in the last process, zeros elsewhere.
        """
        inputs = [_inputs_of(loss, part) for part in parts]
        shapes = _shapes_of(inputs[0])
        for stage in self.stages.values():
            stage.autocast = autocast
        self._totals: list[tuple[Tensor, int]] = []
        self._loss, self._autocast = loss, autocast
        if shapes != self._shapes:
            self._schedule, self._shapes = self._make_schedule(shapes, handle), shapes
        given: dict[str, Any] = {"return_outputs": False}
        if self._place == 0:
            given["arg_mbs"] = inputs
        if self._count - 1 in self.stages:
            given["target_mbs"] = parts
        self._schedule.step(**given)
        if not self._totals:
            return torch.zeros((), device=self._device), 0
        return torch.stack([t for t, _ in self._totals]).sum(), sum(n for _, n in self._totals)

    def require_even(self, parts: list[Any], loss: Loss) -> None:
        """Refuse micro-batches of different shapes: what stages hand over has one.

        Raises:
            SpreadError: Naming the shapes.
        """
        kinds = {_shapes_of(_inputs_of(loss, part)) for part in parts}
        if len(kinds) > 1:
            told = sorted(str([tuple(shape) for shape, _ in kind]) for kind in kinds)
            raise SpreadError(
                f"micro-batches have the shapes {', '.join(told)}; a pipeline needs one: give "
                f"batches whose rows can be divided by {len(parts)} (data x shard x parts x "
                "micro_batches)"
            )

    def _make_schedule(self, shapes: Shapes, handle: Any) -> Any:
        from torch.distributed.pipelining import (
            PipelineStage,
            Schedule1F1B,
            ScheduleInterleaved1F1B,
        )

        edges = self._edges(shapes)
        made: list[Any] = []
        for number, stage in self.stages.items():
            stage.dtype = edges[number + 1][0].dtype
            made.append(
                PipelineStage(
                    stage,
                    number,
                    self._count,
                    self._device,
                    input_args=edges[number],
                    output_args=edges[number + 1],
                    group=handle,
                )
            )
        options: dict[str, Any] = {"loss_fn": self._loss_of, "scale_grads": False}
        if self._config.schedule == "interleaved":
            return ScheduleInterleaved1F1B(made, self._config.micro_batches, **options)
        return Schedule1F1B(made[0], self._config.micro_batches, **options)

    def _loss_of(self, output: Tensor, part: Any) -> Tensor:
        with self._autocast():
            value, count = self._loss(_Given(output), part)
        self._totals.append((value.detach(), int(count)))
        return value

    def _edges(self, shapes: Shapes) -> list[tuple[Tensor, ...]]:
        """Return the tensors before, between and after the stages, without memory."""
        found = [tuple(torch.empty(s, dtype=d, device="meta") for s, d in shapes)]
        for number, stage in enumerate(self._shapes_of):
            with torch.no_grad():
                made: Any = stage(*found[-1])
            if not isinstance(made, Tensor):
                raise SpreadError(
                    f"stage {number + 1} returns a {type(made).__name__}; stages hand over one "
                    "tensor: cut elsewhere"
                )
            found.append((made.requires_grad_(),))
        return found


def _shapes_of(inputs: tuple[Tensor, ...]) -> Shapes:
    return tuple((each.shape, each.dtype) for each in inputs)


class _Given(nn.Module):
    """Stands for the model where its output is there already."""

    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self._output = output

    def forward(self, *inputs: Any, **named: Any) -> Tensor:
        """Return the output."""
        del inputs, named
        return self._output


class _Asked(Exception):  # noqa: N818 - no error: it carries what the model was given
    """What a loss gives to the model."""

    def __init__(self, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        super().__init__()
        self.inputs, self.named = inputs, named


class _Asking(nn.Module):
    """Stands for the model where only its inputs are wanted."""

    def forward(self, *inputs: Any, **named: Any) -> Tensor:
        """Hand them over."""
        raise _Asked(inputs, named)


def _inputs_of(loss: Loss, part: Any) -> tuple[Tensor, ...]:
    try:
        loss(_Asking(), part)
    except _Asked as asked:
        if asked.named or not all(isinstance(each, Tensor) for each in asked.inputs):
            raise SpreadError(
                "in a pipeline the loss must call the model with tensors alone, by position"
            ) from None
        return asked.inputs
    raise SpreadError("in a pipeline the loss must call the model, once")
