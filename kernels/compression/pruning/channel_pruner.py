"""Takes whole channels out of a trained net, with whatever depends on them, in rounds of training.

What is left is an ordinary smaller net: no masks, nothing sparse, every engine runs it faster.

    >>> import torch
    >>> from torch import nn
    >>> net = nn.Sequential(nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 32, 3), nn.ReLU(),
    ...                     nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 2))
    >>> config = PruningConfig(scope="layer")
    >>> pruned = ChannelPruner(net, torch.zeros(1, 3, 16, 16), 0.5, config).prune()
    >>> pruned.before.parameters, pruned.after.parameters, pruned.model[0].out_channels
    (20322, 9834, 40)
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from kernels.compression.pruning.budget import Scope, keep_within
from kernels.compression.pruning.channel_sets import ChannelSets, Mask, NetCost
from kernels.compression.pruning.criteria import CRITERIA, Criterion, Scores, importance
from kernels.compression.pruning.errors import PruningError
from kernels.compression.pruning.propagate import channel_graph
from kernels.compression.pruning.surgery import Surgery
from kernels.runtime.runner import Loss
from kernels.runtime.source import Batches

logger = logging.getLogger(__name__)
Measure = Callable[[nn.Module], float]
"""Milliseconds that a net takes on the device it is meant for."""
FineTune = Callable[[nn.Module, int], None]
"""(net, round from 1) -> trained in place, with a `kernels.runtime.runner.Runner`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PruningConfig:
    """How to prune.

    Attributes:
        of: What the ratio is taken of: parameters, multiplications, or measured milliseconds.
        criterion: What goes first, see `kernels.compression.pruning.criteria`.
        scope: Least important channels of all layers, or the same share of each.
        rounds: Steps in which the ratio is reached, each with training behind it.
        least: Share of the channels that each layer keeps in any case.
        multiple: Layers keep multiples of so many channels.
        batches: That ``taylor`` looks at.
        seed: For ``random``.
    """

    of: Literal["parameters", "multiplications", "ms"] = "parameters"
    criterion: Criterion = "group"
    scope: Scope = "global"
    rounds: int = 1
    least: float = 0.1
    multiple: int = 8
    batches: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if self.criterion not in CRITERIA:
            raise ValueError(f"criterion {self.criterion!r} is none of {', '.join(CRITERIA)}")
        if self.of not in {"parameters", "multiplications", "ms"}:
            raise ValueError(f"of {self.of!r} is none of parameters, multiplications, ms")
        if self.scope not in {"global", "layer"}:
            raise ValueError(f"scope {self.scope!r} is none of global, layer")
        if min(self.rounds, self.multiple, self.batches) < 1:
            raise ValueError("rounds, multiple and batches must be at least 1")
        if not 0 <= self.least < 1:
            raise ValueError(f"least must be in [0, 1), got {self.least}")


@dataclass(frozen=True, slots=True)
class Pruned:
    """A pruned net.

    Attributes:
        model: It, in evaluation mode.
        surgeries: What each round took out, to be applied to the net as it was built, in order.
        before: Cost before.
        after: Cost after.
        held: Why channels had to stay: operation -> sets of channels it holds.
    """

    model: nn.Module
    surgeries: tuple[Surgery, ...]
    before: NetCost
    after: NetCost
    held: dict[str, int] = field(default_factory=dict)


