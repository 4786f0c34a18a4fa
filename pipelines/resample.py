"""The filter with which a clip's sound is read at another rate: anti-aliased, one set of taps for each phase.

Reading sound s times as fast, or at another rate, is one and the same thing: output sample i stands at position
x = x₀ + i · ratio between the recorded samples. Its value is a windowed sinc around x, low-passed to what both
rates can carry. For a ratio p/q only q different positions between two samples occur, so the sinc is tabulated
once for these phases and each output sample costs one dot product.
"""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

ZEROS = 24  # zero crossings of the sinc on each side
PASS = 0.85  # share of the narrower band that is left alone; above it the filter falls, and is down where it ends
BETA = 6.0  # Kaiser window: more than 60 dB down
GRID = np.linspace(0, 1, 4097)
KAISER = np.i0(BETA * np.sqrt(1 - GRID**2)) / np.i0(
    BETA
)  # one side of the window, from its middle to its end
FEWEST, MOST = 32, 512  # phases: a clip starts at the nearest one, at most 1/64 of a source sample away


def phases(ratio: Fraction) -> int:
    """Positions between two source samples: a multiple of the q of p/q that occur, or `MOST` where q is greater."""
    q = ratio.denominator
    return 1 if ratio == 1 else min(q * -(-FEWEST // q), MOST)


def bank(rates: Fraction, speed: float) -> NDArray[np.float32]:
    """Taps for every phase, (P, K) float32: row j weighs the K samples around a position j/P after a sample.

    Tap k stands at the sample k - (K - 1) // 2 places after the one that position has just passed.

    Args:
        rates: rate of the file / rate of the clip.
        speed: times as fast, at the fastest place of the clip.
    """
    exact = Fraction(speed).limit_denominator(100)
    if abs(exact - speed) < 1e-9:
        return _bank(float(rates * exact), phases(rates * exact))
    ratio = float(rates) * speed
    # any position may occur; a cutoff from a scale of 1/16 octaves, so that tables are shared
    return _bank(2.0 ** (np.ceil(16 * np.log2(ratio)) / 16) if ratio > 1 else 1.0, MOST)


@lru_cache(maxsize=128)
def _bank(ratio: float, count: int) -> NDArray[np.float32]:
    if ratio == count == 1:
        return np.array([[1]], np.float32)  # the very samples
    # the middle of the fall, in units of the source's Nyquist rate
    cutoff = (1 + PASS) / 2 / max(ratio, 1.0)
    half = int(np.ceil(ZEROS / cutoff))
    offsets = np.arange(-half, half + 2) - np.arange(count)[:, None] / count
    taps = np.sinc(cutoff * offsets) * np.interp(np.abs(offsets) / (half + 1), GRID, KAISER)
    return np.asarray(taps / taps.sum(axis=1, keepdims=True), np.float32)
