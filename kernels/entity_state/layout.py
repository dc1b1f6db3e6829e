"""The one byte layout of a state block: little endian, fixed size, every field 8-byte aligned.

A block is a header followed by one section per role. All fields are int64 or float64 except the
header's magic, version numbers and digest, and the float32 message vectors. `describe` lists every
field with its byte offset; an implementation in another language needs nothing else.

Tile rings: the tile with index ``g = floor(time / tile)`` lives in slot ``g mod size``. A slot
holds the newest tile that ever fell into it; an event of an older tile is dropped. Hence the
final bytes of the tiles do not depend on the order of the events.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kernels.entity_state.spec import StateSpec

MAGIC = b"PENSTATE"
LAYOUT_VERSION = 2
NONE = -(2**63)
"""Marks an absent time, tile index or event id."""

WORD = 8
HEADER = np.dtype(
    [
        ("magic", "S8"),
        ("layout", "<u4"),
        ("roles", "<u4"),
        ("version", "<u8"),
        ("digest", "<u8"),
    ]
)
LAST = (
    "last_time",
    "events",
    "last_label",
    "last_fraud_time",
    "run_start",
    "run_length",
)
"""Single int64 fields at the head of a section."""


class BlockError(ValueError):
    """Bytes that are no state block of the expected spec; the message says what differs."""


class Plan(NamedTuple):
    """The layout as numbers, for compiled code; offsets count 8-byte words within a section.

    Attributes:
        header: Words before the first section.
        section: Words of a section.
        recent: Offset of the ring of recent event ids.
        recent_size: Slots of that ring.
        rings: int64 [rings, 3]: tile milliseconds, slots, offset of each tile ring.
        windows: int64 [windows, 3]: ring number, length in milliseconds, length in tiles.
        label_tile: Milliseconds of a label tile.
        label_size: Slots of the label ring.
        label: Offset of the label ring.
        delay: Milliseconds before a label may be used.
        mail: Offset of the mail ring; the word before it counts the messages ever deposited.
        mail_size: Slots of the mail ring.
        mail_words: 8-byte words of one message vector (padded).
    """

    header: int
    section: int
    recent: int
    recent_size: int
    rings: NDArray[np.int64]
    windows: NDArray[np.int64]
    label_tile: int
    label_size: int
    label: int
    delay: int
    mail: int
    mail_size: int
    mail_words: int


@dataclass(frozen=True, slots=True)
class Layout:
    """Everything derived from a spec.

    Attributes:
        spec: The spec.
        dtype: Structured dtype of a whole block; ``itemsize`` is the block size in bytes.
        plan: The same as numbers for compiled code.
        empty: Bytes of a block that has seen nothing, uint8 [itemsize], read-only.
    """

    spec: StateSpec
    dtype: np.dtype[Any]
    plan: Plan
    empty: NDArray[np.uint8]

    @property
    def size(self) -> int:
        """Bytes of a block."""
        return self.dtype.itemsize


class Field(NamedTuple):
    """One row of the layout table: ``length`` entries of ``type`` from byte ``offset`` on."""

    name: str
    offset: int
    type: str
    length: int


def spec_digest(spec: StateSpec) -> int:
    """Return the first 8 bytes of the SHA-256 of the spec's canonical JSON, little endian."""
    text = json.dumps(asdict(spec), sort_keys=True, separators=(",", ":"))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


