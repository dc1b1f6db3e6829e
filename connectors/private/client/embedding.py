"""Between coefficients of a polynomial and the slots that CKKS encoders take.

A slot holds the value of the polynomial at one complex root of X^N + 1. Linear scoring needs no
products of ciphertexts, so rows can be the coefficients themselves: N of them instead of N / 2,
with noise of a few steps each instead of the sum of N of them in every slot.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Slots = NDArray[np.complex128]
Reals = NDArray[np.float64]


@lru_cache(maxsize=8)
def _places(degree: int) -> NDArray[np.int64]:
    """Return, for each slot i, the k for which it is the root exp(i pi (2k + 1) / N).

    Slot i is the root with the odd exponent 3**i (Cheon et al. 2017, as SEAL orders them).
    """
    exponents, current = np.empty(degree // 2, np.int64), 1
    for i in range(degree // 2):
        exponents[i] = current
        current = current * 3 % (2 * degree)
    return (exponents - 1) // 2


@lru_cache(maxsize=8)
def _twist(degree: int) -> Slots:
    twist: Slots = np.exp(1j * np.pi * np.arange(degree) / degree)
    return twist


def slots_of(coefficients: Reals) -> Slots:
    """Return the slots of a polynomial.

    Args:
        coefficients: float64 [N], whole numbers below 2**40 so that encoding rounds back to them.
    """
    degree = len(coefficients)
    values = np.fft.ifft(coefficients * _twist(degree)) * degree
    return values[_places(degree)]


def coefficients_of(slots: Slots) -> Reals:
    """Return the coefficients of the real polynomial with these slots.

    Args:
        slots: complex128 [N / 2].
    """
    degree = 2 * len(slots)
    places = _places(degree)
    values = np.empty(degree, np.complex128)
    values[places] = slots
    values[degree - 1 - places] = slots.conj()
    found: Reals = (np.fft.fft(values) / degree * _twist(degree).conj()).real
    return found
