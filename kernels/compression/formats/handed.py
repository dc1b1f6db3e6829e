"""What formats have in common that are written by a worker."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from kernels.compression.export import ExportConfig
from kernels.compression.formats.program import program_of, save_program
from kernels.compression.formats.protocol import (
    FormatUnavailableError,
    Source,
    Written,
    require_module,
)
from kernels.compression.formats.worker import Worker, WorkerFile, WorkerLimits, save

VENVS = Path(__file__).resolve().parents[3] / ".venvs"


@dataclass(frozen=True, slots=True)
class HandedFormat:
    """A format that a worker writes; see `kernels.compression.formats.protocol.Format`.

    Attributes:
        name: As on the command line.
        suffix: Of its files.
        script: In ``workers/``.
        runs: Whether it runs on this machine.
        own: Whether it needs an environment of its own.
        notes: What a user must know.
        venvs: Folder of the environments.
        limits: Of a worker.
    """

    name: str
    suffix: str
    script: str
    runs: bool = True
    own: bool = True
    notes: tuple[str, ...] = ()
    venvs: Path = VENVS
    limits: WorkerLimits = field(default_factory=WorkerLimits)
    from_onnx: bool = False

    @property
    def python(self) -> Path:
        """Interpreter of the worker."""
        return self.venvs / self.name / "bin" / "python" if self.own else Path(sys.executable)

    def available(self) -> str:
        """Return "" where the environment was made."""
        if self.own and not (self.venvs / self.name / ".complete").is_file():
            return f"{self.name} has no environment; run: make export-venv FORMAT={self.name}"
        return ""

    def write(
        self, source: Source, example: Sequence[Tensor], path: Path, config: ExportConfig
    ) -> Written:
        """Write the file."""
        module = require_module(source, self.name)
        self._require()
        program = program_of(module, example, config)
        with Worker(self.python, self.script, self.limits) as worker:
            folder = Path(worker.folder.name)
            save_program(program, folder / "net.pt2")
            save(str(folder / "example.npz"), [one.numpy(force=True) for one in example])
            free = [
                {str(axis): one for axis, one in config.dynamic.get(name, {}).items()}
                for name in config.inputs
            ]
            told = worker.ask(
                {
                    "do": "write",
                    "archive": str(folder / "net.pt2"),
                    "example": str(folder / "example.npz"),
                    "path": str(path.resolve()),
                    "inputs": config.inputs,
                    "outputs": config.outputs,
                    "free": free,
                }
            )
        return Written(
            files=(path,),
            version=str(told["version"]),
            producers={str(k): str(v) for k, v in told["producers"].items()},
            dynamic=bool(told["dynamic"]),
            notes=self.notes,
        )

    def open(self, path: Path, config: ExportConfig) -> WorkerFile:
        """Open the file in a worker."""
        self._require()
        worker = Worker(self.python, self.script, self.limits)
        try:
            worker.ask({"do": "open", "path": str(path.resolve())})
        except BaseException:
            worker.close()
            raise
        return WorkerFile(worker, config.inputs, config.outputs)

    def _require(self) -> None:
        if reason := self.available():
            raise FormatUnavailableError(reason)
