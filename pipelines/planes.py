"""Decoded frames as their decoders leave them: 8-bit planes of luma and halved chroma (4:2:0), cut out and upright.

An array of them is (3h/2, w) uint8 with even h and w: h rows of luma, then h/2 rows whose left half is Cb and whose
right half is Cr. That is half of RGB's bytes, and what is left to do to most files' frames is a copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter
from numpy.typing import NDArray

from .media import MediaError, Room

PLANAR = {"yuv420p", "yuvj420p"}
LUMA = {1: (0.2126, 0.0722), 4: (0.30, 0.11), 7: (0.212, 0.087), 9: (0.2627, 0.0593), 10: (0.2627, 0.0593)}
BT601 = (0.299, 0.114)  # Kr and Kb where a file names no other space of ITU-T H.273, table 4; as FFmpeg does
Box = tuple[int, int, int, int]


class Part(NamedTuple):
    """What is kept of one plane, as an array laid over its bytes, and where that goes."""

    shape: tuple[int, ...]
    offset: int
    strides: tuple[int, ...]
    to: tuple[slice, slice]


def _anew(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    return np.empty(shape, np.uint8)


@dataclass
class Cutter:
    """Turns frames of one stream into planes; `matrix` (3, 4) float32 takes these to RGB in [0, 255].

    Attributes:
        turns: quarters of a turn, clockwise, that a frame is shown at.
        box: left, top, right, bottom of what is kept, in pixels of the upright frame; None keeps all.
        size: (width, height), as coded, to make frames smaller first; None leaves them.
        reformatter: FFmpeg's, for frames that are not 4:2:0 already.
    """

    turns: int = 0
    box: Box | None = None
    size: tuple[int, int] | None = None
    reformatter: VideoReformatter = field(default_factory=VideoReformatter)
    matrix: NDArray[np.float32] = field(default_factory=lambda: np.zeros((3, 4), np.float32))
    _layout: tuple[int, ...] = ()
    _parts: list[Part] = field(default_factory=list)
    _shape: tuple[int, int] = (0, 0)

    def __call__(self, frame: Any, room: Room = _anew) -> NDArray[np.uint8]:
        """(3h/2, w) uint8, in the `room` for it. Raises MediaError where `box` is not within the frame."""
        frame = self._planar(frame)
        planes = frame.planes
        layout = (frame.width, frame.height, *[plane.line_size for plane in planes])
        if layout != self._layout:  # the same for all frames of a stream, mostly
            self._layout, self._parts = layout, self._laid_out(planes)
            self.matrix = rgb_matrix(frame)
        out = room(self._shape)
        for plane, part in zip(planes, self._parts, strict=True):
            _paste(out[part.to], np.ndarray(part.shape, np.uint8, plane, part.offset, part.strides))
        return out

    def _laid_out(self, planes: Sequence[Any]) -> list[Part]:
        """Which bytes of every plane are kept, and where they go."""
        luma, *chroma = (np.rot90(_plane(plane), -self.turns) for plane in planes)
        left, top, right, bottom = self.box or (0, 0, luma.shape[1], luma.shape[0])
        if bottom > luma.shape[0] or right > luma.shape[1]:
            raise MediaError("the picture is smaller than the one that was catalogued")
        height, width = even(bottom - top), even(right - left)
        self._shape = (3 * height // 2, width)
        halves = (slice(width // 2), slice(width // 2, None))
        seen = [luma[top:bottom, left:right]]
        seen += [plane[top // 2 : -(-bottom // 2), left // 2 : -(-right // 2)] for plane in chroma]
        to = [(slice(height), slice(None)), *((slice(height, None), half) for half in halves)]
        begins = [_address(_plane(plane)) for plane in planes]
        return [
            Part(v.shape, _address(v) - b, v.strides, t) for v, b, t in zip(seen, begins, to, strict=True)
        ]

    def _planar(self, frame: Any) -> Any:
        if self.size is None and frame.format.name in PLANAR:
            return frame
        width, height = self.size or (frame.width, frame.height)
        return self.reformatter.reformat(
            frame, width, height, "yuv420p", interpolation=Interpolation.BILINEAR, threads=1
        )


def kept(crops: NDArray[np.float32], upright: NDArray[np.int64], size: int) -> Box:
    """The part of a picture that crops (V, 4) read when they are resized to `size`; crops become shares of that part.

    Args:
        crops: left, top, right, bottom as shares of the picture, left > right where mirrored; changed in place.
        upright: (width, height) of the picture.
    """
    sides = crops.reshape(-1, 2, 2).astype(np.float64) * upright
    step = np.abs(sides[:, 1] - sides[:, 0]) / size
    reach = np.maximum(step, 2) + 2  # of the resize's triangle, in pixels of chroma, and rounding
    low = np.maximum(np.floor((sides.min(1) - reach).min(0)), 0).astype(int) // 2 * 2
    high = np.minimum(np.ceil((sides.max(1) + reach).max(0)), upright).astype(int)
    crops[:] = ((sides - low) / even(high - low)).reshape(-1, 4)
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def even(length: Any) -> Any:
    """The next even number."""
    return length + length % 2


def _address(array: NDArray[np.uint8]) -> int:
    return int(array.__array_interface__["data"][0])


def _plane(plane: Any) -> NDArray[np.uint8]:
    rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
    return rows[: plane.height, : plane.width]


def _paste(out: NDArray[np.uint8], plane: NDArray[np.uint8]) -> None:
    """The last row and column again where an odd number of them is made even."""
    height, width = plane.shape
    out[:height, :width] = plane
    if out.shape != plane.shape:
        out[:height, width:] = plane[:, -1:]
        out[height:] = out[height - 1]


def rgb_matrix(frame: Any) -> NDArray[np.float32]:
    """(3, 4) float32 from Y, Cb, Cr of a frame, as 8-bit numbers, to R, G, B in [0, 255] (ITU-T H.273, 8.3)."""
    full = frame.color_range == ColorRange.JPEG or frame.format.name == "yuvj420p"
    return _rgb_matrix(*LUMA.get(int(frame.colorspace), BT601), full)


@lru_cache
def _rgb_matrix(red: float, blue: float, full: bool) -> NDArray[np.float32]:
    luma, chroma, black = (1.0, 1.0, 0.0) if full else (255 / 219, 255 / 224, 16.0)
    green = 1 - red - blue
    cr, cb = 2 * (1 - red) * chroma, 2 * (1 - blue) * chroma
    rows = np.array([[luma, 0, cr, 0], [luma, -cb * blue / green, -cr * red / green, 0], [luma, cb, 0, 0]])
    rows[:, 3] = -rows[:, :3] @ [black, 128, 128]
    return rows.astype(np.float32)
