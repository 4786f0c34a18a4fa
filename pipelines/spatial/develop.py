"""All pictures of a sample on the CPU: cut out, resized, coloured, blurred, toned and normalised in one pass.

DALI's own operators do the same on a GPU; on a CPU they take five to ten times as long, and each copies every frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from nvidia.dali import fn, types
from nvidia.dali.plugin.numba.experimental import NumbaFunction

from ..show import constants, show_frame
from .look import gaussian, soften, tint, twist
from .zoom import taps, zoom


def develop_cpu(out: Any, index: Any, frames: Any, look: Any, tone: Any, levels: Any, normals: Any) -> None:
    """Fill `out` (V, 3, T, S, S) from `frames` (U, H, W, 3) uint8, with numbers as in `develop`."""
    height, width, count, size = frames.shape[1], frames.shape[2], out.shape[2], out.shape[3]
    sharp, soft = np.empty((size, size, 3), np.uint8), np.empty((size, size, 3), np.uint8)
    for v in range(out.shape[0]):
        (left, top, right, bottom), colour, sigma = look[v, :4], look[v, 4:8], look[v, 8]
        rows, columns = (
            taps(top * height, bottom * height, height, size),
            taps(left * width, right * width, width, size),
        )
        reach = abs(columns[0][-1] - columns[0][0]) + columns[1].shape[1]
        line, matrix, weights = np.empty(3 * reach, np.float32), twist(colour), gaussian(max(sigma, 1e-3))
        neutral = colour[0] == 1 and colour[1] == 1 and colour[2] == 1 and colour[3] == 0
        for t in range(count):
            shown = index[v, t]
            if t == 0 or shown != index[v, t - 1]:  # a frame that is held is made once
                zoom(sharp, frames[shown], rows, columns, line)
                if not neutral:
                    tint(sharp, matrix)
                if sigma > 0:
                    soften(soft, sharp, weights)
            show_frame(out[v], t, soft if sigma > 0 else sharp, tone[v, t], levels, normals)


def develop(
    frames: Any, index: Any, look: Any, tone: Any, *, size: int, mean: Sequence[float], std: Sequence[float]
) -> Any:
    """The operator: decoded frames (U, H, W, 3) uint8 -> (V, 3, T, size, size) float32.

    Args:
        index: (V, T) int32: which frame each view shows at each instant.
        look: (V, 9) float32: left, top, right, bottom as shares of width and height (left > right mirrors), factors of
            brightness, contrast and saturation, the hue's turn in degrees, sigma of a Gaussian in output pixels or 0.
        tone: (V, T, 4) float64, rows as in `show`.
    """
    clips = _operator(size)(index, frames, look, tone, *constants(mean, std, "cpu"))
    return fn.reshape(clips, layout="NCFHW")


@lru_cache
def _operator(size: int) -> Any:
    """Compiled once a process, not once a pipeline: Numba takes seconds."""

    def setup(outs: Any, ins: Any) -> None:
        for sample in range(len(outs[0])):
            shape = outs[0][sample]
            shape[0], shape[1], shape[2] = ins[0][sample][0], 3, ins[0][sample][1]
            shape[3], shape[4] = size, size

    return NumbaFunction(
        run_fn=develop_cpu,
        setup_fn=setup,
        in_types=[types.INT32, types.UINT8, types.FLOAT, types.FLOAT64, types.FLOAT, types.FLOAT],
        ins_ndim=[2, 4, 2, 3, 2, 1],
        out_types=[types.FLOAT],
        outs_ndim=[5],
        batch_processing=False,
        device="cpu",
    )
