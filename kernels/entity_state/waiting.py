"""Labels that wait beside a block: those that are due enter it before an event is read.

A table of waiting labels is int64 [p, 4]: label time, event time, event id, label (0 or 1), sorted
by the first three. Whoever reads the block for an event (t, id) first releases the labels at the
front while ``label_time <= t`` and ``(time, event_id) < (t, id)``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kernels.entity_state.block import Block, _base, _own_words
from kernels.entity_state.cpu import Words, release_to_section
from kernels.entity_state.layout import Plan, layout_of
from kernels.entity_state.spec import StateSpec
from kernels.jit import compiled


def release_due(
    block: Block,
    role: int,
    labels: NDArray[np.int64],
    time: int,
    event_id: int,
    *,
    spec: StateSpec,
) -> int:
    """Release into ``block`` the labels that an event at ``time`` may know.

    Args:
        block: State block, changed in place.
        role: Role whose labels these are.
        labels: int64 [p, 4], waiting labels in order of release.
        time: Epoch milliseconds of the event.
        event_id: Id of the event.
        spec: The spec the block was written with.

    Returns:
        How many labels at the front were released; the caller drops them.

    Raises:
        BlockError: If the block is read-only or does not fit the spec.
        ValueError: For a table of another shape, or a label that is neither 0 nor 1.
    """
    if not len(labels) or labels[0, 0] > time:
        return 0
    if labels.shape[1] != 4:
        raise ValueError(f"waiting labels must be [p, 4], got {labels.shape}")
    layout = layout_of(spec)
    words = _own_words(block, layout)
    due = int(np.searchsorted(labels[:, 0], time, side="right"))
    table = np.array(labels[:due], np.int64, order="C")  # a view of received bytes is read-only
    done = int(_release(words, _base(layout, role), layout.plan, table, int(time), int(event_id)))
    if done < due and labels[done, 3] not in (0, 1):
        raise ValueError(f"label must be 0 or 1, got {labels[done, 3]}; unknown ones never wait")
    return done


def insert_label(
    labels: NDArray[np.int64], label_time: int, time: int, event_id: int, label: int
) -> NDArray[np.int64]:
    """Return the table [p + 1, 4] with one more waiting label, in order of release.

    Raises:
        ValueError: For a label that is neither 0 nor 1; unknown labels never wait.
    """
    if label not in (0, 1):
        raise ValueError(f"label must be 0 or 1, got {label}; unknown labels never wait")
    row = (label_time, time, event_id)
    place = len(labels)
    while place and tuple(labels[place - 1, :3].tolist()) > row:
        place -= 1
    new = np.array([[*row, label]], np.int64)
    return np.concatenate([labels[:place], new, labels[place:]])


@compiled
def _release(
    words: Words, base: int, plan: Plan, labels: NDArray[np.int64], time: int, event_id: int
) -> int:
    # numba's cache knows this file's time stamp, not that of the functions called: whoever changes
    # `release_to_section` must change this file too (layout 2).
    for i in range(len(labels)):
        later = labels[i, 1] > time or (labels[i, 1] == time and labels[i, 2] >= event_id)
        if labels[i, 0] > time or later or (labels[i, 3] != 0 and labels[i, 3] != 1):
            return i
        release_to_section(words, base, plan, labels[i, 1], labels[i, 3])
    return len(labels)
