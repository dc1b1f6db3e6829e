"""A model in its run: whole in every process, or spread over them by a `ParallelConfig`.

The Runner trains what lies here, and speaks of the whole: norms, sums, states and the finished
model are those that one process would have.
"""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from kernels.runtime import sharding
from kernels.runtime.compression import Compression
from kernels.runtime.context import ContextAttention, cut_sequences
from kernels.runtime.finite import NonFiniteError
from kernels.runtime.group import Group, local_of
from kernels.runtime.parallel import DIMENSIONS, ParallelConfig, SpreadError
from kernels.runtime.pipeline import Loss, Pipeline, Stages

logger = logging.getLogger(__name__)


class Follower(Protocol):
    """Copies or averages of weights."""

    def restart(self) -> None:
        """Begin from the weights of now."""


class Spread:
    """A model and the processes that train it.

    Attributes:
        whole: The model that the Runner was given.
        model: What is trained here: the same, or a part of a copy of it.
        layout: Where this process stands.
        compression: How gradients are sent, None for as they are.
        parts: The optimizer's parameter for each spread one.
    """

    def __init__(self, model: nn.Module, config: ParallelConfig, group: Group) -> None:
        """Spread a model; all processes call it together.

        Of a spread model the given one keeps no weights until `finish`.

        Raises:
            SpreadError: When sizes, names or the device do not fit.
        """
        self.whole = self.model = model
        self._config, self._group = config, group
        self.layout = config.layout(group.rank, group.size)
        used = config.compression.method != "none" and self.layout.size("data") > 1
        self.compression = Compression(config.compression) if used else None
        self._mesh: Any = None
        self._pipeline: Pipeline | None = None
        self._attention: ContextAttention | None = None
        # Before anything is made from them: copies, averages, parts.
        group.share([*model.parameters(), *model.buffers()])
        if config.is_spread:
            self._spread()
        self.parts: dict[nn.Parameter, nn.Parameter] = {}
        self._spread_by_name: dict[str, nn.Parameter] = {}
        self._named = dict(self.model.named_parameters())
        kinds = nn.modules.batchnorm._NormBase  # noqa: SLF001 - batch and instance norms
        self._norms = [module for module in self.model.modules() if isinstance(module, kinds)]

    def begin(self, *followers: Follower | None) -> None:
        """Give all processes the first one's weights, which may have been loaded since.

        Args:
            followers: What was made of the weights, and begins anew from those of now.
        """
        if not self._config.is_spread:
            self._group.share([*self.model.parameters(), *self.model.buffers()])
        for each in followers:
            if each is not None:
                each.restart()

    @property
    def share(self) -> tuple[int, int]:
        """Number of this process's share of a batch, and how many shares there are."""
        return self.layout.at("data", "shard"), self.layout.size("data", "shard")

    def parts_of(
        self, batch: Any, cut: Callable[..., list[Any]], parts: int, loss: Loss
    ) -> list[list[Any]]:
        """Return this process's parts of a batch, each as its micro-batches.

        Args:
            batch: The whole batch.
            cut: Cuts it: batch, rank, size, micro-batches of each part.
            parts: Parts of each share.
            loss: Summed loss and number of items.

        Raises:
            SpreadError: When a batch does not do for processes that compute together; in all of
                them.
        """
        rank, shares = self.share
        if not self._config.is_spread:
            return [[part] for part in cut(batch, rank, shares)]
        micro = self._config.micro_batches if self._pipeline else 1
        every = cut(batch, 0, 1, shares * micro)
        if len(every) != parts * shares * micro:
            raise SpreadError(
                f"a batch makes only {len(every)} of {parts * shares * micro} parts; processes "
                "that compute together need all: give larger batches"
            )
        if self._pipeline:
            self._pipeline.require_even(every, loss)
        own = every[rank * parts * micro : (rank + 1) * parts * micro]
        if self._attention:
            place = self._config.context_dim, self.layout.at("context"), self._config.context
            own = [cut_sequences(each, *place) for each in own]
        return [own[k : k + micro] for k in range(0, len(own), micro)]

    def through_pipeline(
        self, parts: list[Any], loss: Loss, autocast: Callable[[], AbstractContextManager[Any]]
    ) -> tuple[Tensor, int] | None:
        """Compute micro-batches forward and backward; None where there is no pipeline."""
        if self._pipeline is None:
            return None
        with self.attending():
            handle = self._mesh["pipeline"].get_group()
            return self._pipeline.step(parts, loss, handle, autocast)

    def attending(self) -> AbstractContextManager[None]:
        """Let attention inside see whole sequences, where they are cut.

        Raises:
            SpreadError: When there was none that could.
        """
        return self._attending(self._attention) if self._attention else nullcontext()

    @contextmanager
    def _attending(self, attention: ContextAttention) -> Iterator[None]:
        before = attention.calls
        with attention:
            yield
        if attention.calls == before and not self._pipeline:
            raise SpreadError(
                "parallel.context: the model computed no attention by "
                "torch.nn.functional.scaled_dot_product_attention; leave context at 1"
            )

    def sum_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Replace gradients by their sums over the processes that have the same parameters.

        The running statistics of batch norms become their means: each process normalises by its
        own batches in training, what evaluation normalises by is then that of all. Other buffers
        stay each process's own.
        """
        if self._group.size == 1:
            return
        for name in ("data", "context"):
            for group in self._groups(name):
                # What is left over of one sum must not be added to another.
                group.sum_gradients(parameters, self.compression if name == "data" else None)
                self._group.sent_bytes += group.sent_bytes if group is not self._group else 0
        for group in self._groups("data", "shard"):
            group.average(
                [b for m in self._norms for b in (m.running_mean, m.running_var) if b is not None]
            )

    def local(self, groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return an optimizer's groups with the parts of spread parameters that lie here.

        AdamW and SGD compute every element by itself: on plain tensors of the same memory, in one
        kernel, they do the same without the cost of torch's spread ones.
        """
        named = {p: name for name, p in self.model.named_parameters()}
        for parameter in (p for group in groups for p in group["params"]):
            if hasattr(parameter, "placements"):
                self.parts[parameter] = nn.Parameter(local_of(parameter.detach()))
                self._spread_by_name[named[parameter]] = parameter
        return [g | {"params": [self.parts.get(p, p) for p in g["params"]]} for g in groups]

    def lent(self) -> AbstractContextManager[None]:
        """Let the optimizer's parameters have the gradients inside."""
        return self._lent() if self.parts else nullcontext()

    @contextmanager
    def _lent(self) -> Iterator[None]:
        for parameter, part in self.parts.items():
            part.grad = None if parameter.grad is None else local_of(parameter.grad)
        try:
            yield
        finally:
            for part in self.parts.values():
                part.grad = None

    def as_spread(self, name: str, moments: Mapping[str, Any]) -> dict[str, Any]:
        """Return an optimizer's state of a parameter, its parts as spread tensors."""
        like = self._named.get(name)
        if like is None or not hasattr(like, "placements"):
            return dict(moments)
        shape = local_of(like.detach()).shape
        return {
            key: sharding.spread_like(each, like)
            if isinstance(each, Tensor) and each.shape == shape and not hasattr(each, "placements")
            else each
            for key, each in moments.items()
        }

    def part_of(self, name: str, whole: Tensor) -> Tensor:
        """Return what lies here of a whole tensor that has a parameter's name and shape."""
        like = self._named.get(name)
        return whole if like is None else sharding.part_of(whole, like)

    def own_part(self, name: str, moments: Mapping[str, Any]) -> dict[str, Any]:
        """Return what lies here of the whole state of a parameter."""
        like = self._named.get(name)
        if like is None or not hasattr(like, "placements"):
            return dict(moments)
        found = {}
        for key, each in moments.items():
            found[key] = each
            if isinstance(each, Tensor) and each.shape == like.shape:
                part = sharding.part_of(each, like).to(like.device).contiguous()
                is_own = name in self._spread_by_name
                found[key] = part if is_own else sharding.spread_like(part, like)
        return found

    def norm(self, names: Sequence[str], gradients: Sequence[Tensor]) -> float:
        """Return the global L2 norm of the gradients; equal in all processes.

        Args:
            names: Names of what is trained here.
            gradients: Its gradients, as far as they lie here.
        """
        if not self._config.is_spread:
            return float(torch.nn.utils.get_total_norm(list(gradients)))
        stage = self._group.size // self.layout.size("pipeline")
        squares = 0.0
        for name, gradient in zip(names, gradients, strict=True):
            norm = float(torch.linalg.vector_norm(gradient.detach().double()))
            squares += norm * norm / sharding.copies_of(self._named[name], stage)
        return math.sqrt(self._group.sum(squares)[0])

    def collect(self, named: Mapping[str, Any]) -> dict[str, Any]:
        """Return the states of all parameters, whole, in the first process.

        All processes call it together; where nothing is spread each has its own.

        Args:
            named: A tensor, or tensors and numbers by key, for each name.
        """
        if not self._config.is_spread:
            return dict(named)
        found = {}
        for name, value in named.items():
            whole = sharding.whole_state(value)
            if self.layout.leads:
                found[name] = whole
        per_stage = self._group.size // self.layout.size("pipeline")
        leaders = range(per_stage, self._group.size, per_stage)
        for other in self._group.hand_over(found, list(leaders)):
            found |= other
        return found

    def everybody(self, state: Any) -> list[Any]:
        """Return a small state of every process that has other layers, in all processes."""
        return self._group.gather(state) if self._pipeline else [state]

    def model_state(self) -> dict[str, Any]:
        """Return the whole model's state in the first process; in all, where nothing is spread."""
        if not self._config.is_spread:
            return self.model.state_dict()
        found = self.collect(self.model.state_dict())
        order = self.whole.state_dict() if self._group.is_first else {}
        return {name: found[name] for name in order}

    def load_model(self, state: Mapping[str, Tensor]) -> None:
        """Take the weights of a whole model's state.

        Raises:
            RuntimeError: When it is another model's.
        """
        if not self._config.is_spread:
            self.model.load_state_dict(state)
            return
        for name, tensor in self.model.state_dict().items():
            if name not in state or state[name].shape != tensor.shape:
                raise RuntimeError(f"{name} is missing or has another shape")
            with torch.no_grad():
                local_of(tensor).copy_(sharding.part_of(state[name], tensor))

    @contextmanager
    def evaluated(self) -> Iterator[nn.Module]:
        """Give the whole model, with the weights of now, in the first process."""
        if self._config.is_spread:
            state = self.model_state()
            if self._group.is_first:
                self._fill(state)
        self.whole.eval()
        try:
            yield self.whole
        finally:
            self.model.train()
            if self._config.is_spread:
                self._empty()

    def finish(self) -> None:
        """Give every process's model the trained weights, and leave it in evaluation mode."""
        self._put_together()
        self.whole.eval()

    @contextmanager
    def rescued(self) -> Iterator[None]:
        """Give every process's model the weights after an error that all of them raise."""
        try:
            yield
        except (NonFiniteError, SpreadError):
            self._put_together()
            raise

    def _put_together(self) -> None:
        if not self._config.is_spread:
            return
        state = self.model_state()
        for name, parameter in self.whole.named_parameters():
            parameter.data = parameter.new_empty(self._sizes[name])
        if self._group.is_first:
            self._fill(state)
        self._group.share([*self.whole.parameters(), *self.whole.buffers()])

    def _spread(self) -> None:
        device = next((p.device for p in self.whole.parameters()), torch.device("cpu"))
        from torch.distributed.device_mesh import init_device_mesh

        plan = sharding.expand_plan(self.whole, self._config.plan, self._config.tensor)
        missing = set(self._config.blocks) - dict(self.whole.named_modules()).keys()
        if missing:
            raise SpreadError(
                f"parallel.blocks names {', '.join(sorted(missing))}, not in the model"
            )
        own = copy.deepcopy(self.whole)
        self._sizes = {name: p.shape for name, p in self.whole.named_parameters()}
        pieces: list[nn.Module] = [own]
        if self._config.pipeline > 1:
            place = self.layout.at("pipeline")
            self._pipeline = Pipeline(own, self._config, place, device)
            pieces = list(self._pipeline.stages.values())
        names = [name for name in DIMENSIONS if self.layout.size(name) > 1]
        sizes = tuple(self.layout.size(name) for name in names)
        self._mesh = init_device_mesh(device.type, sizes, mesh_dim_names=tuple(names))
        if self._config.context > 1:
            along = self.layout.at("context"), self._config.context
            self._attention = ContextAttention(self._mesh["context"].get_group(), *along)
        for piece in pieces:
            if plan:
                sharding.cut_matrices(piece, plan, self._mesh["tensor"])
            if self._config.shard > 1:
                sharding.shard(piece, self._config, self._mesh["shard"])
        self.model = Stages(self._pipeline.stages) if self._pipeline else own
        self._empty()
        told = " x ".join(f"{name} {size}" for name, size in zip(names, sizes, strict=True))
        if self._group.is_first:
            logger.info("the model is spread over %d processes: %s", self._group.size, told)

    def _groups(self, *names: str) -> list[Group]:
        """Return the groups of this process along some dimensions."""
        if not self._config.is_spread:
            return [self._group] if "data" in names else []
        along = [name for name in names if self.layout.size(name) > 1]
        return [
            Group(self.layout.at(name), self.layout.size(name), self._mesh[name].get_group())
            for name in along
        ]

    @torch.no_grad()
    def _fill(self, state: Mapping[str, Tensor]) -> None:
        """Give the given model weights again."""
        device = self._device()
        for name, parameter in self.whole.named_parameters():
            # A memory of its own: what was gathered may be a part of a larger one.
            parameter.data = state[name].to(device, copy=True)
        for name, buffer in self.whole.named_buffers():
            if name in state:
                buffer.copy_(state[name])

    def _empty(self) -> None:
        for parameter in self.whole.parameters():
            parameter.data = parameter.new_empty(0)

    def _device(self) -> torch.device:
        return next(p.device for p in self.whole.parameters())
