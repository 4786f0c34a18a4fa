"""Which packets of a sound track a decoder needs for a window, and the sound that comes out of it, sample by sample.

packets  |  -1  |  0  |  1  |  2  |  3  |  4  |  5  |    a seek lands somewhere before the priming
decoded               |  1     2     3     4  |          from the last packet that begins before the priming
                         [priming][window]
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import chain
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from .deadline import Deadline
from .demux import packets_of
from .groups import only
from .samples import Clock, Run, rewind

# Seconds decoded before a window. Measured to be bit for bit as in a full decode: AAC and Vorbis after one packet, MP3
# after its bit reservoir of 511 bytes and one packet, Opus when its predictors have forgotten (RFC 7845 asks for
# 0.08 s, where errors still reach 0.1). High-efficiency AAC repeats the header of its upper band every few packets.
PRIMING = {"opus": 1.5}
USUAL = 0.3
TOGETHER = 64  # packets decoded between two looks at the clock
GAP = 0.02  # seconds between two time stamps more than was decoded: samples are missing
MATROSKA = "matroska,webm"
UNTIMED = {("ogg", "flac")}  # FFmpeg's time stamps after a seek are off by pages


def runs(
    container: Any, stream: Any, first: int, last: int, deadline: Deadline
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """(number of its first sample, (n,) mono) of all sound without a gap that samples [first, last) need.

    Bit for bit as in a full decode, except for codecs that draw noise at random (AAC with noise substitution, AC-3) and
    for the first packet of a container whose sound has been read before (FFmpeg's AAC decoder keeps its overlap).

    Raises:
        av.FFmpegError, OSError, ValueError: the file cannot be read.
        MediaError: past the deadline.
    """
    deadline.at("demux")
    only(container, stream)
    clock = Clock(container, stream, deadline)
    early = first - clock.slack - priming(stream.codec_context) * clock.rate
    found: list[Run] = []
    enough = last + clock.slack + GAP * clock.rate  # whatever the first stamp was
    for packets in _together(_needed(container, stream, early / clock.rate, deadline), enough / clock.tick):
        deadline.at("audio")
        for frame in chain.from_iterable(packet.decode() for packet in packets):
            _append(found, clock, frame)
        deadline.at("demux")
        if found and found[-1].end >= enough:
            break
    deadline.at("audio")
    for run in found:
        position = clock.position(run)
        unheard = max(clock.origin - position, 0)
        yield position + unheard, run.buffer.read()[unheard:]


def _together(packets: Iterator[Any], last: float) -> Iterator[list[Any]]:
    """Packets that end before `last` ticks by their stamps, `TOGETHER` at a time, then one after the other."""
    waiting: list[Any] = []
    for packet in packets:
        waiting.append(packet)
        late = packet.pts is None or packet.pts + (packet.duration or 0) >= last
        if late or len(waiting) == TOGETHER:  # stamps may be wrong
            yield waiting
            waiting = []
    yield waiting


def priming(codec: Any) -> float:
    """Seconds to decode before a window, after which the output is a full decode's."""
    return 0.0 if codec.codec.lossless else PRIMING.get(codec.name, USUAL)


def _append(found: list[Run], clock: Clock, frame: Any) -> None:
    """To the last run, or to a new one where samples are missing; decoders deliver without gaps."""
    due = clock.due(frame)
    if not found and np.isnan(due):
        return  # nobody can tell where this belongs
    if not found or abs(due - found[-1].end) > GAP * clock.rate:
        found.append(Run())
    found[-1].add(due, frame)


def _needed(container: Any, stream: Any, seconds: float, deadline: Deadline) -> Iterator[Any]:
    """Packets from the last one that begins at or before `seconds`, or from the first; demuxing costs little."""
    begun: list[Any] = []
    early = _early(stream, seconds)
    packets = _landed(container, stream, seconds, deadline)
    for packet in packets:
        if early(packet):
            begun.clear()
        elif begun and packet.pts is not None:
            begun.append(packet)
            break
        begun.append(packet)
    yield from begun
    yield from packets


def _landed(container: Any, stream: Any, seconds: float, deadline: Deadline) -> Iterator[Any]:
    """The packets after a seek to `seconds`, the first of them no later than that unless it is the very first."""
    early, start = _early(stream, seconds), float((stream.start_time or 0) * stream.time_base)
    untimed = (container.format.name, stream.codec_context.name) in UNTIMED
    for back in (0.0, 2.0) if seconds > start and not untimed else ():  # some indexes point too far
        with suppress(av.FFmpegError):  # FLAC: cannot find its last packets
            _seek(container, stream, max(seconds - back, start))
            packets = packets_of(container, stream, deadline=deadline)
            first = next(packets, None)
            if first is not None and early(first):
                return chain([first], packets)
    rewind(container, stream)
    return packets_of(container, stream, deadline=deadline)


def _early(stream: Any, seconds: float) -> Callable[[Any], bool]:
    """Whether a packet begins at or before `seconds`."""
    last = seconds / float(stream.time_base)
    return lambda packet: packet.pts is not None and packet.pts <= last


def _seek(container: Any, stream: Any, seconds: float) -> None:
    """Matroska lists the places of pictures: looking for sound there reads the whole file up to it."""
    if container.format.name == MATROSKA:
        stream = container.streams.best("video") or stream
    container.seek(int(seconds / stream.time_base), stream=stream, backward=True)
