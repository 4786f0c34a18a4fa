"""Products of 8 rows with 32 at once: the loop of the tiles, in registers, which LLVM does not find by itself.

Rows are packed 16 at a time, so that what 16 keys have at one place is one vector; a query's number at that place is
spread over another, and the two are multiplied and added to the 16 products. A place is a word of 32 bits: one float32,
or two int16, whose two products are added to an int32 (one instruction on x86: VPMADDWD, with VNNI VPDPWSSD).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray
from torch import Tensor

LANES = 16
QUERIES, KEYS = 8, 32  # 16 sums in registers: none waits for itself, and loads are fewer than products


def pack(codes: Tensor) -> NDArray[Any]:
    """(N, d) int16 or float32 codes as (words,) int32 or float32, with zeros up to whole words and 32 rows."""
    n, d = codes.shape
    a_word = 4 // codes.element_size()
    full = F.pad(codes, (0, -d % a_word, 0, -n % KEYS))
    panels = full.view(len(full) // LANES, LANES, -1, a_word).transpose(1, 2).contiguous().view(-1)
    words: NDArray[Any] = (panels if a_word == 1 else panels.view(torch.int32)).numpy()
    return words


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def products(out: Any, queries: Any, q: int, keys: Any, k: int, words: int) -> None:
    """All products of the packed rows q, q + 1, … and k, k + 1, …, of `words` words each.

    Args:
        out: (R, T) int32 or float32, R and T multiples of 32.
        queries, keys: what `pack` returns.
        q, k: multiples of 16.
    """
    flat, width = out.reshape(-1), out.shape[1]
    for t in range(0, width, KEYS):
        for r in range(0, out.shape[0], QUERIES):
            row = q + r
            first = (row // LANES) * LANES * words + row % LANES
            _dots(flat, r * width + t, width, queries, first, keys, (k + t) * words, words)


@intrinsic  # type: ignore[untyped-decorator]
def _dots(
    _: Any, out: Any, place: Any, stride: Any, queries: Any, q: Any, keys: Any, k: Any, words: Any
) -> Any:
    """out[place + r · stride + t] is the product of query r and key t, whose words begin at q + r and k."""
    number = types.intp
    signature = types.void(out, number, number, queries, number, keys, number, number)

    def code(context: Any, builder: Any, typed: Any, values: Any) -> Any:
        out, queries, keys = (
            context.make_array(typed.args[x])(context, builder, values[x]).data for x in (0, 3, 5)
        )
        place, stride, q, k, words = (values[x] for x in (1, 2, 4, 6, 7))
        panel = builder.mul(words, _number(words, LANES))
        vector = ir.VectorType(keys.type.pointee, LANES)
        sums = [
            cgutils.alloca_once_value(builder, ir.Constant(vector, None))
            for _ in range(QUERIES * KEYS // LANES)
        ]
        with cgutils.for_range_slice(
            builder, _number(words, 0), panel, _number(words, LANES), words.type
        ) as (c, _):
            at = builder.add(k, c)
            sides = [
                builder.load(_vector(builder, keys, x, vector), align=4) for x in (at, builder.add(at, panel))
            ]
            for r in range(QUERIES):
                word = builder.load(builder.gep(queries, [builder.add(builder.add(q, c), _number(q, r))]))
                for v, side in enumerate(sides):
                    total = sums[len(sides) * r + v]
                    builder.store(
                        _added(builder, builder.load(total), _spread(builder, word, vector), side), total
                    )
        for x, total in enumerate(sums):
            row, column = x * LANES // KEYS, x * LANES % KEYS
            to = builder.add(
                place, builder.add(builder.mul(stride, _number(stride, row)), _number(stride, column))
            )
            builder.store(builder.load(total), _vector(builder, out, to, vector), align=4)
        return context.get_dummy_value()

    return signature, code


def _added(builder: Any, total: Any, a: Any, b: Any) -> Any:
    """total + a · b of every lane; of int32 lanes, both halves' products."""
    if isinstance(total.type.element, ir.FloatType):
        return builder.fadd(total, builder.fmul(a, b, flags=["contract"]), flags=["contract"])
    halves, wide = ir.VectorType(ir.IntType(16), 2 * LANES), ir.VectorType(ir.IntType(32), 2 * LANES)
    a, b = (builder.sext(builder.bitcast(x, halves), wide) for x in (a, b))
    both = builder.mul(a, b)
    even, odd = (builder.shuffle_vector(both, both, _mask(range(half, 2 * LANES, 2))) for half in (0, 1))
    return builder.add(total, builder.add(even, odd))


def _spread(builder: Any, word: Any, vector: Any) -> Any:
    nothing = ir.Constant(vector, ir.Undefined)
    one = builder.insert_element(nothing, word, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(one, nothing, _mask([0] * LANES))


def _mask(lanes: Any) -> Any:
    lanes = list(lanes)
    return ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), lanes)


def _vector(builder: Any, array: Any, at: Any, vector: Any) -> Any:
    return builder.bitcast(builder.gep(array, [at]), vector.as_pointer())


def _number(like: Any, n: int) -> Any:
    return ir.Constant(like.type, n)
