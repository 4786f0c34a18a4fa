"""The tracks of a file while it is probed: packet times, the first frame, how loud the sound is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from .demux import packets_of
from .mono import mono
from .recording import AudioStream, VideoStream

SILENCE_DB = -60.0
"""A track that is nowhere louder (100 ms RMS, dBFS of the channels' mean) counts as silent."""
FLOOR_DB = -120.0
HEAD_SECONDS = 20.0  # decoded in full; of the rest of a longer track only WINDOWS of one second
WINDOWS = 6
MAX_TRIES = 512  # packets sent to a decoder that gives nothing before it is given up


def packets(container: Any, *streams: Any) -> Iterator[Any]:
    """Sound packets of the streams, up to the end or to the first place that cannot be read."""
    try:
        for packet in packets_of(container, *streams):
            if packet.size and not packet.is_corrupt:
                yield packet
    except av.FFmpegError:
        return


@dataclass
class Track:
    """Times of one stream's packets, in ticks of its time base."""

    stream: Any
    times: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    first: float | None = None
    """Presentation time of the first decoded frame, seconds."""
    tries: int = 0

    def feed(self, packet: Any) -> None:
        """Notes when a packet is shown, and decodes it where the track still wants to know something."""
        time = packet.pts if packet.pts is not None else packet.dts
        if time is not None and not packet.is_discard:
            self.times.append(time)
            self.lengths.append(packet.duration or 0)
        if self._wanted():
            self.tries += 1
            self.decode(packet)

    def _wanted(self) -> bool:
        raise NotImplementedError

    def _take(self, frame: Any) -> None:
        raise NotImplementedError

    def decode(self, packet: Any) -> None:
        """Decodes a packet (None: what the decoder still holds); damaged ones count for nothing."""
        try:
            frames = self.stream.codec_context.decode(packet)
        except (av.FFmpegError, ValueError):
            return
        for frame in frames:
            if not frame.is_corrupt:
                self.first = self._time(frame) if self.first is None else self.first
                self._take(frame)

    def _time(self, frame: Any) -> float:
        ticks = frame.pts if frame.pts is not None else frame.dts
        return float((min(self.times, default=0) if ticks is None else ticks) * self._base)

    @property
    def _base(self) -> Fraction:
        return Fraction(self.stream.time_base)

    @property
    def _codec(self) -> str:
        return str(self.stream.codec_context.codec.canonical_name)


class Picture(Track):
    """A picture track: its first decoded frame tells size and rotation, its packets the rhythm."""

    frame: Any = None

    def _wanted(self) -> bool:
        return self.frame is None and self.tries < MAX_TRIES

    def _take(self, frame: Any) -> None:
        self.frame = self.frame or frame

    def problem(self) -> str:
        """Why the track is of no use, or ""."""
        if self.frame is None or not self.times:
            return "picture cannot be decoded"
        return ""

    def describe(self) -> VideoStream:
        """What was found; only where there is no problem."""
        assert self.first is not None
        pts = np.unique(np.array(self.times)) * float(self._base)
        fps, vfr = _rhythm(pts, self.stream.average_rate)
        last = max(range(len(self.times)), key=self.times.__getitem__)
        length = float(self.lengths[last] * self._base) or 1 / fps
        return VideoStream(
            codec=self._codec,
            width=self.frame.width,
            height=self.frame.height,
            rotation=round(-self.frame.rotation / 90) * 90 % 360,  # FFmpeg counts anticlockwise
            fps=fps,
            vfr=vfr,
            start=self.first,
            duration=float(pts[-1]) + length - self.first,
            pixel_format=self.frame.format.name,
        )


def _rhythm(pts: NDArray[np.float64], nominal: Fraction | None) -> tuple[float, bool]:
    """(average rate, whether frames leave the even grid) from sorted presentation times in seconds."""
    if len(pts) < 2:
        return float(nominal or 25), False
    fps = (len(pts) - 1) / float(pts[-1] - pts[0])
    stray = np.abs((pts - pts[0]) * fps - np.arange(len(pts))).max()
    if stray > 0.4:
        return fps, True
    near = nominal and abs(float(nominal) / fps - 1) < 0.005  # exact where pts are rounded to milliseconds
    return float(nominal) if nominal and near else fps, False


class Sound(Track):
    """A sound track: decoded in full up to HEAD_SECONDS, beyond that sampled."""

    meter: Meter | None = None
    end = 0.0
    whole = True
    """Whether everything was decoded, so that `end` is exact."""

    def _wanted(self) -> bool:
        if self.tries >= MAX_TRIES and self.first is None:
            return False
        if self.first is None or self.end - self.first < HEAD_SECONDS:
            return True
        self.whole = False
        return False

    def _take(self, frame: Any) -> None:
        self.meter = self.meter or Meter(frame.sample_rate)
        self.meter.feed(frame)
        time = self._time(frame) if frame.pts is not None else self.end or self.first
        self.end = (time or 0.0) + frame.samples / frame.sample_rate

    def problem(self) -> str:
        """Why the track is of no use, or ""."""
        return "sound cannot be decoded" if self.first is None or not self.times else ""

    @property
    def level(self) -> float:
        """Loudest 100 ms heard so far, dBFS."""
        return self.meter.level if self.meter else FLOOR_DB

    def sample(self, container: Any) -> None:
        """Listens to a long track beyond its head, to all of it if nothing was heard so far."""
        if self.whole:
            return
        head, end = self.end, self._last()
        for step in range(WINDOWS):
            self._listen(container, head + (end - head) * (step + 0.5) / WINDOWS, 1.0)
        if self.level <= SILENCE_DB:
            self._listen(container, head, end - head)

    def _listen(self, container: Any, start: float, seconds: float) -> None:
        try:
            container.seek(int(start / self._base), stream=self.stream)
        except av.FFmpegError:
            return
        self.stream.codec_context.flush_buffers()
        for packet in packets(container, self.stream):
            self.decode(packet)
            if self.end > start + seconds:
                return

    def _last(self) -> float:
        return float(max(t + n for t, n in zip(self.times, self.lengths, strict=True)) * self._base)

    def describe(self) -> AudioStream:
        """What was found; only where there is no problem."""
        assert self.first is not None
        assert self.meter is not None
        end = self.end if self.whole else self._last()
        layout = self.stream.codec_context.layout
        return AudioStream(
            self._codec, self.meter.rate, layout.nb_channels, self.first, end - self.first, self.level
        )


class Meter:
    """Loudest 100 ms of mono sound, in dBFS: a full-scale square wave reads 0, a sine -3."""

    def __init__(self, rate: int) -> None:
        self.rate, self.peak = rate, 0.0
        self._rest = np.zeros(0, np.float32)

    def feed(self, frame: Any) -> None:
        """Measures a decoded frame of any sample format; channels are averaged."""
        self._rest = np.nan_to_num(np.concatenate([self._rest, mono(frame)]))
        block = max(1, self.rate // 10)
        if count := len(self._rest) // block:
            blocks = self._rest[: count * block].reshape(count, block)
            self._rest = self._rest[count * block :]
            self.peak = max(self.peak, float(np.square(blocks, dtype=np.float64).mean(axis=1).max()))

    @property
    def level(self) -> float:
        """The loudest block so far, not below FLOOR_DB."""
        power = self.peak
        if not power and len(self._rest):  # shorter than 100 ms
            power = float(np.square(self._rest, dtype=np.float64).mean())
        return max(FLOOR_DB, 10 * float(np.log10(power))) if power > 0 else FLOOR_DB
