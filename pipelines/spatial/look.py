"""Colour and blur of one frame on the CPU, as DALI's color_twist and gaussian_blur, in a small part of their time."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from .zoom import ROUND, add, first

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
    """Change the colours of `frame` (H, W, 3) uint8 in place."""
    _tint(frame.reshape(-1), _row(matrix[0]), _row(matrix[1]), _row(matrix[2]))


@njit  # type: ignore[untyped-decorator]
def _row(row: Any) -> Any:
    return row[0], row[1], row[2], row[3]  # values, so that LLVM need not load them for every pixel


@njit(fastmath=True)  # type: ignore[untyped-decorator]
def _mixed(weights: Any, r: Any, g: Any, b: Any) -> Any:
    value = weights[0] * r + weights[1] * g + weights[2] * b + weights[3]
    return np.uint8(min(max(value, BLACK), WHITE) + ROUND)


@njit(fastmath=True)  # type: ignore[untyped-decorator]
def _tint(x: Any, red: Any, green: Any, blue: Any) -> None:
    for p in range(len(x) // 3):
        r, g, b = np.float32(x[3 * p]), np.float32(x[3 * p + 1]), np.float32(x[3 * p + 2])
        x[3 * p], x[3 * p + 1], x[3 * p + 2] = (
            _mixed(red, r, g, b),
            _mixed(green, r, g, b),
            _mixed(blue, r, g, b),
        )


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
def soften(out: Any, frame: Any, weights: Any) -> None:
    """Fill `out` (H, W, 3) with `frame` (H, W, 3) uint8, weighted down and across."""
    height, width, radius = frame.shape[0], frame.shape[1], len(weights) // 2
    padded = np.empty(3 * (width + 2 * radius), np.float32)
    middle, line = padded[3 * radius : 3 * (radius + width)], np.empty(3 * width, np.float32)
    for y in range(height):
        first(middle, frame[y].reshape(-1), weights[radius])
        for k in range(1, radius + 1):
            add(middle, frame[mirrored(y - k, height)].reshape(-1), weights[radius - k])
            add(middle, frame[mirrored(y + k, height)].reshape(-1), weights[radius + k])
        _pad(padded, width, radius)
        first(line, middle, weights[radius])
        for k in range(len(weights)):
            if k != radius:
                add(line, padded[3 * k : 3 * (k + width)], weights[k])
        _store(out[y].reshape(-1), line)


@njit  # type: ignore[untyped-decorator]
def _pad(padded: Any, width: int, radius: int) -> None:
    for k in range(radius):
        for side in (k - radius, width + k):
            for c in range(3):
                padded[3 * (radius + side) + c] = padded[3 * (radius + mirrored(side, width)) + c]


@njit(fastmath=True)  # type: ignore[untyped-decorator]
def _store(out: Any, line: Any) -> None:
    for i in range(len(out)):
        out[i] = np.uint8(line[i] + ROUND)
