"""The fused timeline operator: a clip's sound resampled and played through map, gain and fill in one pass.

The host compiles each timeline to a small table (`TimeMap.table`) and looks up the filter for its rate (`resample`);
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

THREADS = 256


def position(p: float, table: Any) -> float:
    """Where output position `p` looks in the source array."""
    row, rows = 0, table.shape[0]
    while row < rows:
        stage, hold = table[row, 0], table[row, 1]
        q = hold * math.floor(p / hold) if hold > 0.0 else p
        while row + 1 < rows and table[row + 1, 0] == stage and table[row + 1, 2] <= q:
            row += 1
        p = table[row, 3] + table[row, 4] * (q - table[row, 2])
        while row < rows and table[row, 0] == stage:
            row += 1
    return p


_position = njit(position)


def read(x: float, pcm: Any, bank: Any) -> float:
    """The sound at position `x`, through the taps of its phase; silence outside the source."""
    phases, taps = bank.shape
    # the nearest phase; half-way cases all go one way, or rounding errors would make a clip jitter
    q = int(math.floor((x - 0.5) * phases + 0.5 + 1e-6))  # noqa: RUF046  # on CUDA floor gives a float
    first = q // phases - (taps - 1) // 2
    low, high = max(0, -first), max(0, min(taps, pcm.shape[0] - first))
    weights, around = bank[q % phases, low:high], pcm[first + low : first + high]
    total = np.float32(0.0)
    for k in range(len(weights)):
        total += weights[k] * around[k]
    return total  # type: ignore[return-value]


_read = njit(fastmath=True)(read)  # sums of taps may be reordered, so that they are vectorised


def play_cpu(out: Any, pcm: Any, table: Any, bank: Any, gain: Any, fill: Any) -> None:
    """Fill `out` (S,) from `pcm` (n,): y(u) = g(u) · x(m(u)) + f(u).

    table (rows, 5) is the map, bank (q, K) the resampling filter; gain and fill hold one value or one a sample.
    """
    for i in range(out.shape[0]):
        x = _read(_position(i + 0.5, table), pcm, bank)
        out[i] = gain[min(i, gain.shape[0] - 1)] * x + fill[min(i, fill.shape[0] - 1)]


def play_gpu() -> Any:
    """The same as a CUDA kernel: a grid's threads share the samples of a clip. Needs numba.cuda."""
    from numba import cuda

    # inlined, the kernel compiles without a device
    position_gpu, read_gpu = (cuda.jit(f, device=True, inline="always") for f in (position, read))

    def kernel(out: Any, pcm: Any, table: Any, bank: Any, gain: Any, fill: Any) -> None:
        for i in range(cuda.grid(1), out.shape[0], cuda.gridsize(1)):
            x = read_gpu(position_gpu(i + 0.5, table), pcm, bank)
            out[i] = gain[min(i, gain.shape[0] - 1)] * x + fill[min(i, fill.shape[0] - 1)]

    return kernel


def play(pcm: Any, table: Any, bank: Any, gain: Any, fill: Any, *, samples: int, device: str) -> Any:
    """The operator in a DALI graph: (n,) float32 PCM -> (samples,) float32."""
    return _operator(samples, device)(pcm, table, bank, gain, fill)


@lru_cache
def _operator(samples: int, device: str) -> Any:
    """Compiled once a process, not once a view and pipeline: Numba takes about a second."""

    def setup(outs: Any, ins: Any) -> None:
        for sample in range(len(outs[0])):
            outs[0][sample][0] = samples

    threads: dict[str, Any] = {
        "blocks": [math.ceil(samples / THREADS), 1, 1],
        "threads_per_block": [THREADS, 1, 1],
    }
    return NumbaFunction(
        run_fn=play_cpu if device == "cpu" else play_gpu(),
        setup_fn=setup,
        in_types=[types.FLOAT, types.FLOAT64, types.FLOAT, types.FLOAT, types.FLOAT],
        ins_ndim=[1, 2, 2, 1, 1],
        out_types=[types.FLOAT],
        outs_ndim=[1],
        batch_processing=False,
        device=device,
        **(threads if device == "gpu" else {}),
    )
