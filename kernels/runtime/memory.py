"""Memory of activations: within a budget, by recomputing, packing, or both.

With a budget, the first batch is tried under one plan after the other, and the first that fits
stays: nothing; as few recomputed blocks as suffice; all of them; all of them, packed without loss.
Bytes are counted by hooks, not estimated.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.fx import GraphModule

from kernels.runtime.forward import replaced_forward
from kernels.runtime.recompute import Kept, Recompute, blocks_of, recomputed
from kernels.runtime.saved_tensors import Count, Packing, SavedTensors
from kernels.runtime.segments import UntraceableError, segments_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryConfig:
    """How activations are kept.

    Attributes:
        recompute: ``none``; ``full`` or ``selective`` checkpointing of blocks; ``segments`` of the
            whole model, whatever it is made of.
        share: Share of the blocks or segments that are computed again, the first ones.
        blocks: Names of the modules that count as blocks; empty: the members of the model's lists
            and sequences.
        packing: ``none``, ``lossless``, ``bf16``, ``fp16`` or ``int8`` for what is kept.
        to_cpu: Keep it in the memory of the CPU until it is needed.
        budget_mib: MiB that activations of a batch may take; 0 for no limit. Chooses ``recompute``,
            ``share`` and ``packing`` itself, among the exact ones.
    """

    recompute: Recompute = "none"
    share: float = 1.0
    blocks: tuple[str, ...] = ()
    packing: Packing = "none"
    to_cpu: bool = False
    budget_mib: float = 0.0

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if self.recompute not in {"none", "selective", "full", "segments"}:
            raise ValueError(
                f"memory.recompute is {self.recompute!r}; "
                "take 'none', 'selective', 'full' or 'segments'"
            )
        if self.packing not in {"none", "lossless", "bf16", "fp16", "int8"}:
            raise ValueError(
                f"memory.packing is {self.packing!r}; "
                "take 'none', 'lossless', 'bf16', 'fp16' or 'int8'"
            )
        if not 0 < self.share <= 1:
            raise ValueError(f"memory.share must lie in (0, 1], got {self.share}")
        if self.budget_mib < 0:
            raise ValueError(f"memory.budget_mib is {self.budget_mib}; give 0 for no limit")
        if self.budget_mib and (self.recompute, self.packing) != ("none", "none"):
            raise ValueError("give memory.budget_mib or a plan of your own, not both")


@dataclass(frozen=True, slots=True)
class Plan:
    """What is computed again, of how many blocks, and how the rest is packed."""

    recompute: Recompute
    blocks: int
    packing: Packing

    def __str__(self) -> str:
        again = "" if self.recompute == "none" else f"{self.recompute} x {self.blocks}"
        packed = "" if self.packing == "none" else self.packing
        return " + ".join(filter(None, (again, packed))) or "nothing"


class Memory:
    """Keeps the activations of a model by a plan.

    Attributes:
        plan: The plan.
        is_chosen: Whether nothing is left to measure.
        count: Bytes of the last forward pass; counted only where something is packed.
    """

    def __init__(self, config: MemoryConfig, model: nn.Module) -> None:
        """Prepare.

        Raises:
            ValueError: When the model lacks a block of a name, or cannot be cut into segments.
        """
        self.config, self._model = config, model
        self._blocks = self._named_blocks() if config.blocks else list(blocks_of(model).values())
        self._segments: GraphModule | None = None
        if config.recompute == "segments":
            self._segments = segments_of(model)
        self.plan = Plan(config.recompute, 0, config.packing)
        count = math.ceil(config.share * len(self._members(config.recompute)))
        self.plan = Plan(config.recompute, count, config.packing)
        self.is_chosen = not config.budget_mib
        self.count = Count()

    @contextmanager
    def active(self) -> Iterator[None]:
        """Keep to the plan inside, in the forward pass and the backward pass."""
        with self._recomputed(self.plan):
            yield

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Pack by the plan what a forward pass inside saves."""
        if self.plan.packing == "none" and not self.config.to_cpu:
            yield
            return
        hooks = SavedTensors(self._model, self.plan.packing, to_cpu=self.config.to_cpu)
        with hooks.active() as self.count:
            yield

    def choose(self, forward: Callable[[], Tensor]) -> None:
        """Take the first plan that keeps within the budget, else the smallest.

        Args:
            forward: Forward pass of a batch, without a trace; returns the loss.
        """
        budget = self.config.budget_mib * 2**20
        found: list[tuple[int, Plan]] = []
        for plan in self._plans(budget, found):
            found.append((self.measured(plan, forward), plan))  # noqa: PERF401 - the plans look at it
        fitting = [(kept, plan) for kept, plan in found if kept <= budget]
        easiest = min(fitting, key=lambda each: self._effort(each[1]), default=None)
        kept, self.plan = easiest or min(found, key=lambda each: each[0])
        self.is_chosen = True
        told = ", ".join(f"{plan} {b / 2**20:.1f} MiB" for b, plan in found)
        logger.info("activations: %s (%s)", self.plan, told)
        if kept > budget:
            logger.warning(
                "no exact plan keeps within %.1f MiB, the smallest takes %.1f; give smaller "
                "batches, or memory.packing='int8' where an error of 1/254 is borne",
                self.config.budget_mib,
                kept / 2**20,
            )

    def measured(self, plan: Plan, forward: Callable[[], Tensor]) -> int:
        """Return the bytes that a forward pass keeps under a plan."""
        with self._recomputed(plan) as kept:
            with SavedTensors(self._model, plan.packing).active() as count:
                loss = forward()
            del loss
        return count.kept_bytes + kept.bytes

    def state_dict(self) -> dict[str, Any]:
        """Return the plan."""
        return {"plan": [self.plan.recompute, self.plan.blocks, self.plan.packing]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on by the plan of before."""
        self.plan, self.is_chosen = Plan(*state["plan"]), True
        if self.plan.recompute == "segments" and self._segments is None:
            self._segments = segments_of(self._model)

    def _effort(self, plan: Plan) -> tuple[bool, float]:
        """Return what a plan costs, for a comparison: packing, share of what is computed again."""
        return plan.packing != "none", plan.blocks / max(len(self._members(plan.recompute)), 1)

    def _plans(self, budget: float, found: list[tuple[int, Plan]]) -> Iterator[Plan]:
        """Give plans to be measured; ``found`` grows by each."""
        yield Plan("none", 0, "none")
        if found[-1][0] <= budget:
            return
        kinds: list[Recompute] = ["full"]
        try:
            self._segments = segments_of(self._model)
            kinds.append("segments")
        except UntraceableError:
            pass
        for kind in kinds:
            yield Plan(kind, len(self._members(kind)), "none")
        kept, deepest = min(found, key=lambda each: each[0])
        if kept > budget:
            yield Plan(deepest.recompute, deepest.blocks, "lossless")
            return
        # Blocks are unequal: halve the question how many of the first suffice.
        low, high = 1, deepest.blocks
        while low < high:
            middle = (low + high) // 2
            yield Plan(deepest.recompute, middle, "none")
            low, high = (low, middle) if found[-1][0] <= budget else (middle + 1, high)

    @contextmanager
    def _recomputed(self, plan: Plan) -> Iterator[Kept]:
        members = self._members(plan.recompute)[: plan.blocks]
        with ExitStack() as stack:
            if plan.recompute == "segments" and self._segments is not None:
                stack.enter_context(replaced_forward(self._model, self._segments.forward))
            selective = plan.recompute == "selective"
            yield stack.enter_context(recomputed(members, selective=selective))

    def _members(self, kind: Recompute) -> list[nn.Module]:
        if kind == "segments" and self._segments is not None:
            return list(self._segments.children())
        return [] if kind == "none" else self._blocks

    def _named_blocks(self) -> list[nn.Module]:
        known = dict(self._model.named_modules())
        missing = [name for name in self.config.blocks if name not in known]
        if missing:
            raise ValueError(
                f"memory.blocks names {', '.join(missing)}, which the model lacks; it has "
                f"{', '.join(list(blocks_of(self._model))[:8])}"
            )
        return [known[name] for name in self.config.blocks]
