"""Reads the packets of a file that a decoder needs for a few pictures: the spans of `packets.py`.

Groups that nobody wants are neither read, where the container's index or a gap of more than `GAP` seconds lets us seek
over them, nor decoded, whatever had to be read. Nor are pictures that nothing refers to (see `disposable`).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, dropwhile, islice
from typing import Any

import av
import numpy as np
from av.stream import Discard
from numpy.typing import NDArray

from .deadline import Deadline
from .demux import packets_of
from .disposable import without_disposable
from .packets import EPSILON, PacketTable

GAP = 2.0  # seconds between two instants from which on seeking pays without an index
INDEXED = (
    "mov,mp4,m4a,3gp,3g2,mj2",
    "matroska,webm",
    "avi",
)  # their indexes name the key frames from the outset


@dataclass(frozen=True)
class Run:
    """Packets to decode one after the other, the first a key frame; `first` is the earliest instant (seconds) that they
    show, `opening` says that the stream has nothing before them."""

    packets: list[Any]
    first: float
    opening: bool


def only(container: Any, stream: Any) -> None:
    """Other streams' packets are not even read from the file, where they are not on the way."""
    for other in container.streams:
        other.discard = Discard.default if other.index == stream.index else Discard.all


def ticks(stream: Any, instant: float) -> int:
    """`instant` in the stream's time base, not before its start."""
    start = stream.start_time or 0
    return max(int(instant / stream.time_base), start) if np.isfinite(instant) else start


def needed(
    container: Any,
    stream: Any,
    instants: NDArray[np.float64],
    deadline: Deadline,
    *,
    back: float | None = None,
    every: bool = False,
) -> list[Run]:
    """The runs that show `instants` (n,) seconds, ascending; between runs a decoder must be flushed.

    Args:
        back: one run with everything, of use or not, from so many seconds before the first picture to the last one.
        every: also the pictures that are shown between but decoded after the last one; needs `back`.

    Raises:
        av.FFmpegError, OSError, ValueError: the packets cannot be read.
        MediaError: past the deadline.
    """
    instants = np.maximum(instants, float((stream.start_time or 0) * stream.time_base))
    segments = _Reader(container, stream, deadline).segments(instants, back)
    codec = stream.codec_context
    return [
        run
        for segment in segments
        if segment.packets
        for run in _runs(segment, codec, back is not None, every)
    ]


def table(packets: list[Any], codec: str, tick: float) -> PacketTable:
    """What is known of `packets`, which all have a time, in ticks of `tick` seconds."""
    return PacketTable(
        np.array([p.pts for p in packets], np.int64),
        np.array([p.is_keyframe for p in packets], bool),
        np.array([not (p.is_discard or invisible(p, codec)) for p in packets], bool),
        tick,
    )


def invisible(packet: Any, codec: str) -> bool:
    """A VP8 frame with show_frame = 0 (RFC 6386, section 9.1): decoded, never shown."""
    return codec == "vp8" and not memoryview(packet)[0] >> 4 & 1


def _runs(segment: _Segment, codec: Any, whole: bool, every: bool) -> list[Run]:
    packets, instants = segment.packets, segment.instants
    if any(p.pts is None for p in packets):  # nobody can tell which pictures these are
        return [Run(packets, float(instants[0]), segment.opening)]
    known = table(packets, codec.name, float(packets[0].time_base))
    wanted, seen = known.on_screen(instants), np.full(len(packets), whole)
    seen[wanted] = True
    if every:
        wanted = np.flatnonzero(known.pts <= known.pts[wanted].max())
    runs = []
    since = 0 if whole else None
    for span in known.spans(wanted, instants, opening=segment.opening, since=since):
        chosen = [packets[i] for i in span.places.tolist()]
        runs.append(Run(without_disposable(chosen, seen[span.places], codec), span.first, span.opening))
    return runs


@dataclass
class _Segment:
    """Packets read without a break and the ascending instants that they show."""

    packets: list[Any]
    instants: NDArray[np.float64]
    opening: bool


