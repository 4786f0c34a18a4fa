"""The pictures of a sample in the DALI graph: cut out, resized, coloured, blurred, played through gain and fill.

Every number comes from the plan and holds for all frames of a clip, but for `tone`, which has a row a frame. DALI's
operators do the spatial part on a GPU; on a CPU `develop` does all of it in one pass and a small part of their time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from nvidia.dali import fn, types
from nvidia.dali.pipeline import do_not_convert

from .show import show
from .spatial.develop import develop

if TYPE_CHECKING:
    from .config import DataConfig, VideoConfig


def pictures(frames: Any, index: Any, look: Any, tone: Any, config: DataConfig, device: str) -> Any:
    """All views' clips, (V, 3, T, S, S) float32.

    On a GPU, blur needs `enable_conditionals` and a caller that DALI converts: it is left out where sigma is 0.

    Args:
        frames: (U, H, W, 3) uint8, on `device`; all other inputs lie on the host.
        index: (V, T) int32, which of the U each view shows at each instant.
        look: (V, 9) float32: left, top, right, bottom as shares of width and height (left > right mirrors), factors of
            brightness, contrast and saturation, the hue's turn in degrees, sigma of a Gaussian in output pixels or 0.
        tone: (V, T, 4) float64, rows as in `show`; None plays the frames as they are.
    """
    if device == "cpu":
        return _developed(frames, index, look, tone, config)
    clips = []
    for v in range(len(config.views)):
        shown = fn.sequence_rearrange(frames, new_order=index[v])
        clips.append(_normalised(operators(shown, look[v], config.video), _row(tone, v), config.video))
    return fn.stack(*clips)


@do_not_convert  # type: ignore[untyped-decorator]
def _row(tone: Any, view: int) -> Any:
    return None if tone is None else tone[view]


@do_not_convert  # type: ignore[untyped-decorator]
def _developed(frames: Any, index: Any, look: Any, tone: Any, config: DataConfig) -> Any:
    video = config.video
    if tone is None:
        plain = np.tile(np.array([1, 0, 0, 0], np.float32), (len(config.views), video.frames, 1))
        tone = fn.cast(types.Constant(plain, device="cpu"), dtype=types.FLOAT64)
    return develop(frames, index, look, tone, size=video.size, mean=video.mean, std=video.std)


def operators(frames: Any, look: Any, video: VideoConfig) -> Any:
    """(T, S, S, 3) uint8: the spatial part with DALI's operators, on whichever device the frames are.

    Colour and blur are done iff the config asks for them.
    """
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
def _normalised(frames: Any, tone: Any, video: VideoConfig) -> Any:
    if tone is not None:
        return show(frames, tone.gpu(), mean=video.mean, std=video.std, device="gpu")
    return fn.crop_mirror_normalize(
        frames,
        dtype=types.FLOAT,
        output_layout="CFHW",
        mean=[255 * m for m in video.mean],
        std=[255 * s for s in video.std],
    )
