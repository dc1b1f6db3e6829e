"""The compiled state engine: what one event, one label and one message do to a state block.

Every function works on a block seen twice: ``words`` (int64) and ``reals`` (float64) share its
memory; ``base`` is the word at which the role's section begins. Batch features, the online store
and the API all run these functions, so they cannot drift apart.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kernels.entity_state.layout import LAST, NONE, Plan
from kernels.jit import compiled, compiled_reassociating, prefetch

Words = NDArray[np.int64]
Reals = NDArray[np.float64]
Unsigned = np.uint64

_LAST_TIME, _EVENTS, _LAST_LABEL, _LAST_FRAUD, _RUN_START, _RUN_LENGTH = range(len(LAST))
_VERSION = 2  # word of the block version in the header
_AHEAD = 3  # rows between prefetch and write
_LINE = 8  # float64 per cache line
_MAX = np.int64(2**63 - 1)
_MIN = np.int64(-(2**63))


@compiled
def read_section(
    words: Words, reals: Reals, base: int, plan: Plan, time: int, amount: int, out: Reals
) -> None:
    """Write the features an event of ``amount`` at ``time`` sees; the block is not changed.

    The event itself is counted in. ``out`` is float64 [features], see `fields.feature_names`.
    """
    windows = plan.windows.shape[0]
    newest = (time - plan.delay) // plan.label_tile
    labels = base + plan.label
    for w in range(windows):
        ring, length = plan.windows[w, 0], plan.windows[w, 1]
        tile, size, tiles = plan.rings[ring, 0], plan.rings[ring, 1], base + plan.rings[ring, 2]
        high = time // tile
        low = high - plan.windows[w, 2]
        _read_tiles(words, reals, tiles, size, low, high, amount, out, 7 * w)
        low = (time - plan.delay - length) // plan.label_tile
        _read_labels(words, labels, plan.label_size, low, newest, out, 7 * w + 5)
    at = 7 * windows
    out[at] = _age(time, words[base + _LAST_TIME])
    out[at + 1] = words[base + _LAST_LABEL]
    out[at + 2] = _age(time, words[base + _LAST_FRAUD])
    out[at + 3] = _age(time, words[base + _RUN_START])
    out[at + 4] = words[base + _RUN_LENGTH]


# The inner loops take numbers, not the plan: handing arrays on costs reference counts, which
# take longer than the loops. Positions are unsigned because signed ones would be tested for
# wrap-around, which stops the compiler from making vector code.


@compiled
def _read_tiles(
    words: Words,
    reals: Reals,
    ring: int,
    slots: int,
    low: int,
    high: int,
    amount: int,
    out: Reals,
    at: int,
) -> None:
    """Write count, sum, sum of squares, minimum and maximum of tiles ``low..high``."""
    index, size = np.uint64(ring), np.uint64(slots)
    counts, sums, squares = index + size, index + size + size, index + size + size + size
    minima, maxima = squares + size, squares + size + size
    count, total = np.int64(1), np.int64(amount)
    least, most = np.int64(amount), np.int64(amount)
    for k in range(size):
        inside = (words[index + k] >= low) & (words[index + k] <= high)
        count += words[counts + k] if inside else 0
        total += words[sums + k] if inside else 0
        least = min(least, words[minima + k] if inside else _MAX)
        most = max(most, words[maxima + k] if inside else _MIN)
    out[at] = count
    out[at + 1] = total
    out[at + 2] = _sum_inside(words, reals, index, squares, size, low, high) + _square(amount)
    out[at + 3] = least
    out[at + 4] = most


@compiled_reassociating
def _sum_inside(
    words: Words,
    reals: Reals,
    index: Unsigned,
    values: Unsigned,
    size: Unsigned,
    low: int,
    high: int,
) -> float:
    total = 0.0
    for k in range(size):
        inside = (words[index + k] >= low) & (words[index + k] <= high)
        total += reals[values + k] if inside else 0.0
    return total


@compiled
def _read_labels(
    words: Words, ring: int, slots: int, low: int, high: int, out: Reals, at: int
) -> None:
    """Write the known labels and known frauds of label tiles ``low..high``."""
    index, size = np.uint64(ring), np.uint64(slots)
    known, frauds = index + size, index + size + size
    seen, bad = np.int64(0), np.int64(0)
    for k in range(size):
        inside = (words[index + k] >= low) & (words[index + k] <= high)
        seen += words[known + k] if inside else 0
        bad += words[frauds + k] if inside else 0
    out[at] = seen
    out[at + 1] = bad


@compiled
def _square(amount: int) -> float:
    return float(amount) * float(amount)


@compiled
def _age(time: int, since: int) -> float:
    """Return seconds from ``since`` to ``time``, at least 0; -1 when there is none."""
    if since == NONE:
        return -1.0
    return max(time - since, 0) / 1000.0


@compiled
def is_recent(words: Words, base: int, plan: Plan, event_id: int) -> bool:
    """Return whether the role has seen ``event_id`` among its most recent ids."""
    at = np.uint64(base + plan.recent)
    found = False
    for k in range(np.uint64(plan.recent_size)):
        found |= words[at + k] == event_id
    return found


@compiled
def apply_to_section(
    words: Words, reals: Reals, base: int, plan: Plan, event_id: int, time: int, amount: int
) -> bool:
    """Enter an event; returns False, leaving the block as it was, for a recent id."""
    if is_recent(words, base, plan, event_id):
        return False
    for r in range(plan.rings.shape[0]):
        tile, size, at = plan.rings[r, 0], plan.rings[r, 1], base + plan.rings[r, 2]
        index = time // tile
        slot = at + index % size
        if words[slot] == index:
            words[slot + size] += 1
            words[slot + 2 * size] += amount
            reals[slot + 3 * size] += _square(amount)
            words[slot + 4 * size] = min(words[slot + 4 * size], amount)
            words[slot + 5 * size] = max(words[slot + 5 * size], amount)
        elif words[slot] < index:
            words[slot] = index
            words[slot + size] = 1
            words[slot + 2 * size] = amount
            reals[slot + 3 * size] = _square(amount)
            words[slot + 4 * size] = amount
            words[slot + 5 * size] = amount
    words[base + plan.recent + words[base + _EVENTS] % plan.recent_size] = event_id
    words[base + _EVENTS] += 1
    words[base + _LAST_TIME] = max(words[base + _LAST_TIME], time)
    words[_VERSION] += 1
    return True


@compiled
def release_to_section(words: Words, base: int, plan: Plan, event_time: int, label: int) -> None:
    """Make the label (0 or 1) of the event at ``event_time`` known."""
    size = plan.label_size
    index = event_time // plan.label_tile
    slot = base + plan.label + index % size
    if words[slot] == index:
        words[slot + size] += 1
        words[slot + 2 * size] += label
    elif words[slot] < index:
        words[slot] = index
        words[slot + size] = 1
        words[slot + 2 * size] = label
    words[base + _LAST_LABEL] = label
    if label == 1:
        words[base + _LAST_FRAUD] = max(words[base + _LAST_FRAUD], event_time)
        if words[base + _RUN_LENGTH] == 0:
            words[base + _RUN_START] = event_time
        words[base + _RUN_LENGTH] += 1
    else:
        words[base + _RUN_START] = NONE
        words[base + _RUN_LENGTH] = 0
    words[_VERSION] += 1


@compiled
def deposit_to_section(
    words: Words,
    base: int,
    plan: Plan,
    time: int,
    amount: int,
    counterpart: int,
    role: int,
    vector: Words,
) -> None:
    """Put a message into the mail ring; ``vector`` is the padded float32 vector as words."""
    size = plan.mail_size
    at = base + plan.mail
    mails = at - 1
    slot = words[mails] % size
    words[at + slot] = time
    words[at + size + slot] = amount
    words[at + 2 * size + slot] = counterpart
    words[at + 3 * size + slot] = role
    for k in range(plan.mail_words):
        words[at + 4 * size + slot * plan.mail_words + k] = vector[k]
    words[mails] += 1
    words[_VERSION] += 1


@compiled
def group(keys: NDArray[np.int32], n_entities: int) -> tuple[Words, Words]:
    """Return (rows ordered by key, stable; first position of each key, [n_entities + 1])."""
    starts = np.zeros(n_entities + 1, np.int64)
    for key in keys:
        starts[key + 1] += 1
    for e in range(n_entities):
        starts[e + 1] += starts[e]
    at = starts[:-1].copy()
    order = np.empty(len(keys), np.int64)
    for i in range(len(keys)):
        order[at[keys[i]]] = i
        at[keys[i]] += 1
    return order, starts


class Rows(NamedTuple):
    """Rows of a batch grouped by the entity of one role, in event order within an entity.

    Attributes:
        starts: int64 [n_entities + 1], first position of each entity.
        row: int64 [n], row of the batch.
        time: int64 [n], milliseconds.
        event_id: int64 [n].
        amount: int64 [n], minor units.
    """

    starts: Words
    row: Words
    time: Words
    event_id: Words
    amount: Words


class Labels(NamedTuple):
    """Known labels grouped by the entity of one role, in order of release within an entity.

    Attributes:
        starts: int64 [n_entities + 1], first position of each entity.
        row: int64 [labels], batch row of the event; -1 if the event came before the batch.
        label_time: int64 [labels], when the label counts.
        time: int64 [labels], time of its event.
        label: int8 [labels], 0 or 1.
        released: bool [labels], set where a label entered a block.
    """

    starts: Words
    row: Words
    label_time: Words
    time: Words
    label: NDArray[np.int8]
    released: NDArray[np.bool_]


@compiled
def _prefetch_row(out: NDArray[np.float64], row: int, role: int) -> None:
    """Fetch the output of a row to come: rows of one entity lie far apart in memory."""
    for feature in range(0, out.shape[2], _LINE):
        prefetch(out, row, role, feature)


@compiled
def run_role(
    blocks: Words, fresh: Words, plan: Plan, role: int, rows: Rows, labels: Labels, out: Reals
) -> None:
    """Run one role of a batch, one entity after the other so that its block stays in cache.

    Args:
        blocks: int64 [n_entities, words], changed in place; with no row at all the state of each
            entity is built in scratch space and forgotten.
        fresh: int64 [words], an empty block.
        plan: Layout as numbers.
        role: Role to run.
        rows: Events.
        labels: Known labels; ``released`` is filled.
        out: float64 [n, roles, features], filled at ``role``.
    """
    base = plan.header + role * plan.section
    keep = len(blocks) > 0
    scratch = fresh.copy()
    applied = np.zeros(len(rows.time), np.bool_)
    now = np.int64(NONE)
    for time in rows.time:
        now = max(now, time)
    for e in range(len(rows.starts) - 1):
        first, end = rows.starts[e], rows.starts[e + 1]
        if not keep:
            if first == end:
                continue
            scratch[base : base + plan.section] = fresh[base : base + plan.section]
        words = blocks[e] if keep else scratch
        reals = words.view(np.float64)
        d, d_end = labels.starts[e], labels.starts[e + 1]
        for p in range(first, end + 1):
            # One turn past the last event releases what else is due by the end of the batch.
            i = rows.row[p] if p < end else len(applied)
            time = int(rows.time[p] if p < end else now)
            while d < d_end and labels.label_time[d] <= time and labels.row[d] < i:
                # The label of a duplicate row is skipped.
                if labels.row[d] < 0 or applied[labels.row[d]]:
                    release_to_section(words, base, plan, labels.time[d], labels.label[d])
                labels.released[d] = True
                d += 1
            if p < end:
                if p + _AHEAD < len(applied):
                    _prefetch_row(out, rows.row[p + _AHEAD], role)
                amount, event_id = int(rows.amount[p]), int(rows.event_id[p])
                read_section(words, reals, base, plan, time, amount, out[i, role])
                applied[i] = apply_to_section(words, reals, base, plan, event_id, time, amount)
