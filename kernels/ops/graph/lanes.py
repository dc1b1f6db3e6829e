"""Vector instructions over C neighbouring numbers, C known when numba compiles.

LLVM unrolls loops as short as a head's channels into single numbers before it would make vector
code of them; written as vectors they stay vectors. ``lanes`` is any tuple of length C. Arrays are
one-dimensional and contiguous; offsets are not checked.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]  # ships no type information
from numba import types
from numba.extending import intrinsic

FAST = ("reassoc", "nsz", "contract")


class Lanes:
    """Loads, stores and arithmetic on vectors of one length."""

    def __init__(self, context: Any, builder: Any, signature: Any, arguments: Any) -> None:
        self._context, self.builder = context, builder
        self._signature, self.arguments = signature, arguments
        element = context.get_value_type(signature.args[0].dtype)
        self._kind = ir.VectorType(element, len(signature.args[-1]))

    def place(self, array: int, offset: int) -> Any:
        """Return where ``array[offset:]`` lies; both are numbers of arguments."""
        return self.at(array, self.arguments[offset])

    def at(self, array: int, offset: Any) -> Any:
        """Return the same for an offset that is a value."""
        return self.builder.bitcast(self._start(array, offset), self.vector(array).as_pointer())

    def scalar(self, array: int, offset: Any) -> Any:
        """Return one number of an array, repeated."""
        return self._repeat(self.builder.load(self._start(array, offset)))

    def vector(self, array: int) -> Any:
        """Return the type of C neighbours in an array."""
        element = self._context.get_value_type(self._signature.args[array].dtype)
        return ir.VectorType(element, self._kind.count)

    def _start(self, array: int, offset: Any) -> Any:
        kind = self._signature.args[array]
        made = self._context.make_array(kind)(self._context, self.builder, self.arguments[array])
        return self.builder.gep(made.data, [offset])

    def load(self, place: Any) -> Any:
        """Return the vector at a place."""
        return self.builder.load(place, align=self._bytes)

    def store(self, vector: Any, place: Any) -> None:
        """Write a vector to a place."""
        self.builder.store(vector, place, align=self._bytes)

    def spread(self, scalar: int) -> Any:
        """Return a vector of one argument, repeated."""
        return self._repeat(self.arguments[scalar])

    def _repeat(self, value: Any) -> Any:
        kind = ir.VectorType(value.type, self._kind.count)
        empty = ir.Constant(kind, ir.Undefined)
        first = self.builder.insert_element(empty, value, ir.IntType(32)(0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), kind.count), None)
        return self.builder.shuffle_vector(first, empty, zeros)

    def add(self, a: Any, b: Any) -> Any:
        """Return the sum."""
        return self.builder.fadd(a, b, flags=FAST)

    def multiply(self, a: Any, b: Any) -> Any:
        """Return the products."""
        return self.builder.fmul(a, b, flags=FAST)

    def total(self, vector: Any) -> Any:
        """Return the sum of the lanes."""
        element = self._kind.element
        name = f"llvm.vector.reduce.fadd.v{self._kind.count}f{self._bytes * 8}"
        kind = ir.FunctionType(element, [element, self._kind])
        reduce = self.builder.module.globals.get(name) or ir.Function(
            self.builder.module, kind, name
        )
        return self.builder.call(reduce, [ir.Constant(element, 0.0), vector], fastmath=FAST)

    @property
    def _bytes(self) -> int:
        return 4 if isinstance(self._kind.element, ir.FloatType) else 8


@intrinsic  # type: ignore[untyped-decorator]  # numba has no type information
def add_scaled(
    typing_context: Any, out: Any, o: Any, x: Any, a: Any, factor: Any, lanes: Any
) -> Any:
    """Add ``factor * x[a:a + C]`` to ``out[o:o + C]``."""
    del typing_context, o, a, factor

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        v = Lanes(context, builder, signature, arguments)
        place = v.place(0, 1)
        v.store(v.add(v.load(place), v.multiply(v.spread(4), v.load(v.place(2, 3)))), place)
        return context.get_dummy_value()

    where = types.intp
    return types.void(out, where, x, where, x.dtype, lanes), generate


@intrinsic  # type: ignore[untyped-decorator]
def add_four_scaled(
    typing_context: Any,
    out: Any,
    o: Any,
    x: Any,
    a: Any,
    b: Any,
    c: Any,
    d: Any,
    fa: Any,
    fb: Any,
    fc: Any,
    fd: Any,
    lanes: Any,
) -> Any:
    """Add ``fa * x[a:a + C]`` and so on for b, c and d to ``out[o:o + C]``."""
    del typing_context, o, a, b, c, d, fa, fb, fc, fd

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        v = Lanes(context, builder, signature, arguments)
        place = v.place(0, 1)
        parts = [v.multiply(v.spread(7 + i), v.load(v.place(2, 3 + i))) for i in range(4)]
        pairs = v.add(v.add(parts[0], parts[1]), v.add(parts[2], parts[3]))
        v.store(v.add(v.load(place), pairs), place)
        return context.get_dummy_value()

    where, real = types.intp, x.dtype
    return types.void(out, where, x, *(where,) * 4, *(real,) * 4, lanes), generate


@intrinsic  # type: ignore[untyped-decorator]
def product_adding(
    typing_context: Any, out: Any, o: Any, g: Any, a: Any, x: Any, b: Any, factor: Any, lanes: Any
) -> Any:
    """Add ``factor * g[a:a + C]`` to ``out[o:o + C]``; return ``g[a:a + C] . x[b:b + C]``."""
    del typing_context, o, a, b, factor

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        v = Lanes(context, builder, signature, arguments)
        place, read = v.place(0, 1), v.load(v.place(2, 3))
        v.store(v.add(v.load(place), v.multiply(v.spread(6), read)), place)
        return v.total(v.multiply(read, v.load(v.place(4, 5))))

    where = types.intp
    return g.dtype(out, where, g, where, x, where, g.dtype, lanes), generate


@intrinsic  # type: ignore[untyped-decorator]
def leaky_sum(
    typing_context: Any,
    out: Any,
    o: Any,
    x: Any,
    a: Any,
    y: Any,
    b: Any,
    slope: Any,
    most: Any,
    m: Any,
    lanes: Any,
) -> Any:
    """Set ``out[o:o + C]`` to leaky ReLUs of ``x[a:a + C] + y[b:b + C]``, raise ``most``."""
    del typing_context, o, a, b, slope, m

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        v = Lanes(context, builder, signature, arguments)
        z = v.add(v.load(v.place(2, 3)), v.load(v.place(4, 5)))
        zero = ir.Constant(z.type, None)
        below = builder.fcmp_ordered("<", z, zero)
        z = builder.select(below, v.multiply(z, v.spread(6)), z)
        v.store(z, v.place(0, 1))
        place = v.place(7, 8)
        before = v.load(place)
        # Not greater, or unordered: NaN stays.
        v.store(builder.select(builder.fcmp_ordered("<=", z, before), before, z), place)
        return context.get_dummy_value()

    where = types.intp
    return types.void(out, where, x, where, y, where, x.dtype, most, where, lanes), generate
