"""One frame cut out, mirrored and resized on the CPU, as by DALI's antialiased resize, in a quarter of its time."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

ROUND = np.float32(0.5)
ONE, TWO, THREE = np.uint64(1), np.uint64(2), np.uint64(3)


@njit  # type: ignore[untyped-decorator]
def taps(low: float, high: float, length: int, size: int) -> Any:
    """What every one of `size` outputs reads between the positions low and high of `length` pixels.

    A triangle around its centre, at least one pixel and one output to each side: bilinear, and a low pass where the
    picture gets smaller. Beyond the border stands the last pixel. high < low mirrors.

    Returns:
        The first pixel read (size,), and the weights of this and the following ones, (size, K) float32.
    """
    step = (high - low) / size
    reach = max(abs(step), 1.0)
    count = min(math.ceil(2 * reach) + 1, length)
    first, weights = np.empty(size, np.int64), np.zeros((size, count), np.float32)
    for i in range(size):
        centre = low + (i + 0.5) * step - 0.5
        start, stop = math.floor(centre - reach) + 1, math.ceil(centre + reach)
        first[i] = min(max(start, 0), length - count)
        total = 0.0
        for j in range(start, stop):
            total += 1 - abs(j - centre) / reach
        for j in range(start, stop):
            weights[i, min(max(j, 0), length - 1) - first[i]] += (1 - abs(j - centre) / reach) / total
    return first, weights


@njit  # type: ignore[untyped-decorator]
def zoom(out: Any, frame: Any, rows: Any, columns: Any, line: Any) -> None:
    """Fill `out` (S, S, 3) uint8 from `frame` (H, W, 3) uint8.

    Args:
        rows, columns: `taps` of the two axes.
        line: space for one row of the columns that are read, (3 · columns,) float32.
    """
    (top, down), (left, across) = rows, columns
    pixels, width, begin, n = frame.reshape(-1), 3 * frame.shape[1], 3 * min(left[0], left[-1]), len(line)
    for y in range(out.shape[0]):
        start = top[y] * width + begin
        first(line, pixels[start : start + n], down[y, 0])
        for k in range(1, down.shape[1]):
            start += width
            add(line, pixels[start : start + n], down[y, k])
        _across(out[y].reshape(-1), line, left, across)


@njit(fastmath=True)  # type: ignore[untyped-decorator]
def first(line: Any, values: Any, weight: Any) -> None:
    """Begin a weighted sum of rows."""
    for i in range(len(line)):
        line[i] = weight * np.float32(values[i])


@njit(fastmath=True)  # type: ignore[untyped-decorator]
def add(line: Any, values: Any, weight: Any) -> None:
    """Continue it; in a function of its own, which LLVM vectorises."""
    for i in range(len(line)):
        line[i] += weight * np.float32(values[i])


@njit(fastmath=True)  # type: ignore[untyped-decorator]
def _across(out: Any, line: Any, left: Any, weights: Any) -> None:
    """One row of the result; its indices are unsigned, or Numba would test each for being negative."""
    begin = min(left[0], left[-1])
    for x in range(np.uint64(len(left))):
        red = green = blue = ROUND
        j = np.uint64(3 * (left[x] - begin))
        for k in range(np.uint64(weights.shape[1])):
            weight = weights[x, k]
            red += weight * line[j]
            green += weight * line[j + ONE]
            blue += weight * line[j + TWO]
            j += THREE
        i = THREE * x
        out[i], out[i + ONE], out[i + TWO] = np.uint8(red), np.uint8(green), np.uint8(blue)
