"""The arrays that pass from the source to the graph for one sample: one list, read by both sides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from nvidia.dali import types

from .config import DataConfig
from .facts import facts

DTYPES = {
    np.uint8: types.UINT8,
    np.bool_: types.BOOL,
    np.int32: types.INT32,
    np.int64: types.INT64,
    np.float32: types.FLOAT,
    np.float64: types.FLOAT64,
}
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

    def zeros(self) -> NDArray[np.generic]:
        """The blank array."""
        return np.zeros(self.blank, self.dtype)


def feeds(config: DataConfig, *, slices: bool = False, images: bool = False) -> tuple[Feed, ...]:
    """All inputs, in order, for V views of T frames.

    facts: a record's bytes, see `facts`. planes (U, 3h/2, w): decoded frames, see `planes.py`, and `matrix` (3, 4) from
    these to RGB. frames (V, T): which of the U to show when; look, tone: see `pictures`.
    Where the graph decodes `slices` or `images`: in_graph, whether it does this sample, and its bytes, encoded. A slice
    has wanted (U,), the frames of it to decode, ascending; JPEGs joined to one have joined (4,), the shape (U, h, w, 3)
    that it is to have, which is 0 everywhere else.
    pcm<v> (n,): sound of view v at its own rate; maps<v>, curves<v>, noise<v>: see `Program`; bank<v>: see `bank`;
    step<v> (1,): samples of the file in one of the clip.
    """
    views, t = len(config.views), config.video.frames
    video = (
        Feed("planes", np.uint8, (1, 24, 16)),
        Feed("matrix", np.float32, (3, 4)),
        Feed("frames", np.int32, (views, t)),
        Feed("look", np.float32, (views, 9)),
        *((Feed("tone", np.float64, (views, t, 4)),) if config.tones("video") else ()),
    )
    encoded = (
        *((Feed("in_graph", np.bool_, ()), Feed("encoded", np.uint8, (1,))) if slices or images else ()),
        *((Feed("wanted", np.int32, (1,)),) if slices else ()),
        *((Feed("joined", np.int32, (4,)),) if images else ()),
    )
    audio = (Feed(f"{name}{v}", dtype, blank) for v in range(views) for name, dtype, blank in PLAYED)
    return (
        Feed("facts", np.uint8, (facts(config).itemsize,)),
        *(video if "video" in config.modalities else ()),
        *(encoded if "video" in config.modalities else ()),
        *(audio if "audio" in config.modalities else ()),
    )


def blanks(inputs: tuple[Feed, ...]) -> Arrays:
    """A sample of silence and darkness that every operator accepts."""
    arrays = {feed.name: feed.zeros() for feed in inputs}
    for name, array in arrays.items():
        if name == "look":
            array[:, 2:7] = 1
        if name.startswith("curves"):
            array[0, 6] = 1  # the clip's own map is the one row
        if name.startswith("maps"):
            array[0, 0] = 1
    return arrays
