"""Rows of a memory bank as the CPU reads them: any storage type, gathered at random, a few rows ahead of use.

NumPy and Numba compute in neither float16 nor bfloat16, so banks of these are passed as their bits, as uint16 and
int16, and `widen` makes each element a float32. A row is used right after its turn in the list of ids is known, so
`fetch` asks memory for it some rows earlier: at random rows of a large bank that
saves a sixth of the time with float32 (100 MB of them) and more with the shorter types.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import torch
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np import arrayobj
from numpy.typing import NDArray
from torch import Tensor

Array: TypeAlias = NDArray[Any]

AHEAD = 8  # rows between asking for one and using it: 4 to 16 are equally fast, 32 is slower
LINE = 64  # bytes that one request brings

# sums in any order, so that they fill vector registers: the order is one for all thread counts
ANY_ORDER = {"reassoc", "contract", "nsz"}

_FLOAT, _INT = ir.FloatType(), ir.IntType(32)


def bits(bank: Tensor) -> Array:
    """The CPU tensor's memory as NumPy: float32 and float64 as they are, float16 as uint16, bfloat16 as int16."""
    if bank.dtype == torch.float16:
        return bank.view(torch.int16).numpy().view(np.uint16)
    return (bank.view(torch.int16) if bank.dtype == torch.bfloat16 else bank).numpy()


@intrinsic  # type: ignore[untyped-decorator]
def widen(typing: Any, x: Any) -> Any:
    """One element of `bits` as a float: float16 and bfloat16 exactly, as float32."""
    if isinstance(x, types.Float):
        return x(x), lambda context, builder, signature, args: args[0]
    return types.float32(x), _half if x == types.uint16 else _bfloat16


def _half(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    """Exponent and fraction moved into a float32's place, then its bias put right by a factor of 2^112."""
    word = builder.zext(args[0], _INT)
    moved = builder.bitcast(builder.shl(builder.and_(word, _INT(0x7FFF)), _INT(13)), _FLOAT)
    size = builder.bitcast(builder.fmul(moved, _FLOAT(2.0**112)), _INT)
    sign = builder.shl(builder.and_(word, _INT(0x8000)), _INT(16))
    return builder.bitcast(builder.or_(size, sign), _FLOAT)


def _bfloat16(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    """The upper half of a float32."""
    return builder.bitcast(builder.shl(builder.zext(args[0], _INT), _INT(16)), _FLOAT)


@intrinsic  # type: ignore[untyped-decorator]
def _request(typing: Any, array: Any, row: Any, column: Any) -> Any:
    """Have the processor bring the line that holds array[row, column]."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        view = arrayobj.make_array(array)(context, builder, args[0])
        pointer = cgutils.get_item_pointer(context, builder, array, view, list(args[1:]))
        pointer = builder.bitcast(pointer, cgutils.voidptr_t)
        flags = [_INT(0), _INT(3), _INT(1)]  # to be read, into every cache, data
        kind = ir.FunctionType(ir.VoidType(), [pointer.type, _INT, _INT, _INT])
        prefetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(prefetch, [pointer, *flags])
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp), generate


@njit(nogil=True)  # type: ignore[untyped-decorator]
def fetch(bank: Array, row: int) -> None:
    """Ask memory for one row of the bank."""
    for column in range(0, bank.shape[1], LINE // bank.itemsize):
        _request(bank, row, column)


# Rows are named by their numbers, not sliced: a slice counts references, which costs as much as its arithmetic.


@njit(nogil=True, fastmath=ANY_ORDER)  # type: ignore[untyped-decorator]
def dot(query: Array, bank: Array, row: int) -> Any:
    """Inner product of a query (d,) with a bank's row, in the query's precision."""
    total = query.dtype.type(0)
    for i in range(query.shape[0]):
        total += query[i] * widen(bank[row, i])
    return total


@njit(nogil=True)  # type: ignore[untyped-decorator]
def dots(query: Array, bank: Array, ids: Array, first: int, last: int, out: Array) -> None:
    """out[k] = query . bank[ids[k]] for k in [first, last)."""
    for k in range(first, last):
        fetch(bank, ids[min(k + AHEAD, ids.shape[0] - 1)])
        out[k] = dot(query, bank, ids[k])


@njit(nogil=True, fastmath={"contract"})  # type: ignore[untyped-decorator]
def add(total: Array, weights: Array, bank: Array, ids: Array, first: int, last: int) -> None:
    """total (d,) += weights[k] * bank[ids[k]] for k in [first, last), in turn; four rows a pass."""
    fours = first + (last - first) // 4 * 4
    for k in range(first, fours, 4):
        a, b, c, d = ids[k], ids[k + 1], ids[k + 2], ids[k + 3]
        p, q, r, s = weights[k], weights[k + 1], weights[k + 2], weights[k + 3]
        for i in range(total.shape[0]):
            sum = total[i] + p * widen(bank[a, i]) + q * widen(bank[b, i])
            total[i] = sum + r * widen(bank[c, i]) + s * widen(bank[d, i])
    for k in range(fours, last):
        for i in range(total.shape[0]):
            total[i] += weights[k] * widen(bank[ids[k], i])