def ring_sizes(spec: StateSpec) -> dict[int, int]:
    """Return tile length -> slots, in order of first use by the windows."""
    sizes: dict[int, int] = {}
    for window in spec.windows:
        sizes[window.tile] = max(sizes.get(window.tile, 0), window.length // window.tile + 1)
    return sizes


def label_slots(spec: StateSpec) -> int:
    """Return the slots of the label ring: the longest window on label tiles, plus one."""
    longest = max(window.length for window in spec.windows)
    return -(-longest // spec.label_tile) + 1


@lru_cache(maxsize=64)
def layout_of(spec: StateSpec) -> Layout:
    """Return the layout of ``spec`` (cached)."""
    section = _section_dtype(spec)
    dtype = np.dtype([("header", HEADER), ("roles", section, (spec.roles,))])
    empty = np.zeros(1, dtype)
    head = empty["header"]
    head["magic"], head["layout"], head["roles"] = MAGIC, LAYOUT_VERSION, spec.roles
    head["digest"] = spec_digest(spec)
    for role in range(spec.roles):
        _clear(empty["roles"][0, role : role + 1])
    raw = empty.view(np.uint8).copy()
    raw.flags.writeable = False
    return Layout(spec, dtype, _plan(spec, section), raw)


def new_block(spec: StateSpec) -> NDArray[np.uint8]:
    """Return a fresh writable block, uint8 [size]."""
    return layout_of(spec).empty.copy()


def check_block(block: NDArray[np.uint8] | bytes | bytearray, spec: StateSpec) -> None:
    """Raise `BlockError` unless ``block`` was written with this layout and this spec."""
    layout = layout_of(spec)
    raw = np.frombuffer(block, np.uint8) if isinstance(block, bytes | bytearray) else block
    if raw.dtype != np.uint8 or raw.ndim != 1 or len(raw) != layout.size:
        raise BlockError(
            f"state block has {raw.nbytes} bytes, this spec needs {layout.size}; "
            "rebuild the state with the current spec"
        )
    head = np.frombuffer(raw[: HEADER.itemsize].tobytes(), HEADER)[0]
    if head["magic"] != MAGIC or head["layout"] != LAYOUT_VERSION:
        raise BlockError(
            f"not a state block of layout {LAYOUT_VERSION}: magic {bytes(head['magic'])!r}, "
            f"layout {head['layout']}; rebuild the state"
        )
    if int(head["digest"]) != spec_digest(spec):
        raise BlockError(
            "state block was written with other windows, delay or sizes; rebuild the state "
            "or use the spec it was written with"
        )


def view(block: NDArray[np.uint8], spec: StateSpec) -> NDArray[np.void]:
    """Return the block (or blocks, uint8 [..., size]) as structured records sharing memory."""
    records: NDArray[np.void] = block.view(layout_of(spec).dtype)
    return records[..., 0]


def version(block: NDArray[np.uint8]) -> int:
    """Return the number of changes made to the block so far."""
    return int.from_bytes(block[16:24].tobytes(), "little")


def describe(spec: StateSpec) -> list[Field]:
    """Return every field of a block with its byte offset, in order, all roles written out.

    Types are ``bytes``, ``uint32``, ``uint64``, ``int64``, ``float64`` and ``float32``, little
    endian; ``length`` entries of the type follow each other from ``offset``.
    """
    layout = layout_of(spec)
    rows = [_field(f"header.{name}", HEADER, name, 0) for name in _names(HEADER)]
    section = _section_dtype(spec)
    for role in range(spec.roles):
        base = 8 * (layout.plan.header + role * layout.plan.section)
        for name in _names(section):
            inner, offset = _fields(section)[name][:2]
            label = f"roles[{role}].{name}"
            if inner.names is None:
                rows.append(_field(label, section, name, base))
            else:
                rows += [_field(f"{label}.{n}", inner, n, base + offset) for n in inner.names]
    return rows


def _section_dtype(spec: StateSpec) -> np.dtype[Any]:
    parts: list[tuple[Any, ...]] = [(name, "<i8") for name in LAST]
    parts.append(("recent_ids", "<i8", (spec.recent_ids,)))
    for tile, size in ring_sizes(spec).items():
        ring = [
            ("index", "<i8", (size,)),
            ("count", "<i8", (size,)),
            ("sum", "<i8", (size,)),
            ("sumsq", "<f8", (size,)),
            ("min", "<i8", (size,)),
            ("max", "<i8", (size,)),
        ]
        parts.append((f"tiles_{tile}", np.dtype(ring)))
    slots = label_slots(spec)
    labels = [("index", "<i8", (slots,)), ("known", "<i8", (slots,)), ("frauds", "<i8", (slots,))]
    parts.append(("labels", np.dtype(labels)))
    parts.append(("mails", "<i8"))  # messages ever deposited
    mail: list[tuple[Any, ...]] = [
        (name, "<i8", (spec.mail_slots,)) for name in ("time", "amount", "counterpart", "role")
    ]
    mail.append(("vector", "<f4", (spec.mail_slots, _padded(spec.mail_width))))
    parts.append(("mail", np.dtype(mail)))
    return np.dtype(parts)


def _padded(width: int) -> int:
    return width + width % 2


def _clear(section: NDArray[np.void]) -> None:
    for name in ("last_time", "last_fraud_time", "run_start", "recent_ids"):
        section[name] = NONE
    section["last_label"] = -1
    for name in _names(section.dtype):
        if name.startswith("tiles_") or name == "labels":
            section[name]["index"] = NONE
    section["mail"]["time"] = NONE
    section["mail"]["role"] = -1


def _plan(spec: StateSpec, section: np.dtype[Any]) -> Plan:
    fields = _fields(section)
    sizes = ring_sizes(spec)
    order = list(sizes)
    rings = [(tile, sizes[tile], fields[f"tiles_{tile}"][1] // WORD) for tile in order]
    windows = [(order.index(w.tile), w.length, w.length // w.tile) for w in spec.windows]
    return Plan(
        header=HEADER.itemsize // WORD,
        section=section.itemsize // WORD,
        recent=fields["recent_ids"][1] // WORD,
        recent_size=spec.recent_ids,
        rings=np.array(rings, np.int64),
        windows=np.array(windows, np.int64),
        label_tile=spec.label_tile,
        label_size=label_slots(spec),
        label=fields["labels"][1] // WORD,
        delay=spec.delay,
        mail=fields["mail"][1] // WORD,
        mail_size=spec.mail_slots,
        mail_words=_padded(spec.mail_width) // 2,
    )


def _fields(dtype: np.dtype[Any]) -> dict[str, Any]:
    return dict(dtype.fields or {})


def _names(dtype: np.dtype[Any]) -> tuple[str, ...]:
    return dtype.names or ()


def _field(label: str, dtype: np.dtype[Any], name: str, base: int) -> Field:
    inner, offset = _fields(dtype)[name][:2]
    scalar = inner.base
    kind = "bytes" if scalar.kind == "S" else scalar.name
    count = scalar.itemsize if scalar.kind == "S" else int(np.prod(inner.shape, dtype=int))
    return Field(label, base + offset, kind, count)
