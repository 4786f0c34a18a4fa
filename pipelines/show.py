"""The last operator of a clip's picture: frames through gain, fill and noise, normalised, in one pass.

The picture's counterpart of `play`: each frame has its row of numbers, drawn by the plan. The arithmetic is plain
Python, compiled by Numba for the CPU and for CUDA as DALI's Numba operator.

Noise is no state but a function of a frame's key, the pixel and the channel: a frame that is shown again, with its
key, shows its noise again, on every device. Half a hash chooses one of 65,536 equally likely normal numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numba import njit
from nvidia.dali import fn, types
from nvidia.dali.plugin.numba.experimental import NumbaFunction

from .curves import quantiles

WORD = 0xFFFFFFFF
BLOCKS, THREADS = 512, 128  # a clip's grid


def mix(x: int) -> int:
    """A permutation of 32-bit integers that looks random: lowbias32 of C. Wellons' hash-prospector."""
    x ^= x >> 16
    x = x * 0x7FEB352D & WORD
    x ^= x >> 15
    x = x * 0x846CA68B & WORD
    return x ^ x >> 16


def level(row: Any, channel: int, levels: Any) -> tuple[float, float]:
    """The factor and the summand that take a channel from uint8 to its normalised value, but for the noise."""
    gain, fill, amplitude = np.float32(row[0]), np.float32(row[1]), np.float32(row[2])
    white, share, zero = levels[channel, 0], levels[channel, 1], levels[channel, 2]
    return gain * white, fill * share + amplitude * zero - zero


_mix, _level = njit(mix), njit(level)


@njit  # type: ignore[untyped-decorator]
def _seed(key: float) -> Any:
    number = int(key)
    return _mix(_mix(number >> 32) ^ number & WORD)


@njit(fastmath=True)  # type: ignore[untyped-decorator]
def _plain(out: Any, plane: Any, factor: Any, summand: Any) -> None:
    """One channel without noise: contiguous and without branches, so that LLVM vectorises it."""
    for p in range(len(out)):
        out[p] = np.float32(plane[p]) * factor + summand


@njit(fastmath=True)  # type: ignore[untyped-decorator]
def _add_noise(red: Any, green: Any, blue: Any, seed: int, amplitude: Any, normals: Any) -> None:
    for p in range(len(red)):
        both, third = _mix(seed ^ 2 * p), _mix(seed ^ 2 * p + 1)
        red[p] += amplitude * normals[both & 0xFFFF]
        green[p] += amplitude * normals[both >> 16]
        blue[p] += amplitude * normals[third & 0xFFFF]


@njit  # type: ignore[untyped-decorator]
def show_frame(out: Any, t: int, frame: Any, row: Any, levels: Any, normals: Any) -> None:
    """Fill out[:, t] (3, H, W) from `frame` (3, H, W) in [0, 255]; other arguments as in `show_cpu`."""
    for c in range(3):
        factor, summand = _level(row, c, levels)
        _plain(out[c, t].reshape(-1), frame[c].reshape(-1), factor, summand)
    if row[2] != 0.0:
        red, green, blue = out[0, t].reshape(-1), out[1, t].reshape(-1), out[2, t].reshape(-1)
        _add_noise(red, green, blue, _seed(row[3]), np.float32(row[2]), normals)


def show_cpu(out: Any, frames: Any, tone: Any, levels: Any, normals: Any) -> None:
    """Fill `out` (3, T, H, W) from `frames` (T, H, W, 3), `tone` (T, 4) as in `show`.

    levels (3, 3) holds 1 / 255 std, 1 / std and mean / std of each channel, normals (65536,) the normal's quantiles.
    """
    for t in range(frames.shape[0]):
        planes = np.ascontiguousarray(frames[t].transpose((2, 0, 1)))
        show_frame(out, t, planes, tone[t], levels, normals)


def show_gpu() -> Any:
    """The same as a CUDA kernel: a grid's blocks share the rows of a clip, threads a row. Needs numba.cuda."""
    from numba import cuda

    # inlined, the kernel compiles without a device
    mix_gpu, level_gpu = (cuda.jit(f, device=True, inline="always") for f in (mix, level))

    def kernel(out: Any, frames: Any, tone: Any, levels: Any, normals: Any) -> None:
        count, height, width, _ = frames.shape
        for line in range(cuda.blockIdx.x, count * height, cuda.gridDim.x):
            t, y = line // height, line % height
            amplitude, key = np.float32(tone[t, 2]), int(tone[t, 3])
            seed = mix_gpu(mix_gpu(key >> 32) ^ key & WORD)
            for x in range(cuda.threadIdx.x, width, cuda.blockDim.x):
                for channel in range(3):
                    factor, value = level_gpu(tone[t], channel, levels)
                    value += factor * np.float32(frames[t, y, x, channel])
                    if amplitude != 0.0:
                        bits = mix_gpu(seed ^ 2 * (y * width + x) + channel // 2)
                        value += amplitude * normals[bits >> 16 * (channel % 2) & 0xFFFF]
                    out[channel, t, y, x] = value

    return kernel


def show(frames: Any, tone: Any, *, mean: Sequence[float], std: Sequence[float], device: str) -> Any:
    """The operator in a DALI graph: a clip (T, H, W, 3) uint8 -> (3, T, H, W) float32, normalised.

    With n ~ N(0, 1) for every pixel and channel, from the key alone:

        ((g · x / 255 + w) + a · (mean + std · n) - mean) / std

    Args:
        tone: (T, 4) float64, each frame's gain g, constant fill w as a share of white, amplitude a of the noise,
            and its key, an integer in [0, 2^53).
        mean, std: of each channel, as shares of white.
    """
    return fn.reshape(_operator(device)(frames, tone, *constants(mean, std, device)), layout="CFHW")


def constants(mean: Sequence[float], std: Sequence[float], device: str) -> tuple[Any, ...]:
    """`levels` and `normals` of `show_cpu` in a DALI graph."""
    levels = np.stack([1 / (255 * np.asarray(std)), 1 / np.asarray(std), np.divide(mean, std)], axis=1)
    return tuple(types.Constant(value.astype(np.float32), device=device) for value in (levels, quantiles()))


@lru_cache
def _operator(device: str) -> Any:
    """Compiled once a process, not once a view and pipeline: Numba takes about a second."""

    def setup(outs: Any, ins: Any) -> None:
        for sample in range(len(outs[0])):
            outs[0][sample][0] = ins[0][sample][3]
            for axis in range(3):
                outs[0][sample][1 + axis] = ins[0][sample][axis]

    grid: dict[str, Any] = {"blocks": [BLOCKS, 1, 1], "threads_per_block": [THREADS, 1, 1]}
    return NumbaFunction(
        run_fn=show_cpu if device == "cpu" else show_gpu(),
        setup_fn=setup,
        in_types=[types.UINT8, types.FLOAT64, types.FLOAT, types.FLOAT],
        ins_ndim=[4, 2, 2, 1],
        out_types=[types.FLOAT],
        outs_ndim=[4],
        batch_processing=False,
        device=device,
        **(grid if device == "gpu" else {}),
    )
