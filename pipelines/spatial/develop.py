"""A clip's frames cut out, resized, coloured and blurred in one pass on the CPU, as an operator of a DALI graph.

DALI's own operators do the same on a GPU; on a CPU they take five to ten times as long.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from nvidia.dali import types
from nvidia.dali.plugin.numba.experimental import NumbaFunction

from .look import gaussian, soften, tint, twist
from .zoom import taps, zoom


def develop_cpu(out: Any, frames: Any, crop: Any, colour: Any, blur: Any) -> None:
    """Fill `out` (T, S, S, 3) from `frames` (T, H, W, 3), both uint8, with numbers as in `develop`."""
    height, width, size = frames.shape[1], frames.shape[2], out.shape[1]
    rows = taps(crop[1] * height, crop[3] * height, height, size)
    columns = taps(crop[0] * width, crop[2] * width, width, size)
    left, across = columns
    reach = abs(left[-1] - left[0]) + across.shape[1]
    line, matrix, sharp = np.empty(3 * reach, np.float32), twist(colour), np.empty((size, size, 3), np.uint8)
    neutral = colour[0] == 1 and colour[1] == 1 and colour[2] == 1 and colour[3] == 0
    weights = gaussian(max(blur[0], 1e-3))
    for t in range(frames.shape[0]):
        frame = sharp if blur[0] > 0 else out[t]
        zoom(frame, frames[t], rows, columns, line)
        if not neutral:
            tint(frame, matrix)
        if blur[0] > 0:
            soften(out[t], frame, weights)


def develop(frames: Any, crop: Any, colour: Any, blur: Any, *, size: int) -> Any:
    """The operator: a clip (T, H, W, 3) uint8 -> (T, size, size, 3) uint8.

    Args:
        crop: (4,) float32: left, top, right, bottom as shares of width and height; left > right mirrors.
        colour: (4,) float32: factors of brightness, contrast and saturation, and the turn of the hue in degrees.
        blur: (1,) float32, sigma of a Gaussian in output pixels; 0 is none.
    """
    return _operator(size)(frames, crop, colour, blur)


@lru_cache
def _operator(size: int) -> Any:
    """Compiled once a process, not once a view and pipeline: Numba takes seconds."""

    def setup(outs: Any, ins: Any) -> None:
        for sample in range(len(outs[0])):
            shape = outs[0][sample]
            shape[0], shape[1], shape[2], shape[3] = ins[0][sample][0], size, size, 3

    return NumbaFunction(
        run_fn=develop_cpu,
        setup_fn=setup,
        in_types=[types.UINT8, types.FLOAT, types.FLOAT, types.FLOAT],
        ins_ndim=[4, 1, 1, 1],
        out_types=[types.UINT8],
        outs_ndim=[4],
        batch_processing=False,
        device="cpu",
    )
