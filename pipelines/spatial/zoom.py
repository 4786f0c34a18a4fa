"""One plane of a picture cut out, mirrored and resized on the CPU, as by DALI's antialiased resize."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from ..lanes import LANES, weave, weigh


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
    count = min(math.ceil(2 * reach), length)  # whole numbers within an open interval of that length
    first, weights = np.empty(size, np.int64), np.zeros((size, count), np.float32)
    for i in range(size):
        centre = low + (i + 0.5) * step - 0.5
        start = math.floor(centre - reach) + 1
        stop = min(
            math.ceil(centre + reach), start + math.ceil(2 * reach)
        )  # rounding may add one of no weight
        first[i] = min(max(start, 0), length - count)
        total = 0.0
        for j in range(start, stop):
            total += 1 - abs(j - centre) / reach
        for j in range(start, stop):
            weights[i, min(max(j, 0), length - 1) - first[i]] += (1 - abs(j - centre) / reach) / total
    return first, weights


@njit  # type: ignore[untyped-decorator]
def zoom(out: Any, pixels: Any, origin: int, stride: int, rows: Any, columns: Any, room: Any) -> None:
    """Fill `out` (H, W) float32, at least 8 each way, from a plane of pixels.

    Args:
        pixels, origin, stride: pixel (y, x) of the plane is pixels[origin + y · stride + x]; uint8 or float32.
        rows, columns: `taps` of the two axes.
        room: space to work in, (16 n,) float32, n columns that are read at most.
    """
    (top, down), (left, across) = rows, columns
    height, begin = len(top), min(left[0], left[-1])
    n = abs(left[-1] - left[0]) + across.shape[1]
    half = LANES * n
    lines, woven = (
        room[:half].reshape(LANES, n),
        room[half : 2 * half],
    )  # contiguous, or nothing is vectorised
    for group in range(0, height, LANES):
        y = min(group, height - LANES)  # the last rows may be made twice
        for r in range(LANES):
            blend(lines[r], pixels, origin + top[y + r] * stride + begin, stride, down[y + r])
        a, b, c, d, e, f, g, h = (
            lines[0],
            lines[1],
            lines[2],
            lines[3],
            lines[4],
            lines[5],
            lines[6],
            lines[7],
        )
        weave(woven, a, b, c, d, e, f, g, h)
        _across(out, y, woven, left - begin, across)


@njit  # type: ignore[untyped-decorator]
def _across(out: Any, y: int, woven: Any, left: Any, weights: Any) -> None:
    """Rows y … y + 7 of the result."""
    size, shown, flat = (
        len(left),
        out.reshape(-1),
        weights.reshape(-1),
    )  # a reshape costs as much as 64 pixels
    for column in range(0, size, LANES):
        x = min(column, size - LANES)
        weigh(shown, y * size + x, size, woven, left, flat, x, weights.shape[1])


@njit  # type: ignore[untyped-decorator]
def blend(line: Any, pixels: Any, start: int, stride: int, weights: Any) -> None:
    """A weighted sum of the pixels from `start` on with those of the rows below, two rows at a time."""
    n, count = len(line), len(weights)
    if count == 1:
        first(line, pixels[start : start + n], weights[0])
        return
    above, below = pixels[start : start + n], pixels[start + stride : start + stride + n]
    first_two(line, above, below, weights[0], weights[1])
    for k in range(2, count - 1, 2):
        at, under = start + k * stride, start + (k + 1) * stride
        add_two(line, pixels[at : at + n], pixels[under : under + n], weights[k], weights[k + 1])
    if count % 2:
        at = start + (count - 1) * stride
        add(line, pixels[at : at + n], weights[count - 1])


# in functions of their own, or LLVM would not vectorise them
@njit(fastmath=True)  # type: ignore[untyped-decorator]
def first(line: Any, values: Any, weight: Any) -> None:
    """Begin a weighted sum of rows."""
    for i in range(len(line)):
        line[i] = weight * np.float32(values[i])


@njit(fastmath=True)  # type: ignore[untyped-decorator]
def first_two(line: Any, above: Any, below: Any, weight: Any, other: Any) -> None:
    """Begin it with two."""
    for i in range(len(line)):
        line[i] = weight * np.float32(above[i]) + other * np.float32(below[i])


@njit(fastmath=True)  # type: ignore[untyped-decorator]
def add(line: Any, values: Any, weight: Any) -> None:
    """Continue it."""
    for i in range(len(line)):
        line[i] += weight * np.float32(values[i])


@njit(fastmath=True)  # type: ignore[untyped-decorator]
def add_two(line: Any, above: Any, below: Any, weight: Any, other: Any) -> None:
    """Continue it with two."""
    for i in range(len(line)):
        line[i] += weight * np.float32(above[i]) + other * np.float32(below[i])
