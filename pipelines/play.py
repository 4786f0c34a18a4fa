"""The fused timeline operator: a clip's sound resampled and played through map, gain and fill in one pass.

The host compiles each timeline to small tables (`program.py`) and looks up the filter for its rate (`resample.py`);
the device evaluates both for every output sample. The arithmetic is plain Python, compiled by Numba for the CPU and
for CUDA as DALI's Numba operator. (DALI's own audio_resample does not low-pass when it goes down in rate.)
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numba import njit
from nvidia.dali import types
from nvidia.dali.plugin.numba.experimental import NumbaFunction

from .curves import ramp, shade
from .reading import Jit, dots, dots_cpu, locate, reader
from .timemap import TIE

THREADS = 256
BLOCK = 512  # samples that a CPU sends through the stages together
Windows = tuple[()] | tuple[int, int, float]


def walk(p: Any, weight: Any, n: int, maps: Any, row: int, end: int, head: int) -> None:
    """Send the positions p[:n] through the stages in rows [row, end) of `maps`.

    Where pieces overlap, head 0 reads the later one, head 1 the one before it, and `weight` is that of head 1.
    """
    while row < end:
        hold, overlap, after = maps[row, 1], maps[row, 2], row + int(maps[row, 0])
        if hold > 0.0:
            for i in range(n):
                p[i] = hold * (math.floor(p[i] / hold + TIE) + 0.5)
        if after == row + 1:
            start, source, slope = maps[row, 3], maps[row, 4], maps[row, 5]
            for i in range(n):
                p[i] = source + slope * (p[i] - start)
        else:
            for i in range(n):
                piece, beyond = row, after
                while beyond - piece > 1:
                    middle = (piece + beyond) // 2
                    if maps[middle, 3] <= p[i]:
                        piece = middle
                    else:
                        beyond = middle
                if overlap > 0.0 and piece > row and p[i] - maps[piece, 3] < overlap:
                    weight[i] = 1.0 - (p[i] - maps[piece, 3]) / overlap
                    piece -= head
                p[i] = maps[piece, 4] + maps[piece, 5] * (p[i] - maps[piece, 3])
        row = after


def player(jit: Jit, fast: Jit, read: Jit, window: int = 0, hop: int = 0, centre: float = 0.0) -> Jit:
    """The function of a few output samples, compiled by `jit`; `fast` may reorder sums. `read` is `reader`'s.

    With a `window`, the output is not the sound itself but the windows of an STFT, one after the other, `hop` samples
    of clip time apart and the first one around `centre`: the map then moves the windows, and within one the sound runs
    on at its own speed.
    """
    move, shape, colour = jit(walk), jit(ramp), jit(shade)
    find, dot = fast(locate), read

    def begin(p: Any, first: int, n: int, middle: bool) -> None:
        """Positions in the clip of n output samples, or of the middles of their windows."""
        for i in range(n):
            p[i] = first + i + 0.5
            if window > 0:
                j, k = divmod(first + i, window)
                p[i] = j * hop + centre + (0.0 if middle else k + 0.5 - 0.5 * window)

    start = jit(begin)

    def tone(
        first: int, n: int, gain: Any, fill: Any, p: Any, product: Any, maps: Any, curves: Any, noise: Any
    ) -> None:
        """g and f: the factors of each product stand together, those of the gain first."""
        for k in range(1, curves.shape[0]):
            start(p, first, n, False)
            move(p, product, n, maps, int(curves[k, 5]), int(curves[k, 6]), 0)
            if curves[k, 0] > 0.0 and curves[k, 0] != curves[k - 1, 0]:
                for i in range(n):
                    product[i] = 1.0
            out = product if curves[k, 0] > 0.0 else gain
            colour(p, n, int(curves[k, 1]), curves[k, 2], curves[k, 3], curves[k, 4], noise, shape, out)
            if curves[k, 0] > 0.0 and (k + 1 == curves.shape[0] or curves[k, 0] != curves[k + 1, 0]):
                for i in range(n):
                    fill[i] += product[i]

    toned = jit(tone)

    def hear(
        out: Any, p: Any, n: int, pcm: Any, bank: Any, gain: Any, beside: Any, at: Any, phase: Any
    ) -> None:
        """The sound at positions p + beside."""
        find(p, beside, n, bank.shape[1], bank.shape[0], at, phase)
        dot(out, at, phase, gain, n, pcm, bank)

    heard_at = jit(hear)

    def samples(
        out: Any,
        first: int,
        n: int,
        pcm: Any,
        maps: Any,
        curves: Any,
        bank: Any,
        noise: Any,
        step: Any,
        room: Any,
    ) -> None:
        """out[:n], samples [first, first + n) of the clip; `room` (9, n) is memory to work in."""
        gain, fill, p, weight, beside = room[0], room[1], room[2], room[3], room[4]
        heard, other = room[5], room[6]
        for i in range(n):
            gain[i], fill[i], weight[i], beside[i] = 1.0, 0.0, 0.0, 0.0
            if window > 0:
                beside[i] = ((first + i) % window + 0.5 - 0.5 * window) * step[0]
        if curves.shape[0] > 1:
            toned(first, n, gain, fill, p, other, maps, curves, noise)
        end, spliced = int(curves[0, 6]), False
        for row in range(end):
            spliced |= maps[row, 2] > 0.0
        start(p, first, n, True)
        move(p, weight, n, maps, 0, end, 0)
        heard_at(heard, p, n, pcm, bank, gain, beside, room[7], room[8])
        if spliced:
            start(p, first, n, True)
            move(p, weight, n, maps, 0, end, 1)
            heard_at(other, p, n, pcm, bank, gain, beside, room[7], room[8])
            for i in range(n):
                heard[i] += weight[i] * (other[i] - heard[i])
        for i in range(n):
            out[i] = gain[i] * heard[i] + fill[i]

    compiled: Jit = jit(samples)
    return compiled


def play_cpu(window: int = 0, hop: int = 0, centre: float = 0.0) -> Jit:
    """Fill `out` from `pcm` (n,): y(u) = g(u) · x(m(u)) + f(u).

    maps (R, 6), curves (1 + factors, 7), noise (m,) and step (1,) as `program.py` says; bank (q, K) is the filter.
    """
    fast = njit(fastmath=True)
    samples = player(njit, fast, reader(fast, njit(dots_cpu)), window, hop, centre)

    def run(out: Any, pcm: Any, maps: Any, curves: Any, bank: Any, noise: Any, step: Any) -> None:
        room = np.empty((9, BLOCK))
        for first in range(0, out.shape[0], BLOCK):
            n = min(BLOCK, out.shape[0] - first)
            samples(out[first : first + n], first, n, pcm, maps, curves, bank, noise, step, room)

    return run


def play_gpu(window: int = 0, hop: int = 0, centre: float = 0.0) -> Jit:
    """The same as a CUDA kernel: a grid's threads share the samples of a clip. Needs numba.cuda."""
    from numba import cuda, float64

    def device(function: Jit) -> Jit:
        # inlined, the kernel compiles without a device
        compiled: Jit = cuda.jit(function, device=True, inline="always")
        return compiled

    samples = player(device, device, reader(device, device(dots)), window, hop, centre)

    def run(out: Any, pcm: Any, maps: Any, curves: Any, bank: Any, noise: Any, step: Any) -> None:
        room = cuda.local.array((9, 1), float64)
        for i in range(cuda.grid(1), out.shape[0], cuda.gridsize(1)):
            samples(out[i : i + 1], i, 1, pcm, maps, curves, bank, noise, step, room)

    return run


