"""Colour and blur of one frame on the CPU, as DALI's color_twist and gaussian_blur, in a small part of their time."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from .zoom import blend

WHITE, BLACK, MIDDLE = np.float32(255), np.float32(0), 128.0
YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.321], [0.211, -0.523, 0.311]])
RGB = np.linalg.inv(YIQ)


@njit  # type: ignore[untyped-decorator]
def twist(colour: Any) -> Any:
    """(3, 4) float32, matrix and summand of a colour jitter: hue and saturation turn and stretch YIQ's chroma.

    Contrast is around the middle grey. colour (4,): factors of brightness, contrast, saturation; hue in degrees.
    """
    brightness, contrast = float(colour[0]), float(colour[1])
    turn, matrix = math.radians(float(colour[3])), np.empty((3, 4), np.float32)
    cos, sin = colour[2] * math.cos(turn), colour[2] * math.sin(turn)
    for i in range(3):
        for j in range(3):
            y, p, q = YIQ[0, j], cos * YIQ[1, j] + sin * YIQ[2, j], cos * YIQ[2, j] - sin * YIQ[1, j]
            matrix[i, j] = brightness * contrast * (RGB[i, 0] * y + RGB[i, 1] * p + RGB[i, 2] * q)
        matrix[i, 3] = brightness * MIDDLE * (1 - contrast)
    return matrix


@njit  # type: ignore[untyped-decorator]
def tint(frame: Any, matrix: Any) -> None:
    """Send the colours of `frame` (3, S, S) float32 through a (3, 4) matrix, in place; the result lies in [0, 255]."""
    a, b, c = matrix[0], matrix[1], matrix[2]
    x, y, z = frame[0].reshape(-1), frame[1].reshape(-1), frame[2].reshape(-1)
    _tint(x, y, z, (a[0], a[1], a[2], a[3]), (b[0], b[1], b[2], b[3]), (c[0], c[1], c[2], c[3]))


@njit(fastmath=True)  # type: ignore[untyped-decorator]
def _tint(x: Any, y: Any, z: Any, first: Any, second: Any, third: Any) -> None:
    """With numbers instead of arrays of them, which LLVM would load anew for every pixel."""
    for p in range(len(x)):
        a, b, c = x[p], y[p], z[p]
        x[p] = _mixed(first, a, b, c)
        y[p] = _mixed(second, a, b, c)
        z[p] = _mixed(third, a, b, c)


@njit(fastmath=True)  # type: ignore[untyped-decorator]
def _mixed(weights: Any, a: Any, b: Any, c: Any) -> Any:
    return min(max(weights[0] * a + weights[1] * b + weights[2] * c + weights[3], BLACK), WHITE)


@njit  # type: ignore[untyped-decorator]
def gaussian(sigma: float) -> Any:
    """(2r + 1,) float32, r = 3 sigma rounded up: a Gaussian that sums to one."""
    radius = math.ceil(3 * sigma)
    weights, total = np.empty(2 * radius + 1, np.float32), 0.0
    for i in range(-radius, radius + 1):
        total += math.exp(-0.5 * (i / sigma) ** 2)
    for i in range(-radius, radius + 1):
        weights[radius + i] = math.exp(-0.5 * (i / sigma) ** 2) / total
    return weights


@njit  # type: ignore[untyped-decorator]
def mirrored(i: int, length: int) -> int:
    """Position i of a picture that goes on, mirrored, beyond its first and last pixel."""
    period = max(2 * (length - 1), 1)
    i = i % period
    return min(i, period - i) if length > 1 else 0


@njit  # type: ignore[untyped-decorator]
def soften(out: Any, plane: Any, weights: Any, room: Any) -> None:
    """Fill `out` (S, S) with `plane` (S, S), weighted down and across; both ways all rows are one long line.

    room: space to work in, (2, S · (S + 2r)) float32 for weights (2r + 1,).
    """
    size, radius = plane.shape[0], len(weights) // 2
    wide = size + 2 * radius
    place = np.array([mirrored(i - radius, size) for i in range(wide)])
    padded, summed = room[0], room[1]
    for y in range(wide):
        padded[y * size : (y + 1) * size] = plane[place[y]]
    blend(summed[: size * size], padded, 0, size, weights)
    for y in range(size):
        for x in range(wide):
            padded[y * wide + x] = summed[y * size + place[x]]
    blend(summed[: size * wide - 2 * radius], padded, 0, 1, weights)
    for y in range(size):
        out[y] = summed[y * wide : y * wide + size]
