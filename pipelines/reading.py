"""A clip's sound at positions between its samples: through the filter's taps, many positions at a time.

Plain Python, compiled by Numba for the CPU and for CUDA; on the CPU eight positions are summed side by side.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

from . import lanes

Jit = Callable[..., Any]


def locate(places: Any, beside: Any, n: int, taps: int, phases: int, first: Any, phase: Any) -> None:
    """Where the taps begin in the sound, and which phase they are of, for the positions places + beside."""
    half = (taps - 1) // 2
    # to the nearest phase; half-way cases all go one way, or rounding errors would make a clip jitter
    tie = (0.5 + 1e-6) / phases
    for i in range(n):
        x = places[i] + beside[i] - 0.5 + tie
        before = math.floor(x)
        # the difference is 1 where x lies just below 0
        first[i], phase[i] = before - half, min(math.floor((x - before) * phases), phases - 1)


def silent(gain: Any, n: int) -> Any:
    """Whether nobody hears gain[:n]."""
    loudness = 0.0
    for i in range(n):
        loudness += abs(gain[i])
    return loudness == 0.0


def inside(first: Any, n: int, last: float) -> Any:
    """Whether the taps from each of first[:n] on lie within the sound, in which they can begin at `last`."""
    outside = 0
    for i in range(n):  # a sum: LLVM vectorises no minimum
        outside += (first[i] < 0.0) | (first[i] > last)
    return outside == 0


def dots(out: Any, pcm: Any, first: Any, bank: Any, phase: Any, n: int) -> None:
    """out[:n], the sound from samples `first` on through the taps of the phases."""
    for i in range(n):
        begin, row, total = int(first[i]), int(phase[i]), np.float32(0.0)
        for k in range(bank.shape[1]):
            total += bank[row, k] * pcm[begin + k]
        out[i] = total


def dots_cpu(out: Any, pcm: Any, first: Any, bank: Any, phase: Any, n: int) -> None:
    """The same, fast where there are enough taps and positions."""
    taps = bank.shape[1]
    if n >= lanes.LANES and taps % lanes.LANES == 0:
        sound, weights = pcm[:], bank.reshape(-1)  # DALI's inputs might be None, slices of them are not
        for i in range(0, n, lanes.LANES):
            # the last positions may be made twice
            lanes.dots(out, sound, first, weights, phase, min(i, n - lanes.LANES), taps)
    else:
        _dots(out, pcm, first, bank, phase, n)


_dots = njit(fastmath=True)(dots)


def reader(jit: Jit, dots: Jit) -> Jit:
    """The function that reads, compiled by `jit`; `dots` as above, for positions within the sound."""
    unheard, within = jit(silent), jit(inside)

    def read(out: Any, first: Any, phase: Any, gain: Any, n: int, pcm: Any, bank: Any) -> None:
        """out[:n]; silence outside the source, and where the gain is 0 throughout: nobody hears it."""
        taps, length = bank.shape[1], pcm.shape[0]
        if unheard(gain, n):
            for i in range(n):
                out[i] = 0.0
        elif within(first, n, float(length - taps)):
            dots(out, pcm, first, bank, phase, n)
        else:
            for i in range(n):
                begin, total = int(first[i]), np.float32(0.0)
                for k in range(max(0, -begin), min(taps, length - begin)):
                    total += bank[int(phase[i]), k] * pcm[begin + k]
                out[i] = total

    compiled: Jit = jit(read)
    return compiled
