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
    pixels (U, H, W, 3). frames (V·T,): which of the U to show at each instant of each view.
    pcm<v> (n,): sound of view v at its own rate; map<v> (rows, 5), bank<v> (q, K): see `play.py`.
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
    )
    video = (
        Feed("encoded", np.uint8, (1,)),
        Feed("pixels", np.uint8, (1, 16, 16, 3), "FHWC"),
        Feed("in_graph", np.bool_, ()),
        Feed("wanted", np.int32, (1,)),
        Feed("frames", np.int32, (views * t,)),
        Feed("crop", np.float32, (views, 4)),
        *((Feed("colour", np.float32, (views, 4)),) if config.video.jitters else ()),
    )
    audio = (
        feed
        for v in range(views)
        for feed in (
            Feed(f"pcm{v}", np.float32, (1,)),
            Feed(f"map{v}", np.float64, (1, 5)),
            Feed(f"bank{v}", np.float32, (1, 1)),
        )
    )
    return (
        *common,
        *(video if "video" in config.modalities else ()),
        *(audio if "audio" in config.modalities else ()),
    )


def blanks(config: DataConfig) -> Arrays:
    """A sample of silence and darkness that every operator accepts."""
    arrays = {feed.name: feed.zeros() for feed in feeds(config)}
    for name, array in arrays.items():
        if name == "crop":
            array[..., 2:] = 1
    return arrays