class ChannelPruner:
    """Prunes one net; the net it is given stays as it is."""

    def __init__(
        self,
        model: nn.Module,
        example: Tensor | Sequence[Tensor],
        ratio: float,
        config: PruningConfig | None = None,
    ) -> None:
        """Find out what can be taken out.

        Args:
            model: Any module that ``torch.fx`` can trace.
            example: Its input, or its inputs, as it gets them in use.
            ratio: Share of the budget's cost that goes, in (0, 1).
            config: How to prune.

        Raises:
            PruningError: When the net has no fixed graph, ties weights, does not take the example,
                or no channel of it can go; names the operations that hold them.
            ValueError: When the ratio is no share.
        """
        if not 0 < ratio < 1:
            raise ValueError(f"ratio must lie between 0 and 1, got {ratio}; .3 takes 30 % out")
        self.config = config or PruningConfig()
        self.ratio = ratio
        self.model = copy.deepcopy(model).eval()
        self.example = (example,) if isinstance(example, Tensor) else tuple(example)
        self._sets = self._found(self.model)
        with torch.no_grad():
            self._answers = _shapes(self.model(*self.example))
        if not len(self._sets):
            raise PruningError(f"no channel can be taken out; {self._holders()}")
        if unreached := self._sets.graph.unreached:
            logger.warning(
                "%s and %d more layers are not run in evaluation and keep their channels; if "
                "training runs them, take them off first",
                unreached[0],
                len(unreached) - 1,
            )
        counts = np.bincount(self._sets.family)
        if counts.max() == 1:
            raise PruningError(
                "no channel can be taken out: every layer has one, or its channels can only go "
                f"together; {self._holders()}"
            )

    def prune(
        self,
        *,
        batches: Batches[Any] | None = None,
        loss: Loss[Any] | None = None,
        fine_tune: FineTune | None = None,
        measure: Measure | None = None,
    ) -> Pruned:
        """Return the pruned net.

        Args:
            batches: Training batches by index, for ``taylor``.
            loss: As the training has it, for ``taylor``.
            fine_tune: Trains the net after each round.
            measure: Milliseconds of a net, for a ratio of them.

        Raises:
            PruningError: When the ratio cannot be reached, with the largest that can.
        """
        model, sets = copy.deepcopy(self.model), self._sets
        whole = np.ones(len(sets), dtype=bool)
        before = sets.cost(whole)
        full = self._cost(model, sets, whole, measure)
        surgeries = []
        for number in range(1, self.config.rounds + 1):
            # Each round takes the same share of what is left.
            goal = full * (1 - self.ratio) ** (number / self.config.rounds)
            scores = importance(
                self.config.criterion, model, sets,
                batches=self._first(batches), loss=loss, seed=self.config.seed + number,
            )  # fmt: skip
            kept = self._kept(model, sets, scores, goal, full, measure)
            surgery = sets.surgery(kept)
            surgery.apply(model)
            self._require_running(model)
            surgeries.append(surgery)
            if fine_tune is not None:
                fine_tune(model, number)
                model.eval()
            sets = self._found(model)
        after = sets.cost(np.ones(len(sets), dtype=bool))
        return Pruned(model, tuple(surgeries), before, after, self._held(sets))

    def _found(self, model: nn.Module) -> ChannelSets:
        return ChannelSets(model, channel_graph(model, self.example))

    def _kept(
        self,
        model: nn.Module,
        sets: ChannelSets,
        scores: Scores,
        goal: float,
        full: float,
        measure: Measure | None,
    ) -> Mask:
        """Return what stays."""
        config = self.config
        kept, reached = keep_within(
            sets,
            scores,
            lambda mask: self._cost(model, sets, mask, measure) <= goal,
            scope=config.scope,
            least=config.least,
            multiple=config.multiple,
        )
        if not reached:
            most = 1 - self._cost(model, sets, kept, measure) / full
            raise PruningError(
                f"{self.ratio:g} of the {config.of} cannot be taken out, at most {most:.3f} with "
                f"least={config.least:g}; {self._holders()}"
            )
        return kept

    def _cost(
        self, model: nn.Module, sets: ChannelSets, kept: Mask, measure: Measure | None
    ) -> float:
        if self.config.of != "ms":
            return sets.cost(kept).of(self.config.of)
        if measure is None:
            raise PruningError("a ratio of ms needs measure=, which times a net on its device")
        smaller = copy.deepcopy(model)
        sets.surgery(kept).apply(smaller)
        return measure(smaller)

    def _first(self, batches: Batches[Any] | None) -> Iterator[Any]:
        if batches is not None and self.config.criterion == "taylor":
            yield from (batches(index) for index in range(self.config.batches))

    def _require_running(self, model: nn.Module) -> None:
        """Refuse a net whose operations do not follow its channels.

        Raises:
            PruningError: Such as for a size that is computed in a way nobody foresaw.
        """
        try:
            with torch.no_grad():
                shapes = _shapes(model(*self.example))
        except (RuntimeError, ValueError) as error:
            raise PruningError(
                f"the pruned net does not run: {error}; write sizes as x.shape or -1 where they "
                "depend on channels"
            ) from error
        if shapes != self._answers:
            raise PruningError(f"the pruned net answers {shapes} in the place of {self._answers}")

    def _held(self, sets: ChannelSets) -> dict[str, int]:
        atoms = sets.graph.atoms
        made = [slot.ids.numpy() for slot, _ in sets.slots("makes")]
        owned = atoms.find_array(np.concatenate(made)) if made else np.zeros(0, np.int64)
        counts = {
            why: len(np.intersect1d(atoms.find_array(ids), owned))
            for why, ids in atoms.held.items()
        }
        return {why: count for why, count in counts.items() if count}

    def _holders(self) -> str:
        """Return which operations hold channels, the one that holds most first."""
        held = sorted(self._held(self._sets).items(), key=lambda one: -one[1])
        told = "; ".join(f"{why}: {count}" for why, count in held[:5])
        return f"channels that stay because of an operation: {told or 'none'}"


def _shapes(answers: Any) -> list[tuple[int, ...]]:
    """Return the shapes of all tensors in an answer."""
    return [tuple(leaf.shape) for leaf in tree_leaves(answers) if isinstance(leaf, Tensor)]
