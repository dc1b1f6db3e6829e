"""What every format can do: say whether it is ready, write a file, open it again and run it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray
from torch import Tensor, nn

from kernels.compression.export import ExportConfig

Arrays = Mapping[str, NDArray[Any]]
Source = nn.Module | bytes
"""A module in evaluation mode, or an ONNX file."""


class FormatError(ValueError):
    """A module that does not become a file of a format, or a file that does not run; says why."""


class FormatUnavailableError(FormatError):
    """What the format needs is not installed; names the command that mends it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What was written.

    Attributes:
        files: The file that is named, then those beside it.
        version: Operator set or version of the format.
        producers: Program -> version.
        dynamic: Whether the sizes of the configuration stayed free.
        notes: What a user must know.
    """

    files: tuple[Path, ...]
    version: str
    producers: Mapping[str, str]
    dynamic: bool
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """Outputs by name, and the CPU milliseconds that the engine took for them."""

    outputs: dict[str, NDArray[Any]]
    ms: float


class Opened(Protocol):
    """A file that runs."""

    def __call__(self, inputs: Arrays) -> Answer:
        """Return what the file answers.

        Raises:
            FormatError: When the engine refuses the inputs.
        """

    def close(self) -> None:
        """End what runs it."""


class Format(Protocol):
    """A format; see the files beside this one."""

    @property
    def name(self) -> str:
        """As on the command line."""

    @property
    def suffix(self) -> str:
        """Of its files."""

    @property
    def runs(self) -> bool:
        """Whether this machine can run it."""

    @property
    def from_onnx(self) -> bool:
        """Whether an ONNX file can become one."""

    def available(self) -> str:
        """Return "" where the format can be written, else the reason with the command to mend."""

    def write(
        self, source: Source, example: Sequence[Tensor], path: Path, config: ExportConfig
    ) -> Written:
        """Write a file.

        Args:
            source: What to write.
            example: One tensor per input; free sizes are larger than 1 in it.
            path: Of the file.
            config: Names and free sizes.

        Raises:
            FormatError: When the source does not become one.
        """

    def open(self, path: Path, config: ExportConfig) -> Opened:
        """Open a file that `write` wrote.

        Raises:
            FormatError: When it is broken.
        """


@dataclass(slots=True)
class Local:
    """A file that runs in this process.

    Attributes:
        run: Arrays by name -> outputs by name.
    """

    run: Callable[[Arrays], dict[str, NDArray[Any]]]
    ending: Callable[[], None] | None = field(default=None)

    def __call__(self, inputs: Arrays) -> Answer:
        """Return what the file answers; see `Opened`."""
        began = time.process_time()
        try:
            outputs = self.run(inputs)
        except FormatError:
            raise
        except Exception as error:  # engines have no base class of their errors
            raise FormatError(f"the engine refuses the inputs: {first_line(error)}") from error
        return Answer(outputs, 1e3 * (time.process_time() - began))

    def close(self) -> None:
        """End what runs it."""
        if self.ending is not None:
            self.ending()


def first_line(error: BaseException | str) -> str:
    """Return the first line of a failure, at most 300 characters."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def require_module(source: Source, name: str) -> nn.Module:
    """Return the module.

    Raises:
        FormatError: When the source is an ONNX file, or in training mode.
    """
    if isinstance(source, bytes):
        raise FormatError(
            f"an ONNX file does not become {name}; export the trained net, or take onnx or openvino"
        )
    if any(each.training for each in source.modules()):
        raise FormatError("the module is in training mode; call .eval() before the export")
    return source
