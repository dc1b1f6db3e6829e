"""Vector instructions of `messages`: one message, pooled or taken back, over some columns."""

from __future__ import annotations

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]  # ships no type information
from numba import types
from numba.extending import intrinsic

from kernels.ops.graph.lanes import Lanes


def _message(v: Lanes, fields: int) -> Any:
    """Return ``x[a:] + sum_f attributes[b + f] * along[s + f * width:]`` over the lanes.

    The arguments 0 to 6 are x, a, attributes, b, along, s and width.
    """
    b, s, width = (v.arguments[i] for i in (3, 5, 6))
    total = v.load(v.place(0, 1))
    for f in range(fields):
        factor = v.scalar(2, v.builder.add(b, b.type(f)))
        column = v.at(4, v.builder.add(s, v.builder.mul(width, width.type(f))))
        total = v.add(total, v.multiply(factor, v.load(column)))
    return total


@intrinsic  # type: ignore[untyped-decorator]  # numba has no type information
def pool_message(
    typing_context: Any,
    x: Any,
    a: Any,
    attributes: Any,
    b: Any,
    along: Any,
    s: Any,
    width: Any,
    out: Any,
    mean: Any,
    most: Any,
    winner: Any,
    w: Any,
    e: Any,
    fields: Any,
    lanes: Any,
) -> Any:
    """Rectify a message, add it to ``out[mean:]``, and let it contend for ``out[most:]``.

    Where it is larger, ``winner[w:]`` becomes ``e``. NaN passes, as through torch's relu.
    """
    del typing_context, a, b, s, width, mean, most, w, e

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        v = Lanes(context, builder, signature, arguments)
        value = _message(v, len(fields))
        zero = ir.Constant(value.type, None)
        value = builder.select(builder.fcmp_ordered("<=", value, zero), zero, value)
        place = v.place(7, 8)
        v.store(v.add(v.load(place), value), place)
        place, first = v.place(7, 9), v.place(10, 11)
        best = v.load(place)
        better = builder.fcmp_ordered(">", value, best)
        v.store(builder.select(better, value, best), place)
        v.store(builder.select(better, v.spread(12), v.load(first)), first)
        return context.get_dummy_value()

    i = types.intp
    given = (x, i, attributes, i, along, i, i, out, i, i, winner, i, types.int32, fields, lanes)
    return types.void(*given), generate


@intrinsic  # type: ignore[untyped-decorator]
def return_message(
    typing_context: Any,
    x: Any,
    a: Any,
    attributes: Any,
    b: Any,
    along: Any,
    s: Any,
    width: Any,
    gradient: Any,
    mean: Any,
    most: Any,
    winner: Any,
    w: Any,
    e: Any,
    dx: Any,
    dalong: Any,
    fields: Any,
    lanes: Any,
) -> Any:
    """Add a message's gradient to ``dx[a:]`` and, by its attributes, to ``dalong``.

    It is ``gradient[mean:]``, and ``gradient[most:]`` where ``winner[w:]`` is ``e``; 0 where the
    message was rectified.
    """
    del typing_context, a, b, s, width, mean, most, w, e

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        v = Lanes(context, builder, signature, arguments)
        value = _message(v, len(fields))
        zero = ir.Constant(value.type, None)
        won = builder.icmp_signed("==", v.load(v.place(10, 11)), v.spread(12))
        back = v.add(v.load(v.place(7, 8)), builder.select(won, v.load(v.place(7, 9)), zero))
        back = builder.select(builder.fcmp_ordered(">", value, zero), back, zero)
        place = v.place(13, 1)
        v.store(v.add(v.load(place), back), place)
        b, s, width = (v.arguments[i] for i in (3, 5, 6))
        for f in range(len(fields)):
            place = v.at(14, builder.add(s, builder.mul(width, width.type(f))))
            part = v.multiply(v.scalar(2, builder.add(b, b.type(f))), back)
            v.store(v.add(v.load(place), part), place)
        return context.get_dummy_value()

    i = types.intp
    given = (x, i, attributes, i, along, i, i, gradient, i, i, winner, i, types.int32)
    return types.void(*given, dx, dalong, fields, lanes), generate
