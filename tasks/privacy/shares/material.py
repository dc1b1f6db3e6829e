"""What a party has from the trusted dealer for one batch of rows.

Most of it is a seed: whatever is uniform for one party alone, that party expands itself (AES-256 in
counter mode under a key by HKDF-SHA-256 from seed, name and number of the batch). Only what depends
on both parties' numbers is sent in full, to one of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray

Words = NDArray[np.uint64]

SEED_BYTES = 32
SESSION = -1
"""Number of the batch of what is the same for all batches of a deal."""
_BLOCK_BYTES = 16


def drawn(seed: bytes, name: str, batch: int, shape: tuple[int, ...]) -> Words:
    """Return uniform words; of the same seed, name and batch, longer ones begin with shorter ones.

    Args:
        seed: 32 secret bytes.
        name: What the words are for.
        batch: Number of the batch, or `SESSION`.
        shape: Of the words.
    """
    info = f"penstock joint scoring 1/{name}/{batch}".encode()
    key = HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=info).derive(seed)
    size = 8 * int(np.prod(shape))
    out = bytearray(size + _BLOCK_BYTES)
    # The key is used for this stream alone, so the counter may begin at zero. Zeros are encrypted
    # where they lie: with a second array this takes five times as long, nearly all of it memory.
    encryptor = Cipher(algorithms.AES256(key), modes.CTR(bytes(_BLOCK_BYTES))).encryptor()
    encryptor.update_into(memoryview(out)[:size], out)
    return np.frombuffer(out, "<u8", size // 8).reshape(shape)


@dataclass(frozen=True)
class Material:
    """A party's material for one batch.

    Attributes:
        seed: The party's, for this deal.
        batch: Number of the batch, or `SESSION`.
        given: Name -> uint64 [rows of a batch, n]: what was sent in full.
    """

    seed: bytes = field(repr=False)
    batch: int
    given: Mapping[str, Words] = field(default_factory=dict, repr=False)

    def words(self, name: str, rows: int, per_row: int) -> Words:
        """Return words [rows, per_row] of a name: those given or, if there are none, drawn.

        Raises:
            ValueError: When fewer or others were given.
        """
        if name not in self.given:
            return drawn(self.seed, name, self.batch, (rows, per_row))
        words = self.given[name]
        if len(words) < rows or words.shape[1] != per_row:
            raise ValueError(f"{name} of the deal is {list(words.shape)}, not {[rows, per_row]}")
        return words[:rows]
