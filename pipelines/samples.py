"""Which sample of a track a decoded one is: time stamps are coarse, counting is exact.

A full decode places the first sample that is heard at its time stamp and counts from there. After a seek the count is
known only through stamps, which Matroska rounds to 1 ms (44 samples) and MPEG-TS to 1/90,000 s, and which stay rounded
when packets are copied to mp4. But between two frames lies a whole number of the codec's blocks, and that tells it:

    stamps (ms)     0     23     46     70 ...   2206            2206 ms = 97284.6 samples
    samples         0   1024   2048   3072 ...  97280            95 blocks of 1024 make 97280
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import av
import numpy as np

from .demux import packets_of
from .mono import MonoBuffer

if TYPE_CHECKING:
    from .media import Deadline

BLOCKS = {"opus": 120, "vorbis": 64}  # samples: packets differ in length, all are multiples of this


@dataclass
class Run:
    """Decoded sound without a gap: of each frame how long it is and when it was `due`, in samples (nan: unknown)."""

    lengths: list[int] = field(default_factory=list)
    due: list[float] = field(default_factory=list)
    buffer: MonoBuffer = field(default_factory=MonoBuffer)

    @property
    def end(self) -> float:
        """When the next frame is due by the first one's time stamp."""
        return self.due[0] + self.buffer.samples

    def add(self, due: float, frame: Any) -> None:
        """Appends a frame."""
        self.due.append(due)
        self.lengths.append(frame.samples)
        self.buffer.write(frame)

    def begins(self, slack: int) -> tuple[float, float]:
        """The earliest and the latest place of the first sample by any frame's stamp."""
        lengths = np.array(self.lengths)
        places = np.array(self.due) - (np.cumsum(lengths) - lengths)
        known = np.sort(places[~np.isnan(places)])
        alike = known[np.abs(known - known[len(known) // 2]) <= slack]  # FFmpeg misplaces some Vorbis in Ogg
        return float(alike.min()), float(alike.max())


class Clock:
    """From a track's time stamps to the numbers of its samples: sample k plays at k / rate seconds."""

    def __init__(self, container: Any, stream: Any, deadline: Deadline) -> None:
        self.container, self.stream, self.deadline = container, stream, deadline
        self.rate = int(stream.codec_context.sample_rate)
        tick = stream.time_base * self.rate
        self.tick = float(tick)  # samples
        self.exact = tick.numerator == 1  # there is a stamp for every sample
        self.slack = slack(self.tick, self.rate)
        self.delay = int(stream.codec_context.delay)  # samples before the first one, which nobody hears
        self.block = BLOCKS.get(stream.codec_context.name, 0)
        hidden = not self.exact and (self.delay or self.block)  # what is heard begins after the first packet
        self.origin = self.first[0] if hidden else self._start  # while the decoder is new

    @cached_property
    def first(self) -> tuple[int, int]:
        """Where the first frame that is heard begins and ends, in samples."""
        if self.delay and self.stream.codec_context.is_open:  # only a new decoder cuts off what comes before
            return self._start, self._start - self.delay
        rewind(self.container, self.stream)
        for packet in packets_of(self.container, self.stream, deadline=self.deadline):
            for frame in packet.decode():
                if frame.pts is not None:
                    return round(self.due(frame)), round(self.due(frame)) + int(frame.samples)
        return 0, 0

    @property
    def _start(self) -> int:
        ticks = int(self.stream.start_time or 0)
        return round(ticks * self.tick)

    def due(self, frame: Any) -> float:
        """When a decoded frame plays, in samples."""
        return np.nan if frame.pts is None else float(frame.pts * self.tick)

    def position(self, run: Run) -> int:
        """The number of the first sample of `run`."""
        low, high = run.begins(self.slack)
        if self.exact and high - low < 0.5:
            return round(low)
        begin, end = self.first
        block = self.block or max(end - begin, *run.lengths)
        return counted(run, end, block, self.slack)


def slack(tick: float, rate: int) -> int:
    """Samples that a stamp may be off, in a time base of `tick` samples at `rate` samples a second."""
    return int(max(2 * tick, rate / 500)) + 1


def counted(run: Run, phase: int, block: int, slack: int) -> int:
    """The number of the first sample of `run`, whose stamps may be `slack` samples off.

    Between two frames lie phase + n * block samples; a track's first frame may have lost its start, its last its end.
    """
    ahead = run.lengths[0] if len(run.lengths) > 1 else 0
    edge = sum(run.begins(slack)) / 2 + ahead  # stamps are rounded both ways
    snapped = phase + block * round((edge - phase) / block)
    return (snapped if abs(snapped - edge) <= slack else round(edge)) - ahead


def rewind(container: Any, stream: Any) -> None:
    """To the very first packet: those that only prime the decoder come before the start time."""
    start = stream.start_time or 0
    try:
        container.seek(start - int(10 / stream.time_base), stream=stream, backward=True)
    except av.FFmpegError:  # AVI and MP3 know no time before their first packet
        container.seek(min(start, 0), stream=stream, backward=True)
