"""The last operator of a clip's sound on a CPU: from powers to a normalised spectrogram, in one pass.

Pairs of bins, decibels, normalisation, transposition and size, for which DALI's own operators (they do the same on a
GPU) take five passes.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numba import njit
from nvidia.dali import types
from nvidia.dali.plugin.numba.experimental import NumbaFunction

from .config import AudioConfig
from .lanes import LANES
from .spatial.zoom import taps, zoom
from .stats import load_stats

MANTISSA = 23  # bits of a float32's fraction
ROOT = np.int32(0x3F3504F3)  # the bits of sqrt(1/2)
SERIES = tuple(2 / math.log(2) / k for k in (1, 3, 5, 7))  # of log2((1 + s) / (1 - s)), in odd powers of s


@njit(fastmath=True)  # type: ignore[untyped-decorator]
def paired(line: Any, power: Any) -> None:
    """The first bin, then the means of the following pairs: (F,) from (2F - 1,)."""
    line[0] = power[0]
    for i in range(1, len(line)):
        line[i] = np.float32(0.5) * (power[2 * i - 1] + power[2 * i])


@njit(fastmath=True)  # type: ignore[untyped-decorator]
def raised(line: Any, lowest: Any) -> None:
    """To `lowest`, at least."""
    for i in range(len(line)):
        line[i] = max(line[i], lowest[i])


@njit  # type: ignore[untyped-decorator]
def split(bits: Any, exponent: Any) -> None:
    """Floats, given as their bits, as m · 2^e with m in [sqrt(1/2), sqrt(2)): their bits become those of m."""
    for i in range(len(bits)):
        e = (bits[i] - ROOT) >> MANTISSA
        exponent[i] = e
        bits[i] -= e << MANTISSA


@njit(fastmath=True)  # type: ignore[untyped-decorator]
def scaled(line: Any, exponent: Any, factor: Any, summand: Any) -> None:
    """factor · log2(line · 2^exponent) + summand in place, to 1e-6 of a power of two. LLVM vectorises no logarithm."""
    a, b, c, d = np.float32(SERIES[0]), np.float32(SERIES[1]), np.float32(SERIES[2]), np.float32(SERIES[3])
    one = np.float32(1)
    for i in range(len(line)):
        s = (line[i] - one) / (line[i] + one)
        square = s * s
        logarithm = s * (a + square * (b + square * (c + square * d))) + exponent[i]
        line[i] = factor[i] * logarithm + summand[i]


def finisher(frames: int, pairs: bool, resized: bool) -> Any:
    """The function that fills `out` (1, F, L) from `power` (windows, bins) and `levels` (3, bands).

    levels: the lowest power; what the binary logarithm is multiplied by; what is then added to it.
    """

    def finish(out: Any, power: Any, levels: Any) -> None:
        bands = levels.shape[1]
        line, exponent = np.empty(bands, np.float32), np.empty(bands, np.float32)
        picture = np.empty((bands, frames), np.float32) if resized else out[0]
        for j in range(frames):
            if pairs:
                paired(line, power[j])
            else:
                line[:] = power[j]
            raised(line, levels[0])
            split(line.view(np.int32), exponent)
            scaled(line, exponent, levels[1], levels[2])
            for i in range(bands):
                picture[i, j] = line[i]
        if resized:
            rows, columns = taps(0.0, bands, bands, out.shape[1]), taps(0.0, frames, frames, out.shape[2])
            room = np.empty(2 * LANES * frames, np.float32)
            zoom(out[0], picture.reshape(-1), 0, frames, rows, columns, room)

    return finish


def finished(power: Any, audio: AudioConfig) -> Any:
    """The operator: (10 log10(max(power, floor)) - mean) / std, with time along the last axis, at its size.

    Args:
        power: DALI node, (windows, bins) float32; bins before they are paired, or mel bands.
        audio: the front end.

    Returns:
        (1, F, L) float32, `audio.shape`.

    Raises:
        StatsError: `audio.stats` cannot be used.
    """
    mean, std = load_stats(audio) if audio.stats else (np.array(audio.mean), np.array(audio.std))
    levels = np.empty((3, audio.stft_bands), np.float32)
    levels[0] = 10 ** (audio.floor_db / 10)
    levels[1], levels[2] = 10 * math.log10(2) / std, -mean / std
    shape, pairs = audio.shape, audio.spectrum == "paired"
    return _operator(shape, audio.stft_frames, pairs, audio.resize is not None)(power, types.Constant(levels))


@lru_cache
def _operator(shape: tuple[int, int], frames: int, pairs: bool, resized: bool) -> Any:
    """Compiled once a process, not once a view and pipeline."""

    def setup(outs: Any, ins: Any) -> None:
        for sample in range(len(outs[0])):
            size = outs[0][sample]
            size[0], size[1], size[2] = 1, shape[0], shape[1]

    return NumbaFunction(
        run_fn=finisher(frames, pairs, resized),
        setup_fn=setup,
        in_types=[types.FLOAT, types.FLOAT],
        ins_ndim=[2, 2],
        out_types=[types.FLOAT],
        outs_ndim=[3],
        batch_processing=False,
        device="cpu",
    )
