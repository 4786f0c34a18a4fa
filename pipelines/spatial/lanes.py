"""Eight rows of a picture at once: the one loop of the resize that LLVM does not vectorise by itself.

Its outputs lie at uneven distances in the input, so a vector cannot run along a row; it can run across eight rows that
are woven together, and eight such vectors, transposed in registers, are eight pixels of each row.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 8
VECTOR = ir.VectorType(ir.FloatType(), LANES)
NOTHING = ir.Constant(VECTOR, ir.Undefined)
FAST = ("reassoc", "contract")  # a sum of products becomes fused multiplications and additions


@njit(fastmath=True)  # type: ignore[untyped-decorator]
def weave(woven: Any, a: Any, b: Any, c: Any, d: Any, e: Any, f: Any, g: Any, h: Any) -> None:
    """Eight lines (n,), pixel by pixel: woven (8 n,). Written out, or LLVM would not vectorise it."""
    for j in range(len(a)):
        woven[8 * j], woven[8 * j + 1], woven[8 * j + 2], woven[8 * j + 3] = a[j], b[j], c[j], d[j]
        woven[8 * j + 4], woven[8 * j + 5], woven[8 * j + 6], woven[8 * j + 7] = e[j], f[j], g[j], h[j]


@intrinsic  # type: ignore[untyped-decorator]
def weigh(
    _: Any, out: Any, place: Any, stride: Any, woven: Any, left: Any, weights: Any, x: Any, count: Any
) -> Any:
    """Pixels x … x + 7 of eight rows: out[place + r · stride + i] is row r's pixel x + i.

    Pixel i is the sum of `count` pixels of its row, those from left[i] on, by weights[i · count …].

    Args:
        out, woven, weights: contiguous float32 arrays, one axis.  left: the same, int64.
        place, stride, x, count: integers. Nothing is checked.
    """
    number = types.intp
    signature = types.void(out, number, number, woven, left, weights, number, number)

    def code(context: Any, builder: Any, typed: Any, values: Any) -> Any:
        out, woven, left, weights = (
            context.make_array(typed.args[k])(context, builder, values[k]).data for k in (0, 3, 4, 5)
        )
        place, stride, x, count = (values[k] for k in (1, 2, 6, 7))
        sums = [_sum(builder, woven, left, weights, _plus(builder, x, i), count) for i in range(LANES)]
        for r, row in enumerate(_transposed(builder, sums)):
            at = builder.add(place, builder.mul(stride, _number(x, r)))
            builder.store(row, _vector(builder, out, at), align=4)
        return context.get_dummy_value()

    return signature, code


def _sum(builder: Any, woven: Any, left: Any, weights: Any, x: Any, count: Any) -> Any:
    """Pixel x of all rows, as a vector."""
    first = builder.mul(builder.load(builder.gep(left, [x])), _number(x, LANES))
    total = cgutils.alloca_once_value(builder, ir.Constant(VECTOR, [0.0] * LANES))
    with cgutils.for_range(builder, count) as loop:
        weight = builder.load(builder.gep(weights, [builder.add(builder.mul(x, count), loop.index)]))
        at = builder.add(first, builder.mul(loop.index, _number(x, LANES)))
        pixels = builder.load(_vector(builder, woven, at), align=4)
        product = builder.fmul(pixels, _spread(builder, weight), flags=FAST)
        builder.store(builder.fadd(builder.load(total), product, flags=FAST), total)
    return builder.load(total)


def _transposed(builder: Any, rows: list[Any]) -> list[Any]:
    """Three times the perfect shuffle of all 64 numbers."""
    low = [k // 2 + LANES * (k % 2) for k in range(LANES)]
    for _ in range(3):
        rows = [_shuffled(builder, rows, i, [k + LANES // 2 * (i % 2) for k in low]) for i in range(LANES)]
    return rows


def _shuffled(builder: Any, rows: list[Any], i: int, mask: list[int]) -> Any:
    return builder.shuffle_vector(rows[i // 2], rows[i // 2 + LANES // 2], _mask(mask))


def _spread(builder: Any, value: Any) -> Any:
    one = builder.insert_element(NOTHING, value, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(one, NOTHING, _mask([0] * LANES))


def _mask(lanes: list[int]) -> Any:
    return ir.Constant(ir.VectorType(ir.IntType(32), LANES), lanes)


def _vector(builder: Any, array: Any, at: Any) -> Any:
    return builder.bitcast(builder.gep(array, [at]), VECTOR.as_pointer())


def _plus(builder: Any, value: Any, n: int) -> Any:
    return builder.add(value, _number(value, n))


def _number(like: Any, n: int) -> Any:
    return ir.Constant(like.type, n)
