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
    state: Sequence[bytes],
    numeric: Sequence[bytes] = (),
    categorical: Sequence[str] = (),
    keys: Sequence[bytes] = (),
    mail: Sequence[bytes] = (),
) -> OnlineRows:
    """Return n rows from their columns.

    Args:
        config: Dataset config.
        layout: Mailbox sections, for ``mail``.
        time: int64 [n], epoch milliseconds.
        amount: int64 [n], minor units.
        state: Per row float64 [C * S] as bytes.
        numeric: Per row float64 [N] as bytes; empty without numeric columns.
        categorical: Per row the joined values; empty without categorical columns.
        keys: Per row int64 [C] as bytes, ``entity_key`` of its entities; empty unless the head
            reads mail or embeddings.
        mail: Per row the messages of its mailboxes; empty unless the head reads mail.

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
        state=_floats(state, n).reshape(n, columns, -1),
        numeric=_floats(numeric, n).reshape(n, len(config.numeric)),
        categorical=values,
        keys=np.frombuffer(b"".join(keys), "<i8").reshape(n, columns) if len(keys) else None,
        mail=decode_mail(mail, layout) if len(mail) else None,
    )


def decode_mail(mail: Sequence[bytes], layout: MailLayout) -> OnlineMail:
    """Return the mailboxes of n rows from the bytes of their messages."""
    width = len(layout.features)
    message = np.dtype(
        [("time", "<i8"), ("amount", "<i8"), ("counterpart", "<i8"), ("vector", "<f4", (width,))]
    )
    rows = np.frombuffer(b"".join(mail), message).reshape(len(mail), layout.groups, -1)
    return OnlineMail(
        present=rows["time"] != NO_MESSAGE,
        time=rows["time"],
        amount=rows["amount"],
        counterpart=rows["counterpart"],
        vector=rows["vector"],
    )


def _floats(column: Sequence[bytes], n: int) -> NDArray[np.float64]:
    if not len(column):
        return np.empty((n, 0))
    return np.frombuffer(b"".join(column), "<f8")


def _split(column: Sequence[str], parts: int) -> list[list[str]]:
    """Return one list per part of texts joined by ``SEPARATOR``."""
    if not len(column) or not parts:
        return []
    if parts == 1:
        return [list(column)]
    return [
        list(values) for values in zip(*(text.split(SEPARATOR) for text in column), strict=True)
    ]
