"""One checkpoint on disk: whole or not there, and known when it was altered.

A folder ``step-00000123`` with ``tensors.safetensors``, ``state.json`` and ``manifest.json``, which
holds size and SHA-256 of the others. It is written beside its final name, flushed and renamed.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from kernels.runtime.packing import (
    digest_of,
    flush_folder,
    unpack,
    write_flushed,
    write_tensors,
)

logger = logging.getLogger(__name__)

FORMAT = 2
PREFIX = "step-"
TENSORS, STATE, MANIFEST = "tensors.safetensors", "state.json", "manifest.json"


class CheckpointError(ValueError):
    """A checkpoint that cannot be written, or does not fit the run; the message says why."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A checkpoint that lies somewhere.

    Attributes:
        path: Its folder.
        step: Steps finished by then.
        metric: Value of the evaluation by then, if there was one.
    """

    path: Path
    step: int
    metric: float | None = None


def write(
    folder: Path, step: int, plain: Any, tensors: Mapping[str, Tensor], metric: float | None = None
) -> Stored:
    """Write a checkpoint.

    Args:
        folder: Folder of the run's checkpoints; created when missing.
        step: Finished steps.
        plain: State without its tensors, as `packing.pack` gives it.
        tensors: Its tensors, on the CPU.
        metric: Value of the last evaluation.

    Raises:
        CheckpointError: When the disk is full or refuses; nothing of it stays then.
    """
    target = folder / f"{PREFIX}{step:08d}"
    part = folder / f".{target.name}.part"
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        files = {
            TENSORS: write_tensors(part / TENSORS, tensors),
            STATE: write_flushed(part / STATE, iter([json.dumps(plain).encode()])),
        }
        manifest = {"format": FORMAT, "step": step, "metric": metric, "files": files}
        write_flushed(part / MANIFEST, iter([json.dumps(manifest, indent=1).encode()]))
        flush_folder(part)
        shutil.rmtree(target, ignore_errors=True)
        part.rename(target)
        flush_folder(folder)
    except OSError as error:
        shutil.rmtree(part, ignore_errors=True)
        need = sum(t.numel() * t.element_size() for t in tensors.values()) / 2**20
        raise CheckpointError(
            f"checkpoint {target} was not written: {error.strerror or error}; it needs "
            f"{need:.0f} MiB in {folder}"
        ) from error
    logger.debug("checkpoint %s", target)
    return Stored(target, step, metric)


def stored_in(folder: Path) -> list[Stored]:
    """Return the checkpoints of a folder whose manifest can be read, oldest first."""
    found = []
    for path in sorted(folder.glob(f"{PREFIX}*")) if folder.is_dir() else ():
        try:
            manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
            found.append(Stored(path, int(manifest["step"]), manifest["metric"]))
        except (OSError, ValueError, KeyError, TypeError):
            logger.warning("checkpoint %s has no readable %s; left alone", path, MANIFEST)
    return sorted(found, key=lambda each: each.step)


def damage(path: Path) -> str:
    """Return what is wrong with a checkpoint's files, "" when they are as they were written."""
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        if manifest["format"] != FORMAT:
            return f"format {manifest['format']}, this version reads {FORMAT}"
        files = dict(manifest["files"])
        if {TENSORS, STATE} - files.keys():
            return f"{MANIFEST} names too few files"
        for name, expected in files.items():
            if digest_of(path / name) != expected:
                return f"{name} is not what was written"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return str(error) or type(error).__name__
    return ""


def read(path: Path) -> Any:
    """Read the state of an undamaged checkpoint, tensors on the CPU.

    Raises:
        CheckpointError: When it cannot be read all the same.
    """
    from safetensors.torch import load_file

    try:
        plain = json.loads((path / STATE).read_text(encoding="utf-8"))
        return unpack(plain, load_file(path / TENSORS))
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"checkpoint {path} cannot be read: {error}; delete it") from error
