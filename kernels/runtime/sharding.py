"""A model spread over processes in place: matrices cut, parameters sharded, and back again.

Cutting first, sharding second, as torch wants it: FSDP2's ``fully_shard`` takes what
``parallelize_module`` left. Gradients are summed, not averaged, for the Runner divides by items.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from kernels.runtime.parallel import ParallelConfig, SpreadError, Style
from kernels.runtime.recompute import blocks_of


def expand_plan(model: nn.Module, plan: Mapping[str, Style], size: int) -> dict[str, Style]:
    """Return the style of each layer that a plan means.

    Raises:
        SpreadError: When a name means no linear layer, or one that cannot be cut evenly.
    """
    linear = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear | nn.Embedding)}
    found: dict[str, Style] = {}
    for pattern, style in plan.items():
        names = [name for name in linear if fnmatchcase(name, pattern)]
        if not names:
            raise SpreadError(
                f"parallel.plan names {pattern!r}, which is no linear layer of the model; it has "
                f"{', '.join(list(linear)[:8])}"
            )
        found |= dict.fromkeys(names, style)
    for name, style in found.items():
        # Outputs of a linear layer are its weights' first dimension, of an embedding the last.
        is_last = (style == "row") == isinstance(linear[name], nn.Linear)
        wide = linear[name].weight.shape[int(is_last)]
        if wide % size:
            raise SpreadError(
                f"parallel.plan cuts {name!r} by {style}, {wide} wide, into {size}; take a width "
                "that can be divided, or leave it out"
            )
    return found


def cut_matrices(model: nn.Module, plan: Mapping[str, Style], mesh: Any) -> None:
    """Cut layers over the processes of a mesh, in place.

    Args:
        model: A model or a stage of it.
        plan: Styles by name; names that the model lacks belong to other stages.
        mesh: Mesh of one dimension.
    """
    from torch.distributed.tensor import Replicate
    from torch.distributed.tensor.parallel import (
        ColwiseParallel,
        ParallelStyle,
        RowwiseParallel,
        parallelize_module,
    )

    styles: dict[Style, ParallelStyle] = {
        "column": ColwiseParallel(),
        "row": RowwiseParallel(),
        "gathered": ColwiseParallel(output_layouts=Replicate()),
    }
    own = dict(model.named_modules())
    parallelize_module(model, mesh, {n: styles[s] for n, s in plan.items() if n in own})


def shard(model: nn.Module, config: ParallelConfig, mesh: Any) -> None:
    """Spread parameters over the processes of a mesh, in place (FSDP2).

    Args:
        model: A model or a stage of it.
        config: Names of blocks, and whether they stay in the memory of the CPU.
        mesh: Mesh of one dimension.

    """
    from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, fully_shard

    options: dict[str, Any] = {"mesh": mesh}
    if config.offload:
        options["offload_policy"] = CPUOffloadPolicy(pin_memory=torch.cuda.is_available())
    own = dict(model.named_modules())
    names = [name for name in config.blocks if name in own] or list(blocks_of(model))
    for name in names:
        if name and any(True for _ in own[name].parameters()):
            fully_shard(own[name], **options)
    fully_shard(model, **options)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(enable=True)


def part_of(whole: Tensor, like: Tensor) -> Tensor:
    """Return the part of a whole tensor that lies here, as that of a spread one does.

    Args:
        whole: The whole tensor.
        like: A tensor of the same shape, spread or not.
    """
    mesh: Any = getattr(like, "device_mesh", None)
    if mesh is None:
        return whole
    place, placements = mesh.get_coordinate(), like.placements  # type: ignore[attr-defined]
    # The last dimension was cut first, see the top of this file.
    for index in reversed(range(len(placements))):
        dim = getattr(placements[index], "dim", None)
        if dim is not None:
            chunks = torch.chunk(whole, mesh.size(index), dim)
            rest = whole.narrow(dim, 0, 0)
            whole = chunks[place[index]] if place[index] < len(chunks) else rest
    return whole


def spread_like(part: Tensor, like: Tensor) -> Tensor:
    """Return the part of a tensor that lies here as a spread one, which is put together like it.

    Args:
        part: The part.
        like: A spread tensor.
    """
    from torch.distributed.tensor import DTensor

    mesh, placements = like.device_mesh, like.placements  # type: ignore[attr-defined]
    return DTensor.from_local(
        part, mesh, placements, run_check=False, shape=like.shape, stride=like.stride()
    )


def whole_of(tensor: Tensor) -> Tensor:
    """Put a spread tensor together, in every process that has a part of it; on the CPU."""
    full = getattr(tensor, "full_tensor", None)
    if full is None:
        return tensor.detach().cpu()
    with torch.no_grad(), _quiet():
        found: Tensor = full()
    return found.detach().cpu()


def whole_state(value: Any) -> Any:
    """Put together a spread tensor, or those among a parameter's tensors and numbers by key."""
    if isinstance(value, Mapping):
        return {key: whole_state(each) for key, each in value.items()}
    return whole_of(value) if isinstance(value, Tensor) else value


def copies_of(tensor: Tensor, stage_size: int) -> int:
    """Return how many processes of a stage have each element of a tensor.

    Args:
        tensor: A tensor, spread or not.
        stage_size: Processes of the stage.
    """
    mesh: Any = getattr(tensor, "device_mesh", None)
    if mesh is None:
        return stage_size
    placements = tensor.placements  # type: ignore[attr-defined]
    parts = [mesh.size(i) for i, p in enumerate(placements) if hasattr(p, "dim")]
    for part in parts:
        stage_size //= part
    return stage_size


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch from telling that two dimensions are put together one after the other."""
    logger = logging.getLogger("torch.distributed.tensor._redistribute")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
