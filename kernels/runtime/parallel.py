"""How a model and its batches are spread over processes: sizes, names and what goes together.

Five dimensions, whose product is the number of processes. ``data``: each process takes its share of
a batch. ``shard``: the same, and parameters, gradients and moments are spread, too (ZeRO-3:
Rajbhandari et al., 2020; FSDP2 of torch). ``tensor``: matrices are cut by columns and rows (Shoeybi
et al., "Megatron-LM", 2019). ``pipeline``: each process has some of the layers (1F1B: Narayanan et
al., "PipeDream", 2019; interleaved: Narayanan et al., 2021). ``context``: sequences are cut.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from kernels.runtime.compression import CompressionConfig

Style = Literal["column", "row", "gathered"]
DIMENSIONS = ("pipeline", "data", "shard", "context", "tensor")
"""From the one that talks least to the one that talks most: the last are neighbours."""


class SpreadError(ValueError):
    """A model or a batch that cannot be spread so; all processes raise it, naming the fix."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParallelConfig:
    """How a run is spread over its processes; by itself every process has the whole model.

    Attributes:
        data: Processes that take shares of a batch; 0 for as many as the others leave.
        shard: Processes over which parameters, gradients and moments are spread; they take shares
            of a batch, too.
        tensor: Processes over which matrices are cut.
        pipeline: Processes over which layers are dealt out.
        context: Processes over which sequences are cut.
        context_dim: Dimension of a batch's tensors that counts tokens (``context``); tensors that
            lack it go to every process.
        offload: Keep spread parameters, gradients and moments in the memory of the CPU (``shard``).
        blocks: Names of the modules that are gathered one after the other (``shard``); empty: the
            members of the model's lists and sequences.
        plan: Which linear layers are cut, by name or pattern (``tensor``): ``column`` by outputs,
            which stay apart, ``row`` by inputs, which are apart, ``gathered`` by outputs, which are
            put together again.
        cuts: Names of the children that begin a new stage (``pipeline``).
        schedule: ``1f1b`` with one stage in each process, or ``interleaved`` with several.
        micro_batches: Parts of a share that go through the pipeline one after the other.
        compression: How gradients are sent between the processes of ``data``.
    """

    data: int = 0
    shard: int = 1
    tensor: int = 1
    pipeline: int = 1
    context: int = 1
    context_dim: int = 1
    offload: bool = False
    blocks: tuple[str, ...] = ()
    plan: Mapping[str, Style] = field(default_factory=dict)
    cuts: tuple[str, ...] = ()
    schedule: Literal["1f1b", "interleaved"] = "1f1b"
    micro_batches: int = 4
    compression: CompressionConfig = field(default_factory=CompressionConfig)

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        for name in ("shard", "tensor", "pipeline", "context", "micro_batches"):
            if getattr(self, name) < 1:
                raise ValueError(f"parallel.{name} must be at least 1, got {getattr(self, name)}")
        if self.context_dim < 1:
            raise ValueError("parallel.context_dim must be at least 1; 0 counts the sequences")
        if self.data < 0:
            raise ValueError(f"parallel.data is {self.data}; give 0 for as many as there are")
        if (self.offload or self.blocks) and self.shard == 1:
            raise ValueError("parallel.offload and blocks need parallel.shard above 1")
        if (self.tensor > 1) != bool(self.plan):
            raise ValueError(
                "give parallel.tensor above 1 and plan together, or neither: the plan names the "
                "linear layers that are cut, such as {'0': 'column', '2': 'row'}"
            )
        wrong = {
            style for style in self.plan.values() if style not in {"column", "row", "gathered"}
        }
        if wrong:
            raise ValueError(
                f"parallel.plan holds {sorted(wrong)}; take 'column', 'row' or 'gathered'"
            )
        self._require_stages()

    def _require_stages(self) -> None:
        if self.schedule not in {"1f1b", "interleaved"}:
            raise ValueError(
                f"parallel.schedule is {self.schedule!r}; take '1f1b' or 'interleaved'"
            )
        if self.pipeline == 1:
            if self.cuts:
                raise ValueError("parallel.cuts need parallel.pipeline above 1")
            return
        stages = len(self.cuts) + 1
        each, rest = divmod(stages, self.pipeline)
        if rest or (each == 1) != (self.schedule == "1f1b"):
            wanted = (
                f"{self.pipeline - 1}"
                if self.schedule == "1f1b"
                else f"a multiple of {self.pipeline}, above it, less one"
            )
            raise ValueError(
                f"parallel.cuts make {stages} stages of {self.pipeline} processes; the schedule "
                f"{self.schedule!r} needs {wanted} cuts"
            )
        least = self.pipeline if self.schedule == "interleaved" else stages
        if self.micro_batches < least or (
            self.schedule == "interleaved" and self.micro_batches % self.pipeline
        ):
            raise ValueError(
                f"parallel.micro_batches is {self.micro_batches}; the schedule {self.schedule!r} "
                f"needs {'a multiple of' if self.schedule == 'interleaved' else 'at least'} {least}"
            )

    @property
    def is_spread(self) -> bool:
        """Whether a process has less than the whole model, or of a sequence."""
        return max(self.shard, self.tensor, self.pipeline, self.context) > 1

    def layout(self, rank: int, size: int) -> Layout:
        """Return where a process stands.

        Args:
            rank: Its number.
            size: How many there are.

        Raises:
            ValueError: When the sizes do not fit the number of processes.
        """
        rest = self.shard * self.tensor * self.pipeline * self.context
        data = self.data or max(size // rest, 1)
        sizes = {name: getattr(self, name) for name in DIMENSIONS} | {"data": data}
        if data * rest != size:
            told = " x ".join(f"{name} {n}" for name, n in sizes.items() if n > 1) or "data 1"
            raise ValueError(
                f"parallel: {told} is for {data * rest} processes, there are {size}; start "
                f"{data * rest}, or change the sizes"
            )
        return Layout(tuple(sizes[name] for name in DIMENSIONS), rank)


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a process stands among the others.

    Attributes:
        sizes: Processes in each of `DIMENSIONS`.
        rank: Its number; the last dimension counts fastest.
    """

    sizes: tuple[int, ...]
    rank: int

    def size(self, *names: str) -> int:
        """Return how many processes there are in some dimensions."""
        return math.prod(self.sizes[DIMENSIONS.index(name)] for name in names)

    def at(self, *names: str) -> int:
        """Return this process's number within some dimensions, the last one counting fastest."""
        found = 0
        for name in names:
            index = DIMENSIONS.index(name)
            place = self.rank // math.prod(self.sizes[index + 1 :]) % self.sizes[index]
            found = found * self.sizes[index] + place
        return found

    @property
    def counts(self) -> bool:
        """Whether this process's loss and items count: the others of them only repeat it."""
        is_last = self.at("pipeline") == self.size("pipeline") - 1
        return is_last and self.at("tensor") == 0

    @property
    def stream(self) -> int:
        """Number of its random numbers: those who compute the same draw the same."""
        return self.at("pipeline", "data", "shard", "context")

    @property
    def leads(self) -> bool:
        """Whether it speaks for its pipeline stage."""
        return self.at("data", "shard", "context", "tensor") == 0
