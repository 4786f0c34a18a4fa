"""A clip's picture in the DALI graph: cut out, resized, coloured, blurred, played through gain and fill, normalised.

Every number comes from the plan and holds for all frames of a clip, but for `tone`, which has a row a frame. DALI's
operators do the spatial part on a GPU; on a CPU `develop` does the same in one pass and a small part of their time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from nvidia.dali import fn, types
from nvidia.dali.pipeline import do_not_convert

from .show import show
from .spatial.develop import develop

if TYPE_CHECKING:
    from .config import VideoConfig

NEUTRAL = np.array([1, 1, 1, 0], np.float32)  # colour that changes nothing


def picture(
    frames: Any, crop: Any, colour: Any, blur: Any, tone: Any, video: VideoConfig, device: str
) -> Any:
    """One view's clip, (3, T, S, S) float32 of layout CFHW.

    On a GPU, blur needs `enable_conditionals` and a caller that DALI converts: it is left out where sigma is 0.

    Args:
        frames: (T, H, W, 3) uint8, on `device`; all other inputs lie on the host.
        crop: (4,) float32: left, top, right, bottom as shares of width and height; left > right mirrors.
        colour: (4,) float32: factors of brightness, contrast and saturation, and the turn of the hue in degrees.
            Unused, and may be None, unless `video.jitters`.
        blur: float32, sigma of a Gaussian in output pixels; 0 is none. Unused, and may be None, unless `video.blur`.
        tone: (T, 4) float64, rows as in `show`; None plays the frames as they are.
    """
    if device == "cpu":
        shown = _developed(frames, crop, colour, blur, video)
    else:
        shown = operators(frames, crop, colour, blur, video)
    return _normalised(shown, tone, video, device)


@do_not_convert  # type: ignore[untyped-decorator]
def _developed(frames: Any, crop: Any, colour: Any, blur: Any, video: VideoConfig) -> Any:
    colour = colour if video.jitters else types.Constant(NEUTRAL, device="cpu")
    sigma = (
        fn.reshape(blur, shape=[1])
        if video.blur > 0
        else types.Constant(np.zeros(1, np.float32), device="cpu")
    )
    return develop(frames, crop, colour, sigma, size=video.size)


def operators(frames: Any, crop: Any, colour: Any, blur: Any, video: VideoConfig) -> Any:
    """(T, S, S, 3) uint8: the spatial part with DALI's operators, on whichever device the frames are."""
    shown = _cut(frames, crop, video.size)
    if video.jitters:
        shown = _coloured(shown, colour)
    if video.blur > 0:
        shown = _blurred(shown, blur)
    return shown


@do_not_convert  # type: ignore[untyped-decorator]  # DALI's conversion knows no generators
def _cut(frames: Any, crop: Any, size: int) -> Any:
    """Crop, mirror and resize in one step, low-passed where it gets smaller."""
    left, top, right, bottom = (crop[side] for side in range(4))
    return fn.resize(
        fn.reshape(frames, layout="FHWC"),
        size=[size, size],
        roi_start=fn.stack(top, left),
        roi_end=fn.stack(bottom, right),  # an end left of its start mirrors
        roi_relative=True,
        antialias=True,
    )


def _coloured(frames: Any, colour: Any) -> Any:
    return fn.color_twist(
        frames, brightness=colour[0], contrast=colour[1], saturation=colour[2], hue=colour[3]
    )


def _blurred(frames: Any, sigma: Any) -> Any:
    """The window reaches 3 sigma, rounded up, to each side; beyond the border the picture is mirrored."""
    if sigma > 0:
        return fn.gaussian_blur(frames, sigma=sigma)
    return frames


@do_not_convert  # type: ignore[untyped-decorator]
def _normalised(frames: Any, tone: Any, video: VideoConfig, device: str) -> Any:
    if tone is None and device == "cpu":  # there `show` is faster than crop_mirror_normalize
        plain = np.tile(np.array([1, 0, 0, 0], np.float32), (video.frames, 1))
        tone = fn.cast(types.Constant(plain, device="cpu"), dtype=types.FLOAT64)
    if tone is not None:
        rows = tone.gpu() if device == "gpu" else tone
        return show(frames, rows, mean=video.mean, std=video.std, device=device)
    return fn.crop_mirror_normalize(
        frames,
        dtype=types.FLOAT,
        output_layout="CFHW",
        mean=[255 * m for m in video.mean],
        std=[255 * s for s in video.std],
    )
