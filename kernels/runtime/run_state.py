"""All that a run is, as one nested state: collected after a step, restored before the next."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from kernels.runtime import checkpoint_files
from kernels.runtime.checkpoint_files import CheckpointError
from kernels.runtime.compression import Compression
from kernels.runtime.config import RunConfig
from kernels.runtime.group import Group
from kernels.runtime.parallel import Layout
from kernels.runtime.randomness import random_state, set_random_state
from kernels.runtime.spread import Spread

logger = logging.getLogger(__name__)


class Part(Protocol):
    """A part of the loop with a state of its own."""

    def state_dict(self) -> dict[str, Any]:
        """Return tensors, numbers, texts, lists and dicts of them."""

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Go on from what `state_dict` gave; tuples have become lists."""


def collect(
    step: int, config: RunConfig, spread: Spread, parts: Mapping[str, Part], group: Group
) -> dict[str, Any]:
    """Return the state after ``step`` finished steps; its tensors are those in use.

    All processes of a group call it together: random states, and what compression has not sent
    yet, are each one's own. The whole model and its optimizer are in the first one's, in a form
    that does not depend on how they are spread.
    """
    compression = spread.compression
    unsent = {} if compression is None else compression.state_dict()
    return {
        "step": step,
        "config": config.identity(),
        "layout": list(spread.layout.sizes),
        "model": spread.model_state(),
        "parts": {name: part.state_dict() for name, part in parts.items()},
        "random": group.gather(random_state()),
        "unsent": group.gather(unsent) if unsent else [],
    }


def restore(
    path: Path, config: RunConfig, spread: Spread, parts: Mapping[str, Part], group: Group
) -> int:
    """Restore model, parts and random states in place.

    Args:
        path: An undamaged checkpoint.
        config: Settings of the run; must equal those saved.
        spread: Model of the same shape.
        parts: The same parts.
        group: The processes, of which there may be others than before, in another layout; those
            that were not there draw new random numbers.

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
        spread.load_model(state["model"])
    except RuntimeError as error:
        raise CheckpointError(
            f"checkpoint {path} holds another model; delete it ({error})"
        ) from error
    for name, part in parts.items():
        part.load_state_dict(state["parts"][name])
    before = Layout(tuple(state["layout"]), group.rank)
    is_same = before.sizes == spread.layout.sizes
    if is_same or spread.layout.at("pipeline") == 0:
        _restore_random(state["random"], before, spread.layout, is_same=is_same)
    if state["unsent"]:
        _restore_unsent(state["unsent"], spread.compression, group, is_same=is_same)
    return int(state["step"])


def _restore_random(
    states: list[dict[str, Any]], before: Layout, layout: Layout, *, is_same: bool
) -> None:
    """Take the random state of the process that had this one's share of a batch."""
    streams = [Layout(before.sizes, rank).stream for rank in range(len(states))]
    wanted = before.stream if is_same else layout.stream
    if wanted in streams:
        set_random_state(states[streams.index(wanted)])


def _restore_unsent(
    states: list[dict[str, Any]], compression: Compression | None, group: Group, *, is_same: bool
) -> None:
    if compression is not None and is_same:
        compression.load_state_dict(states[group.rank])
    else:
        if compression is not None:
            compression.begin_anew(states[0])
        if group.is_first:
            logger.warning(
                "the run goes on in another layout: what compression had not sent is lost, the "
                "errors begin anew"
            )
