"""The pictures of a sample in the DALI graph: cut out, resized, coloured, blurred, played through gain and fill.

Every number comes from the plan and holds for all frames of a clip, but for `tone`, which has a row a frame. On a CPU
`develop` does all of it in one pass; on a GPU, and for what DALI's own decoders put out, a chain of DALI's operators.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from nvidia.dali import fn, types
from nvidia.dali.pipeline import do_not_convert

from .show import show
from .spatial.develop import develop
from .spatial.rgb import rgb

if TYPE_CHECKING:
    from .config import DataConfig, VideoConfig


def pictures(
    planes: Any, matrix: Any, index: Any, look: Any, tone: Any, config: DataConfig, device: str
) -> Any:
    """All views' clips, (V, 3, T, S, S) float32, of frames that were decoded on the host.

    On a GPU, blur needs `enable_conditionals` and a caller that DALI converts: it is left out where sigma is 0.

    Args:
        planes, matrix: (U, 3h/2, w) uint8 and (3, 4) float32, see `planes.py`. All inputs lie on the host.
        index: (V, T) int32, which of the U each view shows at each instant.
        look: (V, 9) float32: left, top, right, bottom as shares of width and height (left > right mirrors), factors of
            brightness, contrast and saturation, the hue's turn in degrees, sigma of a Gaussian in output pixels or 0.
        tone: (V, T, 4) float64, rows as in `show`; None plays the frames as they are.
    """
    if device == "gpu":
        return operators(rgb(planes.gpu(), matrix.gpu()), index, look, tone, config, device)
    return _developed(planes, matrix, index, look, tone, config)


@do_not_convert  # type: ignore[untyped-decorator]
def _developed(planes: Any, matrix: Any, index: Any, look: Any, tone: Any, config: DataConfig) -> Any:
    video = config.video
    if tone is None:
        plain = np.tile(np.array([1, 0, 0, 0], np.float32), (len(config.views), video.frames, 1))
        tone = fn.cast(types.Constant(plain, device="cpu"), dtype=types.FLOAT64)
    return develop(planes, matrix, index, look, tone, size=video.size, mean=video.mean, std=video.std)


def operators(frames: Any, index: Any, look: Any, tone: Any, config: DataConfig, device: str) -> Any:
    """The same of RGB frames (U, H, W, 3) uint8 on `device`, by DALI's operators."""
    clips = []
    for v in range(len(config.views)):
        shown = fn.sequence_rearrange(frames, new_order=index[v])
        clips.append(_normalised(spatial(shown, look[v], config.video), _row(tone, v), config.video, device))
    return fn.stack(*clips)


@do_not_convert  # type: ignore[untyped-decorator]
def _row(tone: Any, view: int) -> Any:
    return None if tone is None else tone[view]


def spatial(frames: Any, look: Any, video: VideoConfig) -> Any:
    """(T, S, S, 3) uint8: cut out and resized; coloured and blurred iff the config asks for it."""
    shown = _cut(frames, look, video.size)
    if video.jitters:
        shown = _coloured(shown, look)
    if video.blur > 0:
        shown = _blurred(shown, look[8])
    return shown


@do_not_convert  # type: ignore[untyped-decorator]  # DALI's conversion knows no generators
def _cut(frames: Any, look: Any, size: int) -> Any:
    """Crop, mirror and resize in one step, low-passed where it gets smaller."""
    left, top, right, bottom = (look[side] for side in range(4))
    return fn.resize(
        fn.reshape(frames, layout="FHWC"),
        size=[size, size],
        roi_start=fn.stack(top, left),
        roi_end=fn.stack(bottom, right),  # an end left of its start mirrors
        roi_relative=True,
        antialias=True,
    )


def _coloured(frames: Any, look: Any) -> Any:
    return fn.color_twist(frames, brightness=look[4], contrast=look[5], saturation=look[6], hue=look[7])


def _blurred(frames: Any, sigma: Any) -> Any:
    """The window reaches 3 sigma, rounded up, to each side; beyond the border the picture is mirrored."""
    if sigma > 0:
        return fn.gaussian_blur(frames, sigma=sigma)
    return frames


@do_not_convert  # type: ignore[untyped-decorator]
def _normalised(frames: Any, tone: Any, video: VideoConfig, device: str) -> Any:
    if tone is not None:
        tone = tone.gpu() if device == "gpu" else tone
        return show(frames, tone, mean=video.mean, std=video.std, device=device)
    return fn.crop_mirror_normalize(
        frames,
        dtype=types.FLOAT,
        output_layout="CFHW",
        mean=[255 * m for m in video.mean],
        std=[255 * s for s in video.std],
    )
