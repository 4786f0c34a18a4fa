"""The arrays that pass from the source to the graph for one sample: one list, read by both sides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from nvidia.dali import types

from .config import DataConfig

DTYPES = {
    np.uint8: types.UINT8,
    np.bool_: types.BOOL,
    np.int32: types.INT32,
    np.int64: types.INT64,
    np.float32: types.FLOAT,
    np.float64: types.FLOAT64,
}
STAGES = ("open", "video", "audio")  # what `timing` holds, seconds
Arrays = dict[str, Any]  # name -> array or NumPy scalar
PLAYED = (  # what the timeline operator is given for each view, in its order
    ("pcm", np.float32, (1,)),
    ("maps", np.float64, (1, 6)),
    ("curves", np.float64, (1, 7)),
    ("bank", np.float32, (1, 1)),
    ("noise", np.float32, (1,)),
    ("step", np.float64, (1,)),
)


@dataclass(frozen=True)
class Feed:
    """One external input: `blank` is what a sample without content gives (decoders refuse empty buffers)."""

    name: str
    dtype: type
    blank: tuple[int, ...]
    layout: str = ""

    def zeros(self) -> NDArray[np.generic]:
        """The blank array."""
        return np.zeros(self.blank, self.dtype)


def feeds(config: DataConfig) -> tuple[Feed, ...]:
    """All inputs, in order, for V views of T frames.

    encoded: bytes of a slice, where `in_graph`, and `wanted` (U,), the frames of it to decode, ascending; else
    pixels (U, H, W, 3). frames (V, T): which of the U to show when; look, tone: see `pictures`.
    pcm<v> (n,): sound of view v at its own rate; maps<v>, curves<v>, noise<v>: see `Program`; bank<v>: see `bank`;
    step<v> (1,): samples of the file in one of the clip. cost (2,): frames decoded and frames shown.
    """
    views, t = len(config.views), config.video.frames
    common = (
        Feed("sample_id", np.int64, ()),
        Feed("label", np.int64, ()),
        Feed("valid", np.bool_, ()),
        Feed("speed", np.float32, (views, 2)),
        Feed("direction", np.float32, (views, 2)),
        Feed("video_pts", np.float64, (views, t)),
        Feed("audio_pts", np.float64, (views, 2)),
        Feed("error", np.uint8, (1,)),
        Feed("timing", np.float32, (len(STAGES),)),
        Feed("cost", np.int32, (2,)),
    )
    video = (
        Feed("encoded", np.uint8, (1,)),
        Feed("pixels", np.uint8, (1, 16, 16, 3), "FHWC"),
        Feed("in_graph", np.bool_, ()),
        Feed("wanted", np.int32, (1,)),
        Feed("frames", np.int32, (views, t)),
        Feed("look", np.float32, (views, 9)),
        *((Feed("tone", np.float64, (views, t, 4)),) if config.tones("video") else ()),
    )
    audio = (Feed(f"{name}{v}", dtype, blank) for v in range(views) for name, dtype, blank in PLAYED)
    return (
        *common,
        *(video if "video" in config.modalities else ()),
        *(audio if "audio" in config.modalities else ()),
    )


def blanks(config: DataConfig) -> Arrays:
    """A sample of silence and darkness that every operator accepts."""
    arrays = {feed.name: feed.zeros() for feed in feeds(config)}
    for name, array in arrays.items():
        if name == "look":
            array[:, 2:7] = 1
        if name.startswith("curves"):
            array[0, 6] = 1  # the clip's own map is the one row
        if name.startswith("maps"):
            array[0, 0] = 1
    return arrays
