"""Points of Curve25519 are told from those of its twist."""

from __future__ import annotations

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from kernels.curve25519.membership import PRIME, on_curve, on_curve_reference


def coordinates(*numbers):
    content = b"".join(number.to_bytes(32, "little") for number in numbers)
    return np.frombuffer(content, np.uint8).reshape(-1, 32)


def test_agrees_with_whole_numbers_at_the_edges():
    edges = [
        0,
        1,
        2,
        9,
        486662,
        PRIME - 486662,
        PRIME - 1,
        PRIME,
        PRIME + 1,
        2**255 - 1,
        2**256 - 1,
    ]
    given = coordinates(*edges)
    assert on_curve(given).tolist() == [on_curve_reference(one.tobytes()) for one in given]


@pytest.mark.parametrize("n", [0, 1, 63, 64, 65, 300])
def test_agrees_with_whole_numbers(n):
    given = np.random.default_rng(n).integers(0, 256, (n, 32), dtype=np.uint8)
    found = on_curve(given)
    assert found.tolist() == [on_curve_reference(one.tobytes()) for one in given]
    assert n < 60 or 0.3 < found.mean() < 0.7


def test_public_keys_lie_on_the_curve():
    keys = [X25519PrivateKey.generate().public_key() for _ in range(20)]
    content = b"".join(key.public_bytes(Encoding.Raw, PublicFormat.Raw) for key in keys)
    assert on_curve(np.frombuffer(content, np.uint8).reshape(-1, 32)).all()
