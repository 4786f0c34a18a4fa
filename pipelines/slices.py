"""The packets a decoder needs for a few frames, cut out of a file and wrapped in memory as a small file of their own.

DALI's decoders start at the first packet they are given and never seek, so frames deep in a file cost what they need
only when that is cut out first: from the key frame of each to the frame, the groups of pictures one after the other.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from .groups import Run, invisible, needed, table
from .media import Deadline, MediaError, reason, stream_of

IVF = {"vp8": b"VP80", "vp9": b"VP90", "mjpeg": b"MJPG"}  # needs no out-of-band headers: 12 bytes a frame


TICK = Fraction(1, 25)  # a whole number of Matroska's milliseconds
# types of the NAL units after which nothing refers to what came before (H.264 table 7-1, HEVC table 7-1)
RESETS = {"h264": {5}, "hevc": set(range(16, 21))}


@dataclass(frozen=True)
class Slice:
    """`data` (bytes,) uint8, a whole small file; `wanted` (U,) int32 numbers the frames to decode in its presentation
    order, ascending; `index` (n,) int32 says which of those is on screen at each instant asked for, `pts` (n,) float64
    since when, in the original file's seconds; `decoded` frames are in the file, the last one needed for the others."""

    data: NDArray[np.uint8]
    wanted: NDArray[np.int32]
    index: NDArray[np.int32]
    pts: NDArray[np.float64]
    decoded: int


def cut(container: Any, instants: NDArray[np.float64], deadline: Deadline) -> Slice:
    """The slice that shows `instants` (n,), any order.

    Raises:
        MediaError: unreadable, no picture there, pictures without a time, or past the deadline.
    """
    stream = stream_of(container, "video")
    try:
        packets = _packets(container, stream, np.unique(instants), deadline)
    except (av.FFmpegError, OSError, ValueError) as error:
        deadline.check()  # an interrupted read is the deadline's doing
        raise MediaError(f"packets cannot be read: {reason(error)}") from None
    return sliced(packets, stream.codec_context, float(stream.time_base), instants, lambda: stream)


def sliced(
    packets: list[Any],
    codec: Any,
    tick: float,
    instants: NDArray[np.float64],
    template: Callable[[], Any],
) -> Slice:
    """The slice made of `packets` (decoding order), timed in ticks of `tick` seconds, that shows `instants` (n,).

    Args:
        codec: a codec context with the stream's name and size.
        template: makes a stream with all its parameters, for codecs whose headers stand outside of their packets.

    Raises:
        MediaError: no packets, or some without a time.
    """
    if not packets:
        raise MediaError(f"no picture at {instants.min():.3f} s")
    if any(p.pts is None for p in packets):
        raise MediaError("some packets have no presentation time: their pictures cannot be numbered")
    place = table(packets, codec.name, tick).on_screen(instants)
    pts = np.array([packets[i].pts for i in place]) * tick
    wanted, index = np.unique(
        _numbers(packets, codec.name)[place], return_inverse=True
    )  # a decoder never goes back
    data = _ivf(packets, codec) if codec.name in IVF else _remux(packets, template())
    array = np.frombuffer(data, np.uint8)
    return Slice(array, wanted.astype(np.int32), index.astype(np.int32), pts, len(packets))


def _packets(container: Any, stream: Any, instants: NDArray[np.float64], deadline: Deadline) -> list[Any]:
    """In decoding order, what `instants` need; nobody flushes the decoder between runs, so each must reset it."""
    runs = needed(container, stream, instants, deadline)
    if not all(resets(run, stream.codec_context) for run in runs[1:]):
        runs = needed(container, stream, instants, deadline, back=0.0)
    return [packet for run in runs for packet in run.packets]


def resets(run: Run, codec: Any) -> bool:
    """Whether the run's key frame says so itself: an I picture of an open group counts on from the group before."""
    types = RESETS.get(codec.name)
    return types is None or not types.isdisjoint(_nal_types(bytes(run.packets[0]), codec))


def _nal_types(data: bytes, codec: Any) -> Iterator[int]:
    """The type of every NAL unit in a packet: with start codes, or with lengths as in mp4 and Matroska."""
    shift, mask = (1, 63) if codec.name == "hevc" else (0, 31)
    extra = bytes(codec.extradata or b"")
    if extra[:1] != b"\1":
        yield from (
            match[1][0] >> shift & mask for match in re.finditer(rb"\x00\x00\x01(.)", data, re.DOTALL)
        )
        return
    size, at = (extra[21 if codec.name == "hevc" else 4] & 3) + 1, 0
    while at + size < len(data):
        yield data[at + size] >> shift & mask
        at += size + int.from_bytes(data[at : at + size], "big")


def _numbers(packets: list[Any], codec: str) -> NDArray[np.intp]:
    """Each packet's place in presentation order among those that come out of a decoder."""
    shown = np.array([not invisible(p, codec) for p in packets])
    order = np.argsort([p.pts for p in packets], kind="stable")
    numbers = np.empty(len(packets), np.intp)
    numbers[order] = np.cumsum(shown[order]) - 1
    return numbers


def _ivf(packets: list[Any], codec: Any) -> bytes:
    header = ivf_header(IVF[codec.name], codec.width, codec.height, len(packets))
    frames = (struct.pack("<IQ", p.size, i) + bytes(p) for i, p in enumerate(packets))
    return header + b"".join(frames)


def ivf_header(fourcc: bytes, width: int, height: int, frames: int) -> bytes:
    """The 32 bytes that an IVF file begins with."""
    return struct.pack("<4sHH4sHHIIII", b"DKIF", 0, 32, fourcc, width, height, 30, 1, frames, 0)


def _remux(packets: list[Any], stream: Any) -> bytes:
    """Matroska: takes every codec, keeps codec headers. Times are an even count: only the frames' order matters."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as out:
        target = out.add_stream_from_template(stream, opaque=True)  # by name, AV1's decoder is no encoder
        numbers = np.argsort(np.argsort([p.pts for p in packets], kind="stable"))
        delay = int((np.arange(len(packets)) - numbers).max())  # pts >= dts
        for place, (number, packet) in enumerate(zip(numbers.tolist(), packets, strict=True)):
            packet.stream, packet.time_base = target, TICK
            packet.pts, packet.dts, packet.duration = number + delay, place, 1
            out.mux(packet)
    return buffer.getvalue()
