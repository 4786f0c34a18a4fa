"""Eight sums at once: the two loops, of the resize and of the sound's filter, that LLVM does not vectorise well.

The outputs of a resize lie at uneven distances in the input, so a vector cannot run along a row; it can run across
eight rows that are woven together, and eight such vectors, transposed in registers, are eight pixels of each row. Sound
is one row: there eight outputs are summed side by side, eight taps at a time, and transposing makes of their partial
sums eight outputs.
"""

from __future__ import annotations

from collections.abc import Callable
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
        places = [_plus(builder, x, i) for i in range(LANES)]
        firsts = [builder.mul(builder.load(builder.gep(left, [at])), _number(x, LANES)) for at in places]
        rows = [builder.mul(at, count) for at in places]

        def term(i: int, k: Any) -> Any:
            weight = builder.load(builder.gep(weights, [builder.add(rows[i], k)]))
            at = builder.add(firsts[i], builder.mul(k, _number(x, LANES)))
            pixels = builder.load(_vector(builder, woven, at), align=4)
            return builder.fmul(pixels, _spread(builder, weight), flags=FAST)

        sums = _sums(builder, count, 1, term)
        for r, row in enumerate(_transposed(builder, sums)):
            at = builder.add(place, builder.mul(stride, _number(x, r)))
            builder.store(row, _vector(builder, out, at), align=4)
        return context.get_dummy_value()

    return signature, code


@intrinsic  # type: ignore[untyped-decorator]
def dots(_: Any, out: Any, sound: Any, first: Any, bank: Any, phase: Any, i: Any, count: Any) -> Any:
    """Outputs i … i + 7: out[i] is the sum of `count` samples from first[i] on, by the weights in row phase[i].

    Args:
        out, first, phase: contiguous float64 arrays, one axis.
        sound (n,), bank (phases · count,): contiguous float32 arrays.
        i, count: integers, count a multiple of 8. Nothing is checked.
    """
    number = types.intp
    signature = types.void(out, sound, first, bank, phase, number, number)

    def code(context: Any, builder: Any, typed: Any, values: Any) -> Any:
        arrays = zip(typed.args, values, strict=True)
        out, sound, first, bank, phase = (
            context.make_array(kind)(context, builder, value).data for kind, value in list(arrays)[:5]
        )
        i, count = values[5:]
        places = [_plus(builder, i, lane) for lane in range(LANES)]
        begins = [_whole(builder, first, at, i.type) for at in places]
        rows = [builder.mul(_whole(builder, phase, at, i.type), count) for at in places]

        def term(lane: int, k: Any) -> Any:
            samples = builder.load(_vector(builder, sound, builder.add(begins[lane], k)), align=4)
            weights = builder.load(_vector(builder, bank, builder.add(rows[lane], k)), align=4)
            return builder.fmul(samples, weights, flags=FAST)

        parts = _transposed(builder, _sums(builder, count, LANES, term))
        while len(parts) > 1:
            pairs = zip(parts[::2], parts[1::2], strict=True)
            parts = [builder.fadd(a, b, flags=FAST) for a, b in pairs]
        doubles = ir.VectorType(ir.DoubleType(), LANES)
        to = builder.bitcast(builder.gep(out, [i]), doubles.as_pointer())
        builder.store(builder.fpext(parts[0], doubles), to, align=8)
        return context.get_dummy_value()

    return signature, code


def _sums(builder: Any, count: Any, step: int, term: Callable[[int, Any], Any]) -> list[Any]:
    """Eight sums of term(lane, k) over k = 0, step, … below `count`; side by side, so that none waits for itself."""
    zero = ir.Constant(VECTOR, [0.0] * LANES)
    totals = [cgutils.alloca_once(builder, VECTOR) for _ in range(LANES)]
    for total in totals:
        builder.store(zero, total)
    ends = (_number(count, 0), count, _number(count, step))
    with cgutils.for_range_slice(builder, *ends, count.type) as (k, _):
        for lane, total in enumerate(totals):
            builder.store(builder.fadd(builder.load(total), term(lane, k), flags=FAST), total)
    return [builder.load(total) for total in totals]


def _whole(builder: Any, array: Any, at: Any, kind: Any) -> Any:
    """A whole number from an array of floats."""
    return builder.fptosi(builder.load(builder.gep(array, [at])), kind)


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
