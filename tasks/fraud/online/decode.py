"""From the byte columns of a stream to rows that can be scored.

The layout of the columns is the contract in docs/decisions/2026-11-26-stream.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tasks.fraud.online.rows import OnlineMail, OnlineRows

if TYPE_CHECKING:
    from tasks.fraud.dataset import DatasetConfig
    from tasks.fraud.graph.mail import MailLayout

SEPARATOR = "\x1f"
"""Between the values of a joined text column."""

MISSING = "\0"
"""A missing category."""

NO_MESSAGE = -(2**63)
"""Time of an empty mailbox slot."""


def decode_rows(
    config: DatasetConfig,
    layout: MailLayout,
    time: NDArray[np.int64],
    amount: NDArray[np.int64],
    state: bytes | memoryview,
    numeric: bytes | memoryview = b"",
    categorical: Sequence[str] = (),
    keys: bytes | memoryview = b"",
    mail: bytes | memoryview = b"",
) -> OnlineRows:
    """Return n rows from their columns; bytes of a column lie row by row without gaps.

    Args:
        config: Dataset config.
        layout: Mailbox sections, for ``mail``.
        time: int64 [n], epoch milliseconds.
        amount: int64 [n], minor units.
        state: float64 [n, C * S] as bytes.
        numeric: float64 [n, N] as bytes; empty without numeric columns.
        categorical: Per row the joined values; empty without categorical columns.
        keys: int64 [n, C] as bytes, ``entity_key`` of the entities; empty unless the head reads
            mail or embeddings.
        mail: Messages of all mailboxes of the rows; empty unless the head reads mail.

    Raises:
        ValueError: When a column's bytes do not fit the config.
    """
    n, columns = len(time), len(config.entities)
    names = len(config.categorical)
    values = [
        [None if v == MISSING else v for v in column] for column in _split(categorical, names)
    ]
    return OnlineRows(
        time=time,
        amount=amount,
        state=np.frombuffer(state, "<f8").reshape(n, columns, -1),
        numeric=np.frombuffer(numeric, "<f8").reshape(n, len(config.numeric)),
        categorical=values,
        keys=np.frombuffer(keys, "<i8").reshape(n, columns) if len(keys) else None,
        mail=_mail(mail, n, layout) if len(mail) else None,
    )


def _mail(mail: bytes | memoryview, n: int, layout: MailLayout) -> OnlineMail:
    width = len(layout.features)
    message = np.dtype(
        [("time", "<i8"), ("amount", "<i8"), ("counterpart", "<i8"), ("vector", "<f4", (width,))]
    )
    rows = np.frombuffer(mail, message).reshape(n, layout.groups, -1)
    return OnlineMail(
        present=rows["time"] != NO_MESSAGE,
        time=rows["time"],
        amount=rows["amount"],
        counterpart=rows["counterpart"],
        vector=rows["vector"],
    )


def _split(column: Sequence[str], parts: int) -> list[list[str]]:
    """Return one list per part of texts joined by ``SEPARATOR``."""
    if not len(column) or not parts:
        return []
    if parts == 1:
        return [list(column)]
    return [
        list(values) for values in zip(*(text.split(SEPARATOR) for text in column), strict=True)
    ]
