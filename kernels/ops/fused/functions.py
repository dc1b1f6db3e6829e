"""Element-wise functions and their derivatives as compiled code that runs many lanes at a time.

Each returns the value and its derivatives by both arguments. In float32, exp and tanh are
polynomials, because a call to the C library stops vector code.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numba
import numpy as np

from kernels.ops.graph.exponential import exp_below_zero

inlined = numba.njit(inline="always", error_model="numpy")
GELU_SCALE, GELU_CUBE = math.sqrt(2 / math.pi), 0.044715


@cache
def functions_of(real: Any) -> dict[str, Any]:
    """Return every step's function ``(value, other) -> (result, by value, by other)``.

    Args:
        real: ``numpy.float32`` or ``numpy.float64``: constants of another format would widen all
            that they meet.
    """
    return {**_unary(real), **_binary(real)}


@cache
def _exponential(real: Any) -> Any:
    one, zero, most, infinite = real(1), real(0), real(87), real(math.inf)

    @inlined  # type: ignore[untyped-decorator]  # numba has no type information
    def single(v: Any) -> Any:
        e = exp_below_zero(-min(abs(v), most))
        r = e if v <= zero else one / e
        # A little early (from 88.7 on), but never hidden.
        r = infinite if v > most else r
        return r if v == v else v  # noqa: PLR0124 - NaN stays NaN

    @inlined  # type: ignore[untyped-decorator]
    def double(v: Any) -> Any:
        return math.exp(v)

    return single if real is np.float32 else double


@cache
def _tangent(real: Any) -> Any:
    """Return tanh; in float32 as a quotient of polynomials (Eigen's), within 3e-7."""
    most, least = real(7.905311), real(-7.905311)
    a1, a3, a5, a7 = map(real, (4.89352455891786e-03, 6.37261928875436e-04,
                                1.48572235717979e-05, 5.12229709037114e-08))  # fmt: skip
    a9, a11, a13 = map(real, (-8.60467152213735e-11, 2.00018790482477e-13,
                              -2.76076847742355e-16))  # fmt: skip
    b0, b2, b4, b6 = map(real, (4.89352518554385e-03, 2.26843463243900e-03,
                                1.18534705686654e-04, 1.19825839466702e-06))  # fmt: skip

    @inlined  # type: ignore[untyped-decorator]
    def single(v: Any) -> Any:
        # Comparisons that NaN fails, so that it stays what it is.
        w = most if v > most else v  # noqa: FURB136
        w = least if w < least else w  # noqa: FURB136
        s = w * w
        above = w * (a1 + s * (a3 + s * (a5 + s * (a7 + s * (a9 + s * (a11 + s * a13))))))
        return above / (b0 + s * (b2 + s * (b4 + s * b6)))

    @inlined  # type: ignore[untyped-decorator]
    def double(v: Any) -> Any:
        return math.tanh(v)

    return single if real is np.float32 else double


@cache
def _logistic(real: Any) -> Any:
    one, zero = real(1), real(0)

    @inlined  # type: ignore[untyped-decorator]
    def logistic(v: Any) -> Any:
        e = exp_below_zero(-abs(v))
        r = one / (one + e)
        r = r if v >= zero else e * r
        return r if v == v else v  # noqa: PLR0124 - NaN stays NaN

    return logistic


def _unary(real: Any) -> dict[str, Callable[..., Any]]:
    zero, half, one, two = real(0), real(0.5), real(1), real(2)
    scale, cube, three = real(GELU_SCALE), real(GELU_CUBE), real(3)
    exponential, tangent, logistic = _exponential(real), _tangent(real), _logistic(real)

    def neg(v: Any, _: Any) -> Any:
        return -v, -one, zero

    def absolute(v: Any, _: Any) -> Any:
        sign = one if v > zero else (-one if v < zero else zero)
        return abs(v), sign, zero

    def square(v: Any, _: Any) -> Any:
        return v * v, two * v, zero

    def relu(v: Any, _: Any) -> Any:
        kept = zero if v <= zero else v  # noqa: FURB136 - NaN stays NaN
        return kept, (one if v > zero else zero), zero

    def exp(v: Any, _: Any) -> Any:
        e = exponential(v)
        return e, e, zero

    def sigmoid(v: Any, _: Any) -> Any:
        s = logistic(v)
        return s, s * (one - s), zero

    def tanh(v: Any, _: Any) -> Any:
        t = tangent(v)
        return t, one - t * t, zero

    def silu(v: Any, _: Any) -> Any:
        s = logistic(v)
        return v * s, s * (one + v * (one - s)), zero

    def gelu(v: Any, _: Any) -> Any:
        t = tangent(scale * (v + cube * v * v * v))
        inner = scale * (one + three * cube * v * v)
        return half * v * (one + t), half * (one + t) + half * v * (one - t * t) * inner, zero

    made = {
        "neg": neg, "abs": absolute, "square": square, "relu": relu, "exp": exp,
        "sigmoid": sigmoid, "tanh": tanh, "silu": silu, "gelu": gelu,
    }  # fmt: skip
    return {name: inlined(function) for name, function in made.items()}


def _binary(real: Any) -> dict[str, Callable[..., Any]]:
    zero, half, one = real(0), real(0.5), real(1)

    def add(v: Any, a: Any) -> Any:
        return v + a, one, one

    def sub(v: Any, a: Any) -> Any:
        return v - a, one, -one

    def mul(v: Any, a: Any) -> Any:
        return v * a, a, v

    def div(v: Any, a: Any) -> Any:
        r = one / a
        return v / a, r, -v * r * r

    def maximum(v: Any, a: Any) -> Any:
        # Of equals each gets half, as in torch; NaN stays NaN.
        share = half if v == a else (one if v > a else zero)
        return (a if v < a or a != a else v), share, one - share  # noqa: PLR0124 - NaN

    def minimum(v: Any, a: Any) -> Any:
        share = half if v == a else (one if v < a else zero)
        return (a if v > a or a != a else v), share, one - share  # noqa: PLR0124 - NaN

    made = {
        "add": add, "sub": sub, "mul": mul, "div": div, "maximum": maximum, "minimum": minimum,
    }  # fmt: skip
    return {name: inlined(function) for name, function in made.items()}