def play(*inputs: Any, samples: int, device: str, windows: Windows = ()) -> Any:
    """The operator in a DALI graph: pcm (n,) float32, maps, curves, bank, noise, step -> (samples,) float32.

    Args:
        windows: (window, hop, centre), to put out windows of an STFT instead: see `player`.
    """
    return _operator(samples, device, windows)(*inputs)


@lru_cache
def _operator(samples: int, device: str, windows: Windows) -> Any:
    """Compiled once a process, not once a view and pipeline: Numba takes a few seconds."""

    def setup(outs: Any, ins: Any) -> None:
        for sample in range(len(outs[0])):
            outs[0][sample][0] = samples

    threads: dict[str, Any] = {
        "blocks": [math.ceil(samples / THREADS), 1, 1],
        "threads_per_block": [THREADS, 1, 1],
    }
    return NumbaFunction(
        run_fn=play_cpu(*windows) if device == "cpu" else play_gpu(*windows),
        setup_fn=setup,
        in_types=[types.FLOAT, types.FLOAT64, types.FLOAT64, types.FLOAT, types.FLOAT, types.FLOAT64],
        ins_ndim=[1, 2, 2, 2, 1, 1],
        out_types=[types.FLOAT],
        outs_ndim=[1],
        batch_processing=False,
        device=device,
        **(threads if device == "gpu" else {}),
    )
