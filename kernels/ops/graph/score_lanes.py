"""Vector instructions of `attention_v2`: scores of pairs of nodes, and their gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]  # ships no type information
from numba import types
from numba.extending import intrinsic

from kernels.ops.graph.lanes import Lanes


def _pair(v: Lanes) -> tuple[Any, Any, Any]:
    """Return leaky ReLUs of ``x[a:] + y[b:]``, their slopes and the attention vector.

    The arguments 0 to 6 are x, a, y, b, att, s and slope.
    """
    z = v.add(v.load(v.place(0, 1)), v.load(v.place(2, 3)))
    below = v.builder.fcmp_ordered("<", z, ir.Constant(z.type, None))
    slopes = v.builder.select(below, v.spread(6), ir.Constant(z.type, [1.0] * z.type.count))
    return v.multiply(z, slopes), slopes, v.load(v.place(4, 5))


@intrinsic  # type: ignore[untyped-decorator]  # numba has no type information
def pair_score(
    typing_context: Any, x: Any, a: Any, y: Any, b: Any, att: Any, s: Any, slope: Any, lanes: Any
) -> Any:
    """Return ``att[s:] . leaky_relu(x[a:] + y[b:])`` over the lanes."""
    del typing_context, a, b, s, slope

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        v = Lanes(context, builder, signature, arguments)
        leaky, _, weight = _pair(v)
        return v.total(v.multiply(weight, leaky))

    i = types.intp
    return x.dtype(x, i, y, i, att, i, x.dtype, lanes), generate


def _adding(gradient: Callable[[Lanes], Any]) -> Callable[..., Any]:
    """Return the generator of code that adds d times a gradient to ``out[o:]``.

    The arguments 7 to 9 are d, out and o.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        v = Lanes(context, builder, signature, arguments)
        found, place = gradient(v), v.place(8, 9)
        v.store(v.add(v.load(place), v.multiply(v.spread(7), found)), place)
        return context.get_dummy_value()

    return generate


@intrinsic  # type: ignore[untyped-decorator]
def return_score(
    typing_context: Any,
    x: Any,
    a: Any,
    y: Any,
    b: Any,
    att: Any,
    s: Any,
    slope: Any,
    d: Any,
    out: Any,
    o: Any,
    lanes: Any,
) -> Any:
    """Add the gradient of d times `pair_score` by ``x[a:]`` (or ``y[b:]``) to ``out[o:]``."""
    del typing_context, a, b, s, slope, d, o

    def slope_of_score(v: Lanes) -> Any:
        _, slopes, weight = _pair(v)
        return v.multiply(weight, slopes)

    i = types.intp
    kind = types.void(x, i, y, i, att, i, x.dtype, x.dtype, out, i, lanes)
    return kind, _adding(slope_of_score)


@intrinsic  # type: ignore[untyped-decorator]
def return_vector(
    typing_context: Any,
    x: Any,
    a: Any,
    y: Any,
    b: Any,
    att: Any,
    s: Any,
    slope: Any,
    d: Any,
    out: Any,
    o: Any,
    lanes: Any,
) -> Any:
    """Add the gradient of d times `pair_score` by ``att[s:]`` to ``out[o:]``."""
    del typing_context, a, b, s, slope, d, o

    i = types.intp
    kind = types.void(x, i, y, i, att, i, x.dtype, x.dtype, out, i, lanes)
    return kind, _adding(lambda v: _pair(v)[0])
