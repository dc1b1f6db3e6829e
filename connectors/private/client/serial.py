"""Microsoft SEAL's serial form, as far as ciphertexts need it.

A ciphertext is written as a header of 16 bytes, then members, compressed or not: parameters id,
form, sizes, scale, the words as an array with a header of its own and, where the second half is
a seed, the generator's kind and seed (``seal/serialization.h``, ``seal/ciphertext.cpp``, 4.3).
"""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kernels.ring.ring import Ring

Words = NDArray[np.uint64]

SEED_BYTES = 64

_HEADER = struct.Struct("<HBBBBHQ")
"""Magic number, size of the header, version (two numbers), compression, zero, size of all."""
_MAGIC, _HEADER_BYTES, _VERSION = 0xA15E, 16, (4, 3)
_PLAIN, _ZLIB, _ZSTD = 0, 1, 2

_MEMBERS = struct.Struct("<32sBQQQdQ")
"""Parameters id, whether values at the roots, parts, degree, primes, scale, correction factor."""
_COUNT = struct.Struct("<Q")
_BLAKE2XB = 1


class SerialError(ValueError):
    """Bytes are not what this version of SEAL writes."""


class Seeded(NamedTuple):
    """A fresh symmetric ciphertext: first half and seed of the second.

    Attributes:
        parms_id: SEAL's name of the parameters.
        first: uint64 [K, N].
        seed: 64 bytes.
    """

    parms_id: bytes
    first: Words
    seed: bytes


def read_seeded(saved: bytes, ring: Ring) -> Seeded:
    """Take a symmetric ciphertext apart that SEAL has just saved.

    Raises:
        SerialError: When it is in no form that is known here.
    """
    body = _opened(saved)
    words = len(ring.primes) * ring.degree
    try:
        parms_id, at_roots, parts, degree, primes, _, _ = _MEMBERS.unpack_from(body)
        place = _MEMBERS.size + _HEADER_BYTES
        (count,) = _COUNT.unpack_from(body, place)
        place += _COUNT.size
        first = np.frombuffer(body, "<u8", words, place)
        kind = body[place + 8 * words + _HEADER_BYTES]
        seed = body[place + 8 * words + _HEADER_BYTES + 1 :]
    except (struct.error, ValueError, IndexError) as error:
        raise SerialError(f"SEAL's ciphertext has another form ({error})") from error
    expected = (1, 2, ring.degree, len(ring.primes), words, _BLAKE2XB, SEED_BYTES)
    if (at_roots, parts, degree, primes, count, kind, len(seed)) != expected:
        raise SerialError("SEAL's ciphertext is not fresh, symmetric and of these parameters")
    return Seeded(parms_id, first.reshape(len(ring.primes), ring.degree), bytes(seed))


def write_ciphertext(parts: Words, parms_id: bytes, scale: float) -> bytes:
    """Return a ciphertext of two or more parts as SEAL loads it, not compressed.

    Args:
        parts: uint64 [P, K, N], values at the roots.
        parms_id: SEAL's name of the parameters.
        scale: What decoding divides by.
    """
    n_parts, n_primes, degree = parts.shape
    words = np.ascontiguousarray(parts, dtype="<u8").tobytes()
    array = _headed(_COUNT.pack(parts.size) + words)
    return _headed(_MEMBERS.pack(parms_id, 1, n_parts, degree, n_primes, scale, 1) + array)


def _headed(body: bytes) -> bytes:
    size = _HEADER_BYTES + len(body)
    return _HEADER.pack(_MAGIC, _HEADER_BYTES, *_VERSION, _PLAIN, 0, size) + body


def _opened(saved: bytes) -> bytes:
    """Return what lies behind the header."""
    if len(saved) < _HEADER_BYTES:
        raise SerialError("SEAL wrote less than a header")
    magic, _, major, minor, compression, _, size = _HEADER.unpack_from(saved)
    if (magic, (major, minor), size) != (_MAGIC, _VERSION, len(saved)):
        raise SerialError(
            f"SEAL {major}.{minor} writes another form than {_VERSION[0]}.{_VERSION[1]};"
            " install tenseal==0.3.18"
        )
    body = saved[_HEADER_BYTES:]
    if compression == _PLAIN:
        return body
    if compression == _ZLIB:
        return zlib.decompress(body)
    if compression == _ZSTD:
        import zstandard

        return zstandard.ZstdDecompressor().decompressobj().decompress(body)
    raise SerialError(f"SEAL compresses in a way that is unknown here ({compression})")
