"""BLAKE2Xb: a long pseudorandom string from a seed of 64 bytes, as Microsoft SEAL draws it.

A ciphertext fresh from its owner has a uniform second half that is sent as a seed. SEAL draws from
the seed in buffers of 4,096 bytes, each BLAKE2Xb keyed by the seed over the number of the buffer
(Aumasson et al. 2016, "BLAKE2X"). The 64 blocks of a buffer are independent: the compiler computes
four at a time in vector registers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels.jit import compiled_releasing
from kernels.ring.modular import WORD, inlined

BUFFER_WORDS = 512
"""Words of one buffer."""

SEED_WORDS = 8

_IV = (
    WORD(0x6A09E667F3BCC908),
    WORD(0xBB67AE8584CAA73B),
    WORD(0x3C6EF372FE94F82B),
    WORD(0xA54FF53A5F1D36F1),
    WORD(0x510E527FADE682D1),
    WORD(0x9B05688C2B3E6C1F),
    WORD(0x1F83D9ABFB41BD6B),
    WORD(0x5BE0CD19137E2179),
)
_ZERO, _ONES = WORD(0), WORD(0xFFFFFFFFFFFFFFFF)
_LENGTH = WORD(8 * BUFFER_WORDS << 32)
"""Length of the string in the parameter block, beside the number of a block."""
_KEYED = WORD(0x01014040)
"""Parameter block of the first hash: 64 bytes out, key of 64 bytes, sequential."""
_BLOCK = WORD(64 | 64 << 32)
"""Parameter block of the others: 64 bytes out, leaves of 64 bytes, depth 0."""
_INNER = WORD(64 << 8)


@inlined
def _mix(a: Any, b: Any, c: Any, d: Any, x: Any, y: Any) -> Any:
    a = a + b + x
    d = d ^ a
    d = (d >> WORD(32)) | (d << WORD(32))
    c = c + d
    b = b ^ c
    b = (b >> WORD(24)) | (b << WORD(40))
    a = a + b + y
    d = d ^ a
    d = (d >> WORD(16)) | (d << WORD(48))
    c = c + d
    b = b ^ c
    b = (b >> WORD(63)) | (b << WORD(1))
    return a, b, c, d


@inlined
def _round(v: Any, m: Any) -> Any:
    v0, v1, v2, v3, v4, v5, v6, v7, v8, v9, va, vb, vc, vd, ve, vf = v
    v0, v4, v8, vc = _mix(v0, v4, v8, vc, m[0], m[1])
    v1, v5, v9, vd = _mix(v1, v5, v9, vd, m[2], m[3])
    v2, v6, va, ve = _mix(v2, v6, va, ve, m[4], m[5])
    v3, v7, vb, vf = _mix(v3, v7, vb, vf, m[6], m[7])
    v0, v5, va, vf = _mix(v0, v5, va, vf, m[8], m[9])
    v1, v6, vb, vc = _mix(v1, v6, vb, vc, m[10], m[11])
    v2, v7, v8, vd = _mix(v2, v7, v8, vd, m[12], m[13])
    v3, v4, v9, ve = _mix(v3, v4, v9, ve, m[14], m[15])
    return v0, v1, v2, v3, v4, v5, v6, v7, v8, v9, va, vb, vc, vd, ve, vf


@inlined
def _compress(h: Any, message: Any, count: Any, last: Any) -> Any:
    """Mix one block of 16 words into the state; the order of words is that of BLAKE2b's table."""
    a, b, c, d, e, f, g, i, j, k, l, m, n, o, p, q = message  # noqa: E741 - names of the columns
    v = (*h, *_IV[:4], _IV[4] ^ count, _IV[5], _IV[6] ^ last, _IV[7])
    v = _round(v, (a, b, c, d, e, f, g, i, j, k, l, m, n, o, p, q))
    v = _round(v, (p, l, e, j, k, q, o, g, b, n, a, c, m, i, f, d))
    v = _round(v, (m, j, n, a, f, c, q, o, l, p, d, g, i, b, k, e))
    v = _round(v, (i, k, d, b, o, n, m, p, c, g, f, l, e, a, q, j))
    v = _round(v, (k, a, f, i, c, e, l, q, p, b, m, n, g, j, d, o))
    v = _round(v, (c, n, g, l, a, m, j, d, e, o, i, f, q, p, b, k))
    v = _round(v, (n, f, b, q, p, o, e, l, a, i, g, d, k, c, j, m))
    v = _round(v, (o, m, i, p, n, b, d, k, f, a, q, e, j, g, c, l))
    v = _round(v, (g, q, p, k, m, d, a, j, n, c, o, i, b, e, l, f))
    v = _round(v, (l, c, j, e, i, g, b, f, q, m, k, p, d, n, o, a))
    v = _round(v, (a, b, c, d, e, f, g, i, j, k, l, m, n, o, p, q))
    v = _round(v, (p, l, e, j, k, q, o, g, b, n, a, c, m, i, f, d))
    return (
        h[0] ^ v[0] ^ v[8],
        h[1] ^ v[1] ^ v[9],
        h[2] ^ v[2] ^ v[10],
        h[3] ^ v[3] ^ v[11],
        h[4] ^ v[4] ^ v[12],
        h[5] ^ v[5] ^ v[13],
        h[6] ^ v[6] ^ v[14],
        h[7] ^ v[7] ^ v[15],
    )


