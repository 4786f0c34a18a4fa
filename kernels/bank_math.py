"""Exponentials as plain arithmetic, so that a loop over them fills vector registers; float64, to 1e-15.

For `math.exp` Numba calls the C library, one number at a time.
"""

from __future__ import annotations

import math
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from .bank_rows import ANY_ORDER, Array

LOG2_E = 1 / math.log(2)
LN2_HIGH, LN2_LOW = (
    0.693145751953125,
    1.42860682030941723212e-6,
)  # their sum is ln 2; products with the first are exact
MANY = 512  # factors of at most 2 whose product does not overflow


@intrinsic  # type: ignore[untyped-decorator]
def _from_bits(typing: Any, word: Any) -> Any:
    """The float64 that an int64's bits are."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.DoubleType())

    return types.float64(types.int64), generate


@njit(nogil=True, fastmath={"contract"})  # type: ignore[untyped-decorator]
def exp(x: float) -> Any:
    """e^x; as if x were -708 below that and 709 above, so that it is neither 0 nor infinite."""
    x = min(max(x, -708.0), 709.0)
    power = math.floor(x * LOG2_E + 0.5)
    r = x - power * LN2_HIGH - power * LN2_LOW  # within 0.35 of 0: thirteen terms of the series reach 1e-17
    total = 1 / 6227020800
    total = total * r + 1 / 479001600
    total = total * r + 1 / 39916800
    total = total * r + 1 / 3628800
    total = total * r + 1 / 362880
    total = total * r + 1 / 40320
    total = total * r + 1 / 5040
    total = total * r + 1 / 720
    total = total * r + 1 / 120
    total = total * r + 1 / 24
    total = total * r + 1 / 6
    total = total * r + 1 / 2
    total = total * r + 1
    total = total * r + 1
    return total * _from_bits((types.int64(power) + 1023) << 52)


@njit(nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]  # Python's would look for a zero divisor
def sigmoid(x: float) -> Any:
    """1 / (1 + e^-x), also where it is tiny."""
    small = exp(-abs(x))
    return (1.0 if x >= 0 else small) / (1 + small)


@njit(nogil=True, fastmath=ANY_ORDER)  # type: ignore[untyped-decorator]
def softplus_sum(x: Array) -> Any:
    """Sum of log(1 + e^x) over x (n,): the linear parts added, the rest multiplied, with one logarithm for many."""
    total = 0.0
    for first in range(0, x.shape[0], MANY):
        product = 1.0
        for i in range(first, min(first + MANY, x.shape[0])):
            total += max(x[i], 0.0)
            product *= 1 + exp(-abs(x[i]))
        total += math.log(product)
    return total


@njit(nogil=True, fastmath=ANY_ORDER)  # type: ignore[untyped-decorator]
def exp_sum(x: Array) -> Any:
    """Sum of e^x over x (n,)."""
    total = 0.0
    for i in range(x.shape[0]):
        total += exp(x[i])
    return total
