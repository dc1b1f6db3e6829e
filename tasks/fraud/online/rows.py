"""What a stream or a request knows of some transactions.

The raw state of every entity column comes from the state blocks (``kernels.entity_state``), by
whichever implementation reads them; from there on batch, stream and API share every line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class OnlineMail:
    """The mailboxes that some transactions read, newest message first.

    Attributes:
        present: bool [n, G, K], whether a slot holds a message.
        time: int64 [n, G, K], epoch milliseconds; anything where absent, as in all below.
        amount: int64 [n, G, K], minor units.
        counterpart: int64 [n, G, K], ``entity_key`` of the entity on the other side.
        vector: float32 [n, G, K, W].
    """

    present: NDArray[np.bool_]
    time: NDArray[np.int64]
    amount: NDArray[np.int64]
    counterpart: NDArray[np.int64]
    vector: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class OnlineRows:
    """Transactions with all that is known of their entities.

    Attributes:
        time: int64 [n], epoch milliseconds.
        amount: int64 [n], minor units.
        state: float64 [n, C, S], raw state per entity column, the event itself counted in.
        numeric: float64 [n, N], extra numbers, NaN where missing.
        categorical: Per categorical column n values, None where missing.
        keys: int64 [n, C], ``entity_key`` of each entity; needed by heads that read embeddings or
            mail.
        mail: Mailboxes; needed by heads that read mail.
    """

    time: NDArray[np.int64]
    amount: NDArray[np.int64]
    state: NDArray[np.float64]
    numeric: NDArray[np.float64]
    categorical: Sequence[Sequence[str | None]] = ()
    keys: NDArray[np.int64] | None = None
    mail: OnlineMail | None = None

    def __len__(self) -> int:
        return len(self.time)