@inlined
def _padded(m: Any) -> Any:
    zero = _ZERO
    return (
        *(m[0], m[1], m[2], m[3], m[4], m[5], m[6], m[7]),
        *(zero, zero, zero, zero, zero, zero, zero, zero),
    )


@inlined
def _root(seed: Any, number: Any) -> Any:
    """Hash the number of a buffer, keyed by the seed."""
    zero = _ZERO
    h = (_IV[0] ^ _KEYED, _IV[1] ^ _LENGTH, *_IV[2:])
    h = _compress(h, _padded(seed), WORD(128), zero)
    words = (WORD(number), zero, zero, zero, zero, zero, zero, zero)
    return _compress(h, _padded(words), WORD(136), _ONES)


@compiled_releasing
def _blocks(root: Any, out: Any) -> None:
    """Fill a buffer from its root: its blocks are independent of each other."""
    message = _padded(root)
    for i in range(BUFFER_WORDS // SEED_WORDS):
        h = (_IV[0] ^ _BLOCK, _IV[1] ^ WORD(i) ^ _LENGTH, _IV[2] ^ _INNER, *_IV[3:])
        words = _compress(h, message, WORD(64), _ONES)
        place = i * SEED_WORDS
        out[place] = words[0]
        out[place + 1] = words[1]
        out[place + 2] = words[2]
        out[place + 3] = words[3]
        out[place + 4] = words[4]
        out[place + 5] = words[5]
        out[place + 6] = words[6]
        out[place + 7] = words[7]


@compiled_releasing
def fill(seed: Any, first: int | np.int64, out: Any) -> None:
    """Write buffers ``first``, ``first + 1`` ... of a seed.

    Args:
        seed: uint64 [8].
        first: Number of the first buffer.
        out: uint64 [n * 512], written.
    """
    for i in range(len(out) // BUFFER_WORDS):
        _blocks(_root(seed, first + i), out[i * BUFFER_WORDS : (i + 1) * BUFFER_WORDS])


def stream(seed: bytes, n_bytes: int) -> bytes:
    """Return the first bytes of the string of a seed of 64 bytes.

    Example:
        >>> len(stream(bytes(64), 5_000))
        5000
    """
    if len(seed) != 8 * SEED_WORDS:
        raise ValueError(f"a seed has 64 bytes, not {len(seed)}")
    words = np.empty(-(-n_bytes // (8 * BUFFER_WORDS)) * BUFFER_WORDS, np.uint64)
    fill(np.frombuffer(bytearray(seed), dtype="<u8"), np.int64(0), words)
    return words.astype("<u8").tobytes()[:n_bytes]