class _Reader:
    """Reads one stream forwards and seeks over what nobody wants."""

    def __init__(self, container: Any, stream: Any, deadline: Deadline) -> None:
        self.container, self.stream, self.deadline = container, stream, deadline
        only(container, stream)
        self.start, self.base = stream.start_time or 0, float(stream.time_base)  # ticks, seconds a tick
        self.indexed = container.format.name in INDEXED and hasattr(
            stream, "index_entries"
        )  # not in old PyAV

    def segments(self, instants: NDArray[np.float64], back: float | None) -> list[_Segment]:
        """All packets that may be needed, and at most a few more that prove it."""
        opening, packets = self._enter(max(float(instants[0]) - (back or 0.0), self.start * self.base))
        segments, begun, done = [_Segment([], instants, opening)], 0, 0
        times, key = instants.tolist(), None
        while (packet := next(packets, None)) is not None:
            segments[-1].packets.append(packet)
            key = packet if packet.is_keyframe else key
            if packet.dts is None or (now := packet.dts * self.base - EPSILON) <= times[done]:
                continue
            # pts >= dts: from here on nothing is shown in time for the instants before this one
            passed, done = done, bisect_left(times, now, done)
            if done == len(times):
                break
            if done > passed and back is None and self._seek_pays(packet, key, *times[done - 1 : done + 1]):
                opening, packets = self._enter(times[done])
                ahead, packets = _beyond(packets, packet, key)
                if ahead:
                    segments[-1].instants = instants[begun:done]
                    segments.append(_Segment([], instants[done:], opening))
                    begun = done
        return segments

    def _seek_pays(self, packet: Any, key: Any, shown: float, instant: float) -> bool:
        """Whether groups that nobody wants lie between the picture at `shown` and the group of `instant`."""
        if not self.indexed or not self.stream.index_entries:
            return bool(instant - packet.dts * self.base > GAP)
        index = self.stream.index_entries
        # by decoding time (mp4, AVI) or by presentation time (Matroska): then the last may be a group too far
        last = target = index.search_timestamp(int((instant + EPSILON) / self.base))
        if key.pts * self.base <= shown + EPSILON:  # the present group is wanted, the rest of it may be read
            target = index.search_timestamp(index[last].timestamp - 1) if last > 0 else -1
        # Matroska's entries are clusters: the present one is not worth reading again
        return bool(target >= 0 and index[target].timestamp > key.pts and index[last].pos > packet.pos)

    def _enter(self, instant: float) -> tuple[bool, Iterator[Any]]:
        """Packets from the latest key frame shown at or before `instant`; True first if none is before it."""
        for back in (0.0, 2.0):  # some indexes point past the key frame that is needed
            target = ticks(self.stream, instant + EPSILON - back)
            key, packets = self._land(target)
            if _late(key, instant):  # an index by decoding time: this is one key frame too far
                with suppress(av.FFmpegError):
                    key, packets = self._land(min(key.pts, key.pts if key.dts is None else key.dts) - 1)
            if key is not None and not _late(key, instant):
                return target == self.start, chain([key], packets)
        try:
            key, packets = self._land(self.start - int(10 / self.stream.time_base))  # dts come before pts
        except av.FFmpegError:  # AVI knows no time before its first packet
            key, packets = self._land(self.start)
        return True, chain([] if key is None else [key], packets)

    def _land(self, target: int) -> tuple[Any, Iterator[Any]]:
        """(first key frame after seeking to `target` ticks or None, the packets that follow it)."""
        self.container.seek(target, stream=self.stream, backward=True)
        packets = self._packets()
        return next((p for p in packets if p.is_keyframe and p.pts is not None), None), packets

    def _packets(self) -> Iterator[Any]:
        packets = packets_of(self.container, self.stream, deadline=self.deadline)
        return (packet for packet in packets if packet.size)


def _late(key: Any, instant: float) -> bool:
    return key is not None and float(key.pts * key.time_base) > instant + EPSILON


def _beyond(packets: Iterator[Any], last: Any, key: Any) -> tuple[bool, Iterator[Any]]:
    """(whether `packets` begin in a later group than `key`'s, those of them that come after `last`)."""
    first = next(packets, None)
    if first is not None and first.pts > key.pts:
        return True, chain([first], packets)
    field = "dts" if last.pts is None else "pts"  # each unique in a stream
    read = dropwhile(
        lambda p: getattr(p, field) != getattr(last, field), chain([first], packets) if first else packets
    )
    return False, islice(read, 1, None)
