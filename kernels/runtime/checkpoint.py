"""Checkpoints as two plain files: tensors (safetensors) and the rest (JSON). No pickle.

A checkpoint is one folder ``step-00000123`` with ``tensors.safetensors`` and ``state.json``. It is
written beside its final name and renamed, so a folder with the final name is always whole.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from kernels.runtime.config import RunConfig

logger = logging.getLogger(__name__)

FORMAT = 1
_PREFIX = "step-"


class CheckpointError(ValueError):
    """A checkpoint that does not fit the run; the message says what differs."""


def save(
    folder: Path, step: int, model: nn.Module, optimizer: torch.optim.Optimizer, config: RunConfig
) -> Path:
    """Write a checkpoint after ``step`` finished steps and drop the older ones.

    Args:
        folder: Folder of the run's checkpoints; created when missing.
        step: Finished optimizer steps.
        model: Model with parameters and buffers.
        optimizer: Its optimizer.
        config: The run, compared on resume.

    Returns:
        Path of the checkpoint.
    """
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    plain: dict[str, dict[str, Any]] = {}
    packed = optimizer.state_dict()
    for index, entries in packed["state"].items():
        for name, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{index}.{name}"] = value
            else:
                plain.setdefault(str(index), {})[name] = value
    tensors["rng.torch"] = torch.get_rng_state()
    state = {
        "format": FORMAT,
        "step": step,
        "config": asdict(config),
        "optimizer": plain,
        "groups": packed["param_groups"],
    }
    target = folder / f"{_PREFIX}{step:08d}"
    part = folder / f".{target.name}.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    save_file({k: v.contiguous() for k, v in tensors.items()}, part / "tensors.safetensors")
    (part / "state.json").write_text(json.dumps(state, indent=1), encoding="utf-8")
    for file in part.iterdir():
        _flush(file)
    shutil.rmtree(target, ignore_errors=True)
    part.rename(target)
    _flush(folder)
    for old in _all(folder):
        if old != target:
            shutil.rmtree(old)
    logger.debug("checkpoint %s", target)
    return target


def latest(folder: Path) -> Path | None:
    """Return the newest checkpoint in ``folder``, None when there is none."""
    found = _all(folder)
    return found[-1] if found else None


def load(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, config: RunConfig) -> int:
    """Restore model, optimizer and torch's random state in place.

    Args:
        path: A checkpoint.
        model: Model of the same shape.
        optimizer: Its optimizer.
        config: The run; must equal the one saved.

    Returns:
        Finished steps.

    Raises:
        CheckpointError: When files are damaged or belong to another run or model.
    """
    try:
        state = json.loads((path / "state.json").read_text(encoding="utf-8"))
        tensors = load_file(path / "tensors.safetensors")
        step, saved = int(state["step"]), state["config"]
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"checkpoint {path} cannot be read: {error}; delete it") from error
    except Exception as error:
        # safetensors raises its own type, which derives from Exception alone.
        if type(error).__module__.split(".")[0] != "safetensors":
            raise
        raise CheckpointError(f"checkpoint {path} is damaged: {error}; delete it") from error
    now = json.loads(json.dumps(asdict(config)))
    if state["format"] != FORMAT or saved != now:
        differing = sorted(k for k in now if saved.get(k) != now[k]) or ["format"]
        raise CheckpointError(
            f"checkpoint {path} belongs to a run with another {', '.join(differing)}; "
            "delete it or use the settings it was written with"
        )
    try:
        model.load_state_dict(_under("model.", tensors))
    except RuntimeError as error:
        raise CheckpointError(
            f"checkpoint {path} holds another model; delete it ({error})"
        ) from error
    entries: dict[int, dict[str, Any]] = {}
    for index, values in state["optimizer"].items():
        entries.setdefault(int(index), {}).update(values)
    for name, value in _under("optimizer.", tensors).items():
        index, _, field = name.partition(".")
        entries.setdefault(int(index), {})[field] = value
    optimizer.load_state_dict({"state": entries, "param_groups": state["groups"]})
    torch.set_rng_state(tensors["rng.torch"])
    return step


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _all(folder: Path) -> list[Path]:
    return sorted(p for p in folder.glob(f"{_PREFIX}*") if p.is_dir()) if folder.is_dir() else []


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
