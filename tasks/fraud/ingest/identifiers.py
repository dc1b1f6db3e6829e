"""Names of entities and events: one rule for files, streams and requests.

An entity id is text. Whole floats lose their ``.0`` (a column of integers with gaps is often
written as floats), surrounding blanks go, nothing else changes: ``007`` and ``7`` differ.
An event id is a signed 64-bit integer: integers, and text that spells one, stand for themselves;
any other text is its BLAKE2b-64 hash. With ten million ids two texts collide with p = 3e-6.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

EXACT_FLOAT = 2**53
"""Beyond this a float no longer tells neighbouring integers apart."""

BLANKS = " \t\r\n"
"""What may surround an id or a value in a text column."""

_WHOLE = re.compile(r"([+-]?\d+)\.0+")
_INT64 = range(-(2**63), 2**63)


def entity_id(value: Any) -> str | None:
    """Return the canonical text of an entity id, ``None`` when it is missing.

    >>> entity_id(12.0), entity_id(" C-7 "), entity_id("12.0"), entity_id(""), entity_id(None)
    ('12', 'C-7', '12', None, None)
    """
    if value is None:
        return None
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return str(int(value)) if value.is_integer() else repr(value)
    text = (value.isoformat() if hasattr(value, "isoformat") else str(value)).strip(BLANKS)
    whole = _WHOLE.fullmatch(text)
    return whole.group(1) if whole else text or None


def event_key(value: int | str) -> int:
    """Return the signed 64-bit key of an event id.

    >>> event_key(12) == event_key("12") == 12
    True
    >>> event_key("tx-12") == event_key("tx-12") != event_key("tx-13")
    True
    """
    if isinstance(value, int):
        if value not in _INT64:
            raise ValueError(f"event id {value} does not fit 64 bits; write ids as text")
        return value
    text = value.strip(BLANKS)
    try:
        number = int(text)
    except ValueError:
        return _hash(text)
    return number if str(number) == text and number in _INT64 else _hash(text)


def event_keys(texts: pl.Series) -> NDArray[np.int64]:
    """Return ``event_key`` of every text (no nulls), int64 [n]."""
    texts = texts.str.strip_chars(BLANKS)
    numbers = texts.cast(pl.Int64, strict=False)
    spelled = (numbers.cast(pl.String) == texts).fill_null(value=False)
    keys = numbers.fill_null(0).to_numpy().copy()
    other = (~spelled).to_numpy()
    keys[other] = [_hash(text) for text in texts.filter(~spelled).to_list()]
    return keys


def spell_keys(names: NDArray[np.object_], keys: NDArray[np.int64]) -> bool:
    """Tell whether every id is the text of its own key, so that the integers say it all."""
    return all(
        name.strip(BLANKS) == str(key) for name, key in zip(names, keys.tolist(), strict=True)
    )


def encode(column: pa.Array) -> tuple[NDArray[np.int32], list[str]]:
    """Encode a column as codes into its canonical ids.

    Returns:
        int32 codes [n] (-1: missing) and the distinct ids (in no promised order).
    """
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    raw = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    position: dict[str, int] = {}
    codes = np.full(len(encoded.dictionary) + 1, -1, np.int32)  # the last one serves raw = -1
    for i, value in enumerate(encoded.dictionary.to_pylist()):
        text = entity_id(value)
        if text is not None:
            codes[i] = position.setdefault(text, len(position))
    return codes[raw], list(position)


def join_indexes(
    columns: Sequence[tuple[NDArray[np.int32], list[str]]],
) -> tuple[list[NDArray[np.int32]], NDArray[np.str_]]:
    """Give several encoded columns of one kind one shared index of the ids that occur.

    Ids are ordered as numbers when all of them spell integers, else as text, so the index does
    not depend on the order of rows.

    Returns:
        New int32 codes per column and the index, a string array.
    """
    present = [np.flatnonzero(np.bincount(c[c >= 0], minlength=len(ids))) for c, ids in columns]
    texts: set[str] = set()
    for rows, (_, ids) in zip(present, columns, strict=True):
        texts.update(ids[row] for row in rows)
    index = _ordered(texts)
    position = {text: i for i, text in enumerate(index)}
    joined = []
    for rows, (codes, ids) in zip(present, columns, strict=True):
        table = np.full(len(ids) + 1, -1, np.int32)
        table[rows] = [position[ids[row]] for row in rows]
        joined.append(table[codes])
    return joined, np.array(index, dtype=np.str_)


def _ordered(texts: set[str]) -> list[str]:
    try:
        return sorted(texts, key=lambda text: (int(text), text))
    except ValueError:
        return sorted(texts)


def _hash(text: str) -> int:
    return int.from_bytes(
        hashlib.blake2b(text.encode(), digest_size=8).digest(), "big", signed=True
    )
