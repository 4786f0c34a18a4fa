"""Planes of decoded frames to RGB on a GPU, for DALI's operators: the first step of what `develop` does on a CPU."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from nvidia.dali import fn, types
from nvidia.dali.plugin.numba.experimental import NumbaFunction

BLOCKS, THREADS = 1024, 128  # a sample's grid


def rgb_gpu() -> Any:
    """A CUDA kernel: fill `out` (U, h, w, 3) uint8 from `planes` (U, 3h/2, w) and `matrix` (3, 4) float32.

    A grid's blocks share the rows, threads a row. Chroma is interpolated between its four nearest. Needs numba.cuda.
    """
    from numba import cuda

    def kernel(out: Any, planes: Any, matrix: Any) -> None:
        count, height, width, _ = out.shape
        last_row, last_column = height // 2 - 1, width // 2 - 1
        quarter, half = np.float32(0.25), np.float32(0.5)
        for line in range(cuda.blockIdx.x, count * height, cuda.gridDim.x):
            n, y = line // height, line % height
            # a pixel lies a quarter beside its own chroma, towards the neighbour on its side
            near, far = y // 2, min(max(y // 2 + 2 * (y % 2) - 1, 0), last_row)
            for x in range(cuda.threadIdx.x, width, cuda.blockDim.x):
                at, beside = x // 2, min(max(x // 2 + 2 * (x % 2) - 1, 0), last_column)
                luma = np.float32(planes[n, y, x])
                for channel in range(3):
                    total = matrix[channel, 0] * luma + matrix[channel, 3]
                    for c in range(2):
                        begin = c * (width // 2)
                        a = np.float32(planes[n, height + near, begin + at])
                        b = np.float32(planes[n, height + near, begin + beside])
                        d = np.float32(planes[n, height + far, begin + at])
                        e = np.float32(planes[n, height + far, begin + beside])
                        above, below = a + quarter * (b - a), d + quarter * (e - d)
                        total += matrix[channel, 1 + c] * (above + quarter * (below - above))
                    out[n, y, x, channel] = np.uint8(
                        min(max(total, np.float32(0.0)), np.float32(255.0)) + half
                    )

    return kernel


def rgb(planes: Any, matrix: Any) -> Any:
    """The operator in a DALI graph, on the GPU: (U, 3h/2, w) uint8 and (3, 4) float32 -> (U, h, w, 3) uint8."""
    return fn.reshape(_operator()(planes, matrix), layout="FHWC")


@lru_cache
def _operator() -> Any:
    def setup(outs: Any, ins: Any) -> None:
        for sample in range(len(outs[0])):
            shape = outs[0][sample]
            shape[0], shape[1] = ins[0][sample][0], 2 * ins[0][sample][1] // 3
            shape[2], shape[3] = ins[0][sample][2], 3

    return NumbaFunction(
        run_fn=rgb_gpu(),
        setup_fn=setup,
        in_types=[types.UINT8, types.FLOAT],
        ins_ndim=[3, 2],
        out_types=[types.UINT8],
        outs_ndim=[4],
        batch_processing=False,
        device="gpu",
        blocks=[BLOCKS, 1, 1],
        threads_per_block=[THREADS, 1, 1],
    )
