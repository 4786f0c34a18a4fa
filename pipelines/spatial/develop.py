"""All pictures of a sample on the CPU: cut out, resized, coloured, blurred, toned and normalised in one pass.

They come as decoders leave them, in planes of luma and halved chroma: half the bytes of RGB, and the step to RGB costs
little once the picture is small. DALI's own operators do the same on a GPU; on a CPU they take many times as long.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from nvidia.dali import fn, types
from nvidia.dali.plugin.numba.experimental import NumbaFunction

from ..lanes import LANES
from ..show import constants, show_frame
from .look import gaussian, soften, tint, twist
from .zoom import taps, zoom


def develop_cpu(out: Any, index: Any, planes: Any, look: Any, tone: Any, colours: Any, normals: Any) -> None:
    """Fill `out` (V, 3, T, S, S) from `planes` (U, 3h/2, w) uint8, with numbers as in `develop`.

    colours (3, 7): the matrix and, as in `show`, the levels.
    """
    height, width, count, size = 2 * planes.shape[1] // 3, planes.shape[2], out.shape[2], out.shape[3]
    sharp, soft = np.empty((3, size, size), np.float32), np.empty((3, size, size), np.float32)
    room = np.empty(2 * LANES * width, np.float32)
    for v in range(out.shape[0]):
        (left, top, right, bottom), colour, sigma = look[v, :4], look[v, 4:8], look[v, 8]
        # shares of the picture are shares of its halved chroma
        rows = taps(top * height, bottom * height, height, size)
        columns = taps(left * width, right * width, width, size)
        half_rows = taps(top * (height // 2), bottom * (height // 2), height // 2, size)
        half_columns = taps(left * (width // 2), right * (width // 2), width // 2, size)
        matrix, weights = twist(colour), gaussian(max(sigma, 1e-3))
        blur_room = np.empty((2, size * (size + len(weights))), np.float32)
        neutral = colour[0] == 1 and colour[1] == 1 and colour[2] == 1 and colour[3] == 0
        for t in range(count):
            shown = index[v, t]
            if t == 0 or shown != index[v, t - 1]:  # a frame that is held is made once
                pixels, chroma = planes[shown].reshape(-1), height * width
                zoom(sharp[0], pixels, 0, width, rows, columns, room)
                zoom(sharp[1], pixels, chroma, width, half_rows, half_columns, room)
                zoom(sharp[2], pixels, chroma + width // 2, width, half_rows, half_columns, room)
                tint(sharp, colours)
                if not neutral:
                    tint(sharp, matrix)
                if sigma > 0:
                    for c in range(3):
                        soften(soft[c], sharp[c], weights, blur_room)
            show_frame(out[v], t, soft if sigma > 0 else sharp, tone[v, t], colours[:, 4:], normals)


def develop(
    planes: Any,
    matrix: Any,
    index: Any,
    look: Any,
    tone: Any,
    *,
    size: int,
    mean: Sequence[float],
    std: Sequence[float],
) -> Any:
    """The operator: decoded frames as planes (U, 3h/2, w) uint8, see `planes.py` -> (V, 3, T, size, size) float32.

    Args:
        matrix: (3, 4) float32, from the planes' values to RGB in [0, 255].
        index: (V, T) int32: which frame each view shows at each instant.
        look: (V, 9) float32: left, top, right, bottom as shares of width and height (left > right mirrors), factors of
            brightness, contrast and saturation, the hue's turn in degrees, sigma of a Gaussian in output pixels or 0.
        tone: (V, T, 4) float64, rows as in `show`.
    """
    levels, normals = constants(mean, std, "cpu")
    colours = fn.cat(matrix, levels, axis=1)  # one input: the operator takes six at most
    clips = _operator(size)(index, planes, look, tone, colours, normals)
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
        ins_ndim=[2, 3, 2, 3, 2, 1],
        out_types=[types.FLOAT],
        outs_ndim=[5],
        batch_processing=False,
        device="cpu",
    )
