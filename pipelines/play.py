"""The fused timeline operator: a clip's sound played through map, gain and fill in one pass, inside the DALI graph.

The host compiles each timeline to a small table (`TimeMap.table`); the device evaluates it for every output sample.
One plain Python function holds the arithmetic. Numba compiles it for the CPU and for CUDA as DALI's Numba operator.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

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


def _sample(i: int, pcm: Any, table: Any, gain: Any, fill: Any) -> float:
    """y(u) = g(u) · x(m(u)) + f(u); silence outside the source. Gain and fill hold one value or one a sample."""
    at = math.floor(_position(i + 0.5, table))
    x = pcm[at] if 0 <= at < pcm.shape[0] else 0.0
    return gain[min(i, gain.shape[0] - 1)] * x + fill[min(i, fill.shape[0] - 1)]  # type: ignore[no-any-return]


_sample_cpu = njit(_sample)


def play_cpu(out: Any, pcm: Any, table: Any, gain: Any, fill: Any) -> None:
    """Fill `out` (S,) from `pcm` (n,) through the map table (rows, 5), gain and fill ((1,) or (S,))."""
    for i in range(out.shape[0]):
        out[i] = _sample_cpu(i, pcm, table, gain, fill)


def play_gpu() -> Any:
    """The same as a CUDA kernel; one thread strides over the samples of a clip. Built on demand: needs numba.cuda."""
    from numba import cuda

    position_gpu = cuda.jit(position, device=True, inline="always")  # inlined, it compiles without a device

    def kernel(out: Any, pcm: Any, table: Any, gain: Any, fill: Any) -> None:
        for i in range(cuda.grid(1), out.shape[0], cuda.gridsize(1)):
            at = int(math.floor(position_gpu(i + 0.5, table)))  # noqa: RUF046  # CUDA's floor is a float
            x = pcm[at] if 0 <= at < pcm.shape[0] else 0.0
            out[i] = gain[min(i, gain.shape[0] - 1)] * x + fill[min(i, fill.shape[0] - 1)]

    return kernel


def play(pcm: Any, table: Any, gain: Any, fill: Any, *, samples: int, device: str) -> Any:
    """The operator in a DALI graph: (n,) float32 PCM -> (samples,) float32."""
    return _operator(samples, device)(pcm, table, gain, fill)


@lru_cache
def _operator(samples: int, device: str) -> Any:
    """Compiled once a process, not once a view and pipeline: Numba takes about a second."""

    def setup(outs: Any, ins: Any) -> None:
        for sample in range(len(outs[0])):
            outs[0][sample][0] = samples

    threads: dict[str, Any] = {"blocks": [math.ceil(samples / THREADS), 1, 1], "threads_per_block": [THREADS, 1, 1]}
    return NumbaFunction(
        run_fn=play_cpu if device == "cpu" else play_gpu(),
        setup_fn=setup,
        in_types=[types.FLOAT, types.FLOAT64, types.FLOAT, types.FLOAT],
        ins_ndim=[1, 2, 1, 1],
        out_types=[types.FLOAT],
        outs_ndim=[1],
        batch_processing=False,
        device=device,
        **(threads if device == "gpu" else {}),
    )
