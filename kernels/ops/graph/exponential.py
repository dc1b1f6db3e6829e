"""exp() that compilers can compute many at a time: a call to the C library stops vector code."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]  # ships no type information
from numba import types
from numba.extending import intrinsic, overload


@intrinsic  # type: ignore[untyped-decorator]  # numba has no type information
def _from_bits(typing_context: Any, bits: Any) -> Any:
    """Return the float32 whose bits an int32 holds."""
    del typing_context, bits

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        del context, signature
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), generate


def exp_below_zero(value: Any) -> Any:
    """Return exp(value) for ``value <= 0``, in compiled code.

    float32: range reduction by ln 2 and the polynomial of Cephes' ``expf`` (Moshier 1989);
    relative error at most 2e-7 down to -87, below which the result is that of -87 (1.6e-38).
    float64: the C library's.
    """
    return math.exp(value)


@overload(exp_below_zero, inline="always")  # type: ignore[untyped-decorator]
def _exp_below_zero(value: Any) -> Callable[[Any], Any]:
    return _single if value == types.float32 else _double


def _double(value: Any) -> Any:
    return math.exp(value)


def _single(value: Any) -> Any:
    v = max(value, np.float32(-87.0))
    n = np.int32(v * np.float32(1.44269504) - np.float32(0.5))
    r = v - np.float32(n) * np.float32(0.693359375)
    r = r + np.float32(n) * np.float32(2.12194440e-4)
    p = np.float32(1.9875691500e-4)
    p = p * r + np.float32(1.3981999507e-3)
    p = p * r + np.float32(8.3334519073e-3)
    p = p * r + np.float32(4.1665795894e-2)
    p = p * r + np.float32(1.6666665459e-1)
    p = p * r + np.float32(5.0000001201e-1)
    p = p * r * r + r + np.float32(1.0)
    return p * _from_bits(np.int32((n + np.int32(127)) << np.int32(23)))
