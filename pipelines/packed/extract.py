"""A recording's own part of a file: every picture on screen from its start to its end, its sound, its packets."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import av
import numpy as np
from av.video.reformatter import Colorspace, Interpolation, VideoReformatter
from numpy.typing import NDArray

from ..decode import Decoder, Late
from ..groups import needed
from ..media import Deadline, MediaError, audio_rate, read_audio, reason, stream_of
from ..packets import EPSILON
from ..recording import Recording
from .video import VideoCodec

PIECE = 60.0  # seconds that are read at a time
# FFmpeg's usual rounding would make colours of other matrices than BT.601 two levels too dark
FAITHFUL = Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
MARGIN = 0.5  # seconds of sound beyond either end, for what clips at the very end hear of it
BLUR = 0.002  # seconds that a catalog's times of sound may be off: Matroska counts milliseconds


def frames(container: Any, recording: Recording, deadline: Deadline) -> Iterator[Any]:
    """Decoded frames, ascending: the one on screen at the recording's start and all that begin before its end.

    Raises:
        MediaError: none, unreadable, or past the deadline.
    """
    cuts = [*np.arange(recording.start, recording.end, PIECE).tolist(), recording.end]
    for begin, end in pairwise(cuts):
        yield from _piece(container, begin, end, begin == recording.start, deadline)


def _piece(container: Any, begin: float, end: float, opening: bool, deadline: Deadline) -> Iterator[Any]:
    """The frames that begin in [begin, end), at the opening also the one on screen."""
    stream, held = _picture(container), None
    tick = float(stream.time_base)
    for frame in _from(container, stream, np.array([begin, end]), deadline):
        seconds = frame.pts * tick
        if seconds > begin + EPSILON and held is not None:
            yield held
            held = None
        if seconds >= end - EPSILON:
            return
        if opening or seconds >= begin - EPSILON:
            held = frame
    if held is not None:
        yield held


def _from(container: Any, stream: Any, instants: NDArray[np.float64], deadline: Deadline) -> Iterator[Any]:
    """All frames from the one at the first of `instants` to the one at the last; earlier ones may come before."""
    decoder = Decoder(stream.codec_context, float(stream.time_base), deadline)
    for back in (0.0, 2.0, np.inf):
        begun = False
        try:
            for frame in decoder.frames(needed(container, stream, instants, deadline, back=back, every=True)):
                begun = True
                yield frame
        except Late:
            if begun:
                raise MediaError(f"no picture could be decoded at {instants[0]:.3f} s") from None
            continue
        except (av.FFmpegError, OSError, ValueError) as error:
            deadline.check()
            raise MediaError(f"video does not decode: {reason(error)}") from None
        return
    raise MediaError(f"no picture could be decoded at {instants[0]:.3f} s")


class Shaper:
    """Makes frames upright, of one size and one kind of pixels; colours are BT.601's from then on."""

    def __init__(self, turns: int, size: tuple[int, int], codec: VideoCodec) -> None:
        self.turns, self.size, self.codec = turns, size, codec
        self._reformatter = VideoReformatter()

    def __call__(self, frame: Any) -> Any:
        """A new frame of `size` (width, height)."""
        width, height = self.size[::-1] if self.turns % 2 else self.size
        made = self._reformatter.reformat(
            frame,
            width,
            height,
            self.codec.pixels,
            interpolation=Interpolation.BICUBIC | FAITHFUL,
            dst_colorspace=Colorspace.ITU601,
            dst_color_range=self.codec.range,
            threads=1,
        )
        return _turned(made, self.turns) if self.turns else made


def _turned(frame: Any, turns: int) -> Any:
    """Quarters of a turn clockwise, plane by plane."""
    planes = frame.to_ndarray()
    luma, chroma = np.split(planes.reshape(-1), [frame.width * frame.height])
    parts = [luma.reshape(frame.height, frame.width)]
    parts += list(chroma.reshape(2, frame.height // 2, frame.width // 2))
    flat = np.concatenate([np.rot90(part, -turns).reshape(-1) for part in parts])
    width, height = (frame.height, frame.width) if turns % 2 else (frame.width, frame.height)
    made = av.VideoFrame.from_ndarray(flat.reshape(-1, width), format=frame.format.name)
    made.color_range, made.colorspace = frame.color_range, frame.colorspace
    assert made.height == height
    return made


def packets(container: Any, recording: Recording, deadline: Deadline) -> list[Any]:
    """The stream's own packets in decoding order, all that the pictures of `frames` need.

    Raises:
        MediaError: none, unreadable, without times, or past the deadline.
    """
    stream = _picture(container)
    ends = np.array([recording.start, recording.end - 2 * EPSILON])
    try:
        found = [
            p for run in needed(container, stream, ends, deadline, back=0.0, every=True) for p in run.packets
        ]
    except (av.FFmpegError, OSError, ValueError) as error:
        deadline.check()
        raise MediaError(f"packets cannot be read: {reason(error)}") from None
    if not found or any(p.pts is None for p in found):
        raise MediaError("some packets have no presentation time: they cannot be copied")
    key = found[0].pts
    if key * stream.time_base <= recording.start + EPSILON:
        # nobody sees the pictures that lead the key frame, and they may not decode
        found = [p for p in found if p.pts >= key]
    return found


def sound(
    container: Any, recording: Recording, deadline: Deadline
) -> tuple[int, Iterator[NDArray[np.float32]]]:
    """(number of the first sample, mono sound in pieces) of the recording and of MARGIN beyond it."""
    assert recording.audio is not None
    rate, audio = audio_rate(container), recording.audio
    begin = max(recording.start - MARGIN, audio.start - BLUR * (audio.start > 0))
    end = min(recording.end + MARGIN, audio.start + audio.duration + BLUR)
    first, last = math.floor(begin * rate), math.ceil(end * rate)
    step = int(PIECE * rate)
    places = [*range(first, last, step), last]
    return first, (read_audio(container, low, high, deadline) for low, high in pairwise(places))


def _picture(container: Any) -> Any:
    stream = stream_of(container, "video")
    if stream is None:
        raise MediaError("the picture that was catalogued is gone")
    return stream
