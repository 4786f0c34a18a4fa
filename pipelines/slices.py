"""The packets a decoder needs for a few frames, cut out of a file and wrapped in memory as a small file of their own.

DALI's decoders start at the first packet they are given and never seek, so a window deep in a file costs what it
shows only when it is cut out first: from the key frame that encloses it to its last frame.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from .media import EPSILON, Deadline, MediaError, reason, stream_of, ticks

IVF = {"vp8": b"VP80", "vp9": b"VP90", "mjpeg": b"MJPG"}  # needs no out-of-band headers: 12 bytes a frame


@dataclass(frozen=True)
class Slice:
    """`data` (bytes,) uint8, a whole small file; `wanted` (U,) int32 numbers the frames to decode in its presentation
    order, ascending; `index` (n,) int32 says which of those is on screen at each instant asked for, `pts` (n,) float64
    since when, in the original file's seconds."""

    data: NDArray[np.uint8]
    wanted: NDArray[np.int32]
    index: NDArray[np.int32]
    pts: NDArray[np.float64]


def cut(container: Any, instants: NDArray[np.float64], deadline: Deadline) -> Slice:
    """The slice that shows `instants` (n,), any order.

    Raises:
        MediaError: unreadable, no picture there, or past the deadline.
    """
    stream = stream_of(container, "video")
    try:
        packets = _packets(container, stream, float(instants.min()), float(instants.max()), deadline)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise MediaError(f"packets cannot be read: {reason(error)}") from None
    if not packets:
        raise MediaError(f"no picture at {instants.min():.3f} s")
    codec = stream.codec_context.name
    shown = [p for p in packets if not (codec == "vp8" and _invisible(p))]
    pts = np.sort([float(p.pts * p.time_base) for p in shown])
    number = np.maximum(np.searchsorted(pts, instants + EPSILON, side="right") - 1, 0)
    wanted, index = np.unique(number, return_inverse=True)  # ascending: a decoder never has to go back
    data = _ivf(packets, stream, IVF[codec]) if codec in IVF else _remux(packets, stream)
    return Slice(np.frombuffer(data, np.uint8), wanted.astype(np.int32), index.astype(np.int32), pts[number])


def _packets(container: Any, stream: Any, first: float, last: float, deadline: Deadline) -> list[Any]:
    """In decoding order, from the key frame at or before `first` to the frame on screen at `last`."""
    for back in (0.0, 2.0, np.inf):
        container.seek(ticks(stream, first - back), stream=stream, backward=True)
        packets: list[Any] = []
        for packet in container.demux(stream):
            deadline.check()
            if packet.size == 0 or packet.pts is None or (not packets and not packet.is_keyframe):
                continue
            if packets and packet.dts is not None and float(packet.dts * packet.time_base) > last + EPSILON:
                break  # pts >= dts: nothing from here on is shown in time (Matroska knows no dts; FFmpeg guesses late)
            if not packets or packet.pts >= packets[0].pts:  # leading pictures need an earlier group
                packets.append(packet)
        if packets and float(packets[0].pts * packets[0].time_base) <= first + EPSILON:
            break
    return packets


def _invisible(packet: Any) -> bool:
    """A VP8 frame with show_frame = 0 (RFC 6386, section 9.1): decoded, never shown."""
    return not bytes(packet)[0] >> 4 & 1


def _ivf(packets: list[Any], stream: Any, fourcc: bytes) -> bytes:
    size = (stream.codec_context.width, stream.codec_context.height)
    header = struct.pack("<4sHH4sHHIIII", b"DKIF", 0, 32, fourcc, *size, 30, 1, len(packets), 0)
    frames = (struct.pack("<IQ", p.size, i) + bytes(p) for i, p in enumerate(packets))
    return header + b"".join(frames)


def _remux(packets: list[Any], stream: Any) -> bytes:
    """Matroska: takes every codec, keeps time stamps and codec headers."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as out:
        target = out.add_stream_from_template(stream)
        base, times = Fraction(packets[0].time_base), sorted(p.pts for p in packets)
        delay = max(time - p.pts for time, p in zip(times, packets, strict=True))
        for time, packet in zip(times, packets, strict=True):  # dts anew: some are missing
            packet.stream, packet.time_base = target, base
            packet.pts, packet.dts = packet.pts - times[0] + delay, time - times[0]
            out.mux(packet)
    return buffer.getvalue()
