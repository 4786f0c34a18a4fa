"""The filter with which a clip's sound is read at another rate: anti-aliased, one set of taps for each phase.

Reading sound s times as fast, or at another rate, is one and the same thing: output sample i stands at position
x = x₀ + i · ratio between the recorded samples. Its value is a windowed sinc around x, low-passed to what both
rates can carry. For a ratio p/q only q different positions between two samples occur, so the sinc is tabulated
once for these phases and each output sample costs one dot product. What is read very fast is first thinned out.
"""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from math import ceil

import numpy as np
from numpy.typing import NDArray

LENGTH = 48  # samples of the slower rate that the filter spans, at least
LANES = 16  # its taps are a multiple of this: a CPU multiplies so many at once
BETA, FALL = (
    6.0,
    1.92,
)  # Kaiser's window: 63 dB down within 2 · FALL / half its length, in shares of Nyquist's rate
GRID = np.linspace(0, 1, 4097)  # one side of the window, from its middle to its end
KAISER = np.i0(BETA * np.sqrt(1 - GRID**2)) / np.i0(BETA)
ALONE = 512  # rows of blocks of one sample that OpenBLAS multiplies on one thread: of 2^18 products at most, here half
THIN = 1.6  # times as fast as needed, at least, is what remains after thinning
FEWEST, MOST = 32, 512  # phases: a clip starts at the nearest one, at most 1/64 of a (thinned) sample away


def phases(ratio: Fraction) -> int:
    """Positions between two source samples: a multiple of the q of p/q that occur, or `MOST` where q is greater."""
    q = ratio.denominator
    return 1 if ratio == 1 else min(q * -(-FEWEST // q), MOST)


@lru_cache(maxsize=128)
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
    ratio = max(ratio, 1.0)
    half = LANES * ceil(LENGTH * ratio / LANES) // 2
    cutoff = 1 / ratio - FALL / half  # the middle of the fall, which ends where the narrower band does
    offsets = np.arange(1 - half, half + 1) - np.arange(count)[:, None] / count
    taps = np.sinc(cutoff * offsets) * np.interp(np.abs(offsets) / half, GRID, KAISER)
    return np.asarray(taps / taps.sum(axis=1, keepdims=True), np.float32)


def thin(pcm: NDArray[np.float32], ratio: float) -> tuple[NDArray[np.float32], int]:
    """Every 2nd, 4th, … sample, low-passed for it, of what is then read `ratio` times as fast: (samples, 2, 4, …).

    Of two filters, one after the other, each can be short: only what the second one would let through must be down
    here. Sample j stands for the samples [j·n, (j + 1)·n) of `pcm`; beyond its ends there is silence.
    """
    every = 1
    while ratio >= THIN * 2 * every:
        every *= 2
    return (pcm, 1) if every == 1 else (_thinned(pcm, every), every)


def _thinned(pcm: NDArray[np.float32], every: int) -> NDArray[np.float32]:
    """Blocks of the sound, each with the beginning of the next, times a matrix: BLAS takes half as long as a loop.

    A few rows at a time: how BLAS shares a large product out among threads changes the sums' last bits, and a process's
    number of threads is not to change a clip.
    """
    matrix, rows = _thinner(every), max(ALONE // every, 1)
    block = every * matrix.shape[1]
    shape = (-(-len(pcm) // (rows * block)), rows, block)
    beyond = len(matrix) - block
    sound = np.zeros((shape[0] * rows + 1, block), np.float32)
    sound.reshape(-1)[beyond // 2 : beyond // 2 + len(pcm)] = pcm
    thinned = sound[:-1].reshape(shape) @ matrix[:block]
    thinned += sound[1:].reshape(shape)[..., :beyond] @ matrix[block:]
    return thinned.reshape(-1)[: -(-len(pcm) // every)]


@lru_cache
def _thinner(every: int) -> NDArray[np.float32]:
    """(K + 15·every, 16): from that many samples to 16 thinned ones, of K taps each."""
    count = 11 * every
    taps = np.sinc((np.arange(count) - (count - 1) / 2) * 0.95 / every) * np.kaiser(count, 7.0)
    matrix = np.zeros((count + every * (LANES - 1), LANES), np.float32)
    for j in range(LANES):
        matrix[j * every : j * every + count, j] = taps / taps.sum()
    return matrix
