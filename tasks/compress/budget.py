"""What a model may cost: bytes, milliseconds, memory, and the loss that is borne for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from tasks.compress.device import CompressError, Device
from tasks.compress.footprint import Footprint

_LEAST = {"mb": "megabytes", "ms": "milliseconds", "memory_mb": "megabytes of memory"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Limits; None where nothing is asked.

    Attributes:
        mb: Size of the file in megabytes (10^6 bytes).
        smaller: How many times smaller than the float file it must be.
        ms: Median milliseconds of one item.
        faster: How many times faster than the float file in the same engine it must be.
        memory_mb: Peak memory of a process that runs it; None: that of the device.
        loss: Quality that may be lost, in the figure by which the model is judged.
    """

    mb: float | None = None
    smaller: float | None = None
    ms: float | None = None
    faster: float | None = None
    memory_mb: float | None = None
    loss: float = 0.01

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        for name, value in asdict(self).items():
            if value is None or name == "loss":
                continue
            if not 0 < value < float("inf"):
                unit = _LEAST.get(name, "a factor")
                raise CompressError(f"budget {name}={value:g} cannot be met; give {unit} above 0")
        if not 0 <= self.loss < 1:
            raise CompressError(f"loss={self.loss:g}: give a share from 0 to below 1, as 0.01")

    def excess(
        self, found: Footprint, whole: Footprint, device: Device
    ) -> Mapping[str, tuple[float, float]]:
        """Return what is over the limits: name -> (reached, limit); empty where all are kept.

        Args:
            found: Of the file that is judged.
            whole: Of the float file.
            device: Gives the memory where none is asked.
        """
        most = [("mb", found.mb, self.mb), ("ms", found.ms, self.ms)]
        most.append(("memory_mb", found.memory_mb, self.memory_mb or device.memory_mb))
        least = [("smaller", whole.mb / found.mb, self.smaller)]
        least.append(("faster", whole.ms / found.ms, self.faster))
        over = {name: (got, limit) for name, got, limit in most if limit and got > limit}
        return over | {name: (got, limit) for name, got, limit in least if limit and got < limit}

    def size(self, whole: int) -> int:
        """Return the bytes that a file may have at most, 0 where no size is asked.

        >>> Budget(mb=2.0, smaller=4.0).size(6_000_000)
        1500000
        """
        limits = [] if self.mb is None else [self.mb * 1e6]
        limits += [] if self.smaller is None else [whole / self.smaller]
        return int(min(limits, default=0))

    def words(self) -> str:
        """Return the limits in words."""
        told = {"mb": "at most {:g} MB", "smaller": "at least {:g} times smaller"}
        told |= {"ms": "at most {:g} ms", "faster": "at least {:g} times faster"}
        told |= {"memory_mb": "at most {:g} MB of memory", "loss": "loss at most {:g}"}
        values = asdict(self)
        return ", ".join(text.format(values[n]) for n, text in told.items() if values[n])


def distance(over: Mapping[str, tuple[float, float]]) -> float:
    """Return how far a file is from its limits: the product of the factors, 1 where all are kept.

    >>> distance({"mb": (4.0, 2.0), "faster": (2.0, 3.0)})
    3.0
    """
    far = 1.0
    for reached, limit in over.values():
        far *= max(reached / limit, limit / reached)
    return far
