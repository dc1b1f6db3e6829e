"""All that a run is, as one nested state: collected after a step, restored before the next."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from kernels.runtime import checkpoint_files
from kernels.runtime.checkpoint_files import CheckpointError
from kernels.runtime.config import RunConfig
from kernels.runtime.group import Group
from kernels.runtime.randomness import random_state, set_random_state


class Part(Protocol):
    """A part of the loop with a state of its own."""

    def state_dict(self) -> dict[str, Any]:
        """Return tensors, numbers, texts, lists and dicts of them."""

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Go on from what `state_dict` gave; tuples have become lists."""


def collect(
    step: int, config: RunConfig, model: nn.Module, parts: Mapping[str, Part], group: Group
) -> dict[str, Any]:
    """Return the state after ``step`` finished steps; its tensors are those in use.

    All processes of a group call it together: random states are each one's own.
    """
    return {
        "step": step,
        "config": config.identity(),
        "model": model.state_dict(),
        "parts": {name: part.state_dict() for name, part in parts.items()},
        "random": group.gather(random_state()),
    }


def restore(
    path: Path, config: RunConfig, model: nn.Module, parts: Mapping[str, Part], group: Group
) -> int:
    """Restore model, parts and random states in place.

    Args:
        path: An undamaged checkpoint.
        config: Settings of the run; must equal those saved.
        model: Model of the same shape.
        parts: The same parts.
        group: The processes, of which there may be others than before; those that were not there
            draw new random numbers.

    Returns:
        Finished steps.

    Raises:
        CheckpointError: When it belongs to another run or model.
    """
    state = checkpoint_files.read(path)
    now = json.loads(json.dumps(config.identity()))
    differing = sorted(key for key in now if state["config"].get(key) != now[key])
    if differing:
        raise CheckpointError(
            f"checkpoint {path} belongs to a run with another {', '.join(differing)}; "
            "delete it or use the settings it was written with"
        )
    try:
        model.load_state_dict(state["model"])
    except RuntimeError as error:
        raise CheckpointError(
            f"checkpoint {path} holds another model; delete it ({error})"
        ) from error
    for name, part in parts.items():
        part.load_state_dict(state["parts"][name])
    if group.rank < len(state["random"]):
        set_random_state(state["random"][group.rank])
    return int(state["step"])
