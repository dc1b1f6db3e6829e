"""The one way the kernels compile functions: cached on disk, annotations kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from llvmlite import ir  # type: ignore[import-untyped]  # ships no type information
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

F = TypeVar("F", bound=Callable[..., object])


def compiled(function: F) -> F:
    """Compile with numba on first call and cache the machine code beside the source file."""
    fast: F = njit(cache=True)(function)
    return fast


def compiled_reassociating(function: F) -> F:
    """Like `compiled`, and float sums may be taken in any order (needed for vector code)."""
    fast: F = njit(cache=True, fastmath={"reassoc", "nsz"})(function)
    return fast


def compiled_beside(function: F) -> F:
    """Like `compiled`, and other threads may run beside: the interpreter's lock is released."""
    fast: F = njit(cache=True, nogil=True)(function)
    return fast


def compiled_releasing(function: F) -> F:
    """Like `compiled_reassociating`, with fused multiply-adds, and other threads may run beside.

    The interpreter's lock is released, so Python threads share the work without a pool of
    numba's own (which would wait in spins beside torch's).
    """
    fast: F = njit(cache=True, nogil=True, fastmath={"reassoc", "nsz", "contract"})(function)
    return fast


def _ask_for(builder: Any, place: Any, *, write: bool) -> None:
    """Add the instruction that asks for the cache line at a pointer, to write or to read it."""
    byte = builder.bitcast(place, ir.IntType(8).as_pointer())
    number = ir.IntType(32)
    signature = ir.FunctionType(ir.VoidType(), [byte.type, number, number, number])
    instruction = cgutils.get_or_insert_function(builder.module, signature, "llvm.prefetch.p0")
    keep, data = number(3), number(1)
    builder.call(instruction, [byte, number(int(write)), keep, data])


@intrinsic  # type: ignore[untyped-decorator]  # numba has no type information
def prefetch(typing_context: Any, array: Any, i: Any, j: Any, k: Any) -> Any:
    """Ask for the cache line of ``array[i, j, k]``, soon to be written; no effect on values."""
    del typing_context, i, j, k

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = signature.args[0]
        made = context.make_array(kind)(context, builder, arguments[0])
        shape = cgutils.unpack_tuple(builder, made.shape, kind.ndim)
        strides = cgutils.unpack_tuple(builder, made.strides, kind.ndim)
        place = cgutils.get_item_pointer2(
            context, builder, made.data, shape, strides, kind.layout, arguments[1:]
        )
        _ask_for(builder, place, write=True)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, types.intp), generate


@intrinsic  # type: ignore[untyped-decorator]  # numba has no type information
def prefetch_line(typing_context: Any, array: Any, i: Any) -> Any:
    """Ask for the cache line of ``array[i]``, soon to be read; no effect on values."""
    del typing_context, i

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = signature.args[0]
        made = context.make_array(kind)(context, builder, arguments[0])
        place = builder.gep(made.data, [arguments[1]])
        _ask_for(builder, place, write=False)
        return context.get_dummy_value()

    return types.void(array, types.intp), generate
