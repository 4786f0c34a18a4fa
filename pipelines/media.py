"""Exact windows out of any media file: frames by presentation time, mono sound by sample, packets by group of pictures.

All times are seconds of the file's own presentation time (what FFmpeg prints as `pts_time`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from . import pcm
from .deadline import Deadline as Deadline
from .deadline import MediaError as MediaError
from .decode import Decoder, Late, shown
from .groups import Run, needed

av.logging.set_level(av.logging.PANIC)
Room = Callable[[tuple[int, ...]], NDArray[np.uint8]]
Convert = Callable[[Any, Room], object]


@dataclass(frozen=True)
class Frames:
    """Frames of one file: `pixels` (U, …) uint8, each shown frame once; `index` (n,) int32 says which
    of them is on screen at each instant asked for, `pts` (n,) float64 since when; `decoded` frames were decoded
    for that."""

    pixels: NDArray[np.uint8]
    index: NDArray[np.int32]
    pts: NDArray[np.float64]
    decoded: int


def open_media(path: str | Path, deadline: Deadline, *, probe: bool = True) -> Any:
    """An open PyAV container whose reads give up at the deadline.

    Args:
        probe: let FFmpeg decode the beginning of each stream to find out what the header does not tell; without,
            opening takes a quarter of the time, and is for streams that are `declared`.

    Raises:
        MediaError: cannot be opened.
    """
    if os.path.exists(path) and not os.path.isfile(path):  # opening a pipe would wait beyond any deadline
        raise MediaError("not a regular file")
    try:
        # not a smaller probesize as well: Matroska's sound would lack the index that `rewind` needs
        options = {} if probe else {"codec_whitelist": "none"}
        # old files carry titles in other encodings
        container = av.open(str(path), options=options, metadata_errors="replace", timeout=deadline.seconds)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise MediaError(reason(error)) from None
    return container


_STILL = av.stream.Disposition.attached_pic | av.stream.Disposition.timed_thumbnails


def stream_of(container: Any, kind: str) -> Any:
    """The "video" or "audio" stream that players would choose, single-threaded, or None; a cover is no video."""
    streams = [s for s in getattr(container.streams, kind) if not s.disposition & _STILL]
    best = container.streams.best(kind)
    stream = best if best in streams else next(iter(streams), None)
    if stream is None or stream.codec_context is None:
        return None
    if not stream.codec_context.is_open:
        stream.codec_context.thread_count = 1  # parallelism is across samples
    return stream


def reason(error: Exception) -> str:
    """What FFmpeg or the system said, in a few words."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def read_frames(
    container: Any,
    instants: NDArray[np.float64],
    deadline: Deadline,
    convert: Convert | None = None,
) -> Frames:
    """The frames on screen at `instants` (n,), any order. Only frames that are shown are converted, and only what
    they need is decoded (see `groups`).

    Args:
        convert: writes what it makes of a decoded frame into the room that it asks for, all of one shape (None: RGB).

    Raises:
        MediaError: unreadable, no frame at all, or past the deadline.
    """
    stream = stream_of(container, "video")
    decoder = Decoder(stream.codec_context, float(stream.time_base), deadline)

    def runs(wanted: NDArray[np.float64], back: float | None) -> Iterator[Run]:
        deadline.at("demux")
        try:
            yield from needed(container, stream, wanted, deadline, back=back)
        except (av.FFmpegError, OSError, ValueError) as error:
            deadline.check()  # an interrupted read is the deadline's doing
            raise MediaError(f"video cannot be read: {reason(error)}") from None

    # some decoders need more than the key frame that a file names
    return decode_frames(decoder, runs, (None, 2.0, np.inf), instants, convert or RGB)


def decode_frames(
    decoder: Decoder,
    runs: Callable[[NDArray[np.float64], float | None], Iterable[Run]],
    attempts: Sequence[float | None],
    instants: NDArray[np.float64],
    convert: Convert,
) -> Frames:
    """As `read_frames`.

    Args:
        runs: the packets that show ascending instants, from so many seconds before them as each of the `attempts` says.
    """
    wanted, inverse = np.unique(instants, return_inverse=True)
    for back in attempts:
        pictures = Pictures(len(wanted))
        pts: list[float] = []
        place = np.zeros(len(wanted), np.int32)
        with suppress(Late):
            for first, last, frame in shown(_decoded(decoder, runs(wanted, back)), decoder, wanted):
                place[first:last] = pictures.place = len(pts)
                decoder.deadline.at("convert")
                convert(frame, pictures.room)
                pts.append(decoder.seconds(frame))
            break
    if pictures.pixels is None:
        raise MediaError(f"no picture could be decoded at {wanted[0]:.3f} s")
    index = place[inverse]
    return Frames(pictures.pixels[: len(pts)], index, np.array(pts)[index], decoder.decoded)


class Pictures:
    """Pictures of one shape in an array that is filled one after the other: `pixels`, None before the first."""

    def __init__(self, most: int) -> None:
        self.most, self.place = most, 0
        self.pixels: NDArray[np.uint8] | None = None

    def room(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """Where picture number `place` belongs. Raises MediaError where others had another shape."""
        if self.pixels is None:
            self.pixels = np.empty((self.most, *shape), np.uint8)
        if shape != self.pixels.shape[1:]:
            raise MediaError("pictures change their size")
        return np.asarray(self.pixels[self.place])


def converting(make: Callable[[Any], NDArray[np.uint8]]) -> Convert:
    """The arrays that `make` makes of frames."""

    def convert(frame: Any, room: Room) -> None:
        picture = make(frame)
        room(picture.shape)[...] = picture

    return convert


RGB = converting(
    lambda frame: np.asarray(frame.to_ndarray(format="rgb24", interpolation="BILINEAR"), np.uint8)
)


def _decoded(decoder: Decoder, runs: Iterable[Run]) -> Iterator[Any]:
    """The runs' frames, ascending."""
    try:
        yield from decoder.frames(runs)
    except (av.FFmpegError, OSError, ValueError) as error:
        decoder.deadline.check()
        raise MediaError(f"video does not decode: {reason(error)}") from None


def audio_rate(container: Any) -> int:
    """Samples per second of the sound track."""
    return int(stream_of(container, "audio").codec_context.sample_rate)


def read_audio(container: Any, first: int, last: int, deadline: Deadline) -> NDArray[np.float32]:
    """Mono sound of the samples [first, last) at the file's own rate, (last - first,) float32 in [-1, 1].

    Sample k is the one that plays at k / rate in presentation time; where the file has no sound there are zeros.
    """
    stream = stream_of(container, "audio")
    out = np.zeros(last - first, np.float32)
    found = False
    try:
        for position, data in pcm.runs(container, stream, first, last, deadline):
            low, high = max(position, first), min(position + len(data), last)
            if high > low:
                out[low - first : high - first] = data[low - position : high - position]
            found = True
    except (av.FFmpegError, OSError, ValueError) as error:
        deadline.check()  # an interrupted read is the deadline's doing
        raise MediaError(f"audio does not decode: {reason(error)}") from None
    if not found:
        raise MediaError(f"no sound could be decoded at {first / audio_rate(container):.3f} s")
    return out
