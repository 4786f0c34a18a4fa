"""One media file -> its streams as they really are, found by reading and decoding, or the reason why not."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from .catalog import AudioStream, VideoStream

SILENCE_DB = -60.0
"""A track that is nowhere louder (100 ms RMS, dBFS of the channels' mean) counts as silent."""
FLOOR_DB = -120.0
HEAD_SECONDS = 20.0  # decoded in full; of the rest of a longer track only WINDOWS of one second
WINDOWS = 6
MAX_TRIES = 512  # packets sent to a decoder that gives nothing before it is given up


@dataclass(frozen=True)
class Reject:
    """A file, or part of one, that cannot be used: `reason` groups, `detail` explains, `retry`: may pass next time."""

    path: str
    reason: str
    detail: str = ""
    retry: bool = False


@dataclass(frozen=True)
class Probe:
    """What a file holds. A stream that is None has its reason in `no_video` or `no_audio`."""

    path: str
    video: VideoStream | None
    audio: AudioStream | None
    no_video: str = ""
    no_audio: str = ""


def probe(path: str) -> Probe | Reject:
    """Opens, reads to the end and decodes samples of `path`. Never raises for a bad file, never prints."""
    level = av.logging.get_level()
    av.logging.set_level(None)
    try:
        _check_file(path)
        with av.open(path, metadata_errors="replace", timeout=30.0) as container:
            return _probe(path, container)
    except _Unfit as unfit:
        return Reject(path, *unfit.args)
    except PermissionError as error:
        return Reject(path, "cannot be read", _short(error), retry=True)
    except (av.FFmpegError, OSError, ValueError) as error:
        retry = isinstance(error, OSError) and not isinstance(error, av.FFmpegError)
        return Reject(path, "not a media file, or cut off before its index", _short(error), retry)
    finally:
        av.logging.set_level(level)


def probe_json(path: str) -> dict[str, Any]:
    """`probe` for worker processes and journals: something that `from_json` turns back into its result."""
    try:
        return asdict(probe(path))
    except Exception as error:  # no file may end the run; its name and the error reach the table of rejects
        return asdict(Reject(path, "probing failed", f"{type(error).__name__}: {_short(error)}", retry=True))


def from_json(tree: dict[str, Any]) -> Probe | Reject:
    """The inverse of `probe_json`."""
    if "reason" in tree:
        return Reject(**tree)
    video, audio = tree["video"], tree["audio"]
    tree = {**tree, "video": video and VideoStream(**video), "audio": audio and AudioStream(**audio)}
    return Probe(**tree)


class _Unfit(Exception):
    """(reason, detail) of a Reject."""


def _check_file(path: str) -> None:
    try:
        status = os.stat(path)
    except OSError as error:
        raise _Unfit("cannot be read", _short(error), True) from None
    if not stat.S_ISREG(status.st_mode):  # opening a named pipe would wait for ever
        raise _Unfit("not a regular file", "a folder" if stat.S_ISDIR(status.st_mode) else "")
    if status.st_size == 0:
        raise _Unfit("empty file", "0 bytes")
    with open(path, "rb"):  # tells a missing permission from a broken file
        pass


def _probe(path: str, container: Any) -> Probe | Reject:
    video, audio = _pick(container, "video"), _pick(container, "audio")
    if video is None and audio is None:
        return Reject(path, "neither picture nor sound")
    picture = _Picture(video) if video is not None else None
    sound = _Sound(audio) if audio is not None else None
    _read(container, picture, sound)
    no_video = "no picture" if picture is None else picture.problem()
    no_audio = "no sound" if sound is None else sound.problem()
    if sound is not None and not no_audio:
        sound.sample(container)
        if sound.level <= SILENCE_DB:
            no_audio = "silent"
    if no_video and no_audio:
        present = [why for why, track in ((no_video, picture), (no_audio, sound)) if track is not None]
        return Reject(path, " and ".join(present))
    return Probe(
        path,
        picture.describe() if picture is not None and not no_video else None,
        sound.describe() if sound is not None and not no_audio else None,
        no_video,
        no_audio,
    )


def _pick(container: Any, kind: str) -> Any:
    """The stream that players would choose; a cover picture is no video."""
    streams = [s for s in getattr(container.streams, kind) if not s.disposition & _STILL]
    best = container.streams.best(kind)
    stream = best if best in streams else next(iter(streams), None)
    if stream is None or stream.codec_context is None:
        return None
    stream.codec_context.thread_count = 1
    return stream


_STILL = av.stream.Disposition.attached_pic | av.stream.Disposition.timed_thumbnails


def _read(container: Any, *tracks: Any) -> None:
    """Shows every sound packet to its track, up to the end or to the first one that cannot be read."""
    by_index = {track.stream.index: track for track in tracks if track is not None}
    for packet in _packets(container, *(track.stream for track in by_index.values())):
        by_index[packet.stream_index].feed(packet)
    for track in by_index.values():
        track.decode(None)


def _packets(container: Any, *streams: Any) -> Iterator[Any]:
    try:
        for packet in container.demux(*streams):
            if packet.size and not packet.is_corrupt:
                yield packet
    except av.FFmpegError:
        return


@dataclass
class _Track:
    """Times of one stream's packets, in ticks of its time base."""

    stream: Any
    times: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    first: float | None = None
    """Presentation time of the first decoded frame, seconds."""
    tries: int = 0

    def feed(self, packet: Any) -> None:
        time = packet.pts if packet.pts is not None else packet.dts
        if time is not None and not packet.is_discard:
            self.times.append(time)
            self.lengths.append(packet.duration or 0)
        if self.wanted():
            self.tries += 1
            self.decode(packet)

    def wanted(self) -> bool:
        raise NotImplementedError

    def take(self, frame: Any) -> None:
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
                self.take(frame)

    def _time(self, frame: Any) -> float:
        ticks = frame.pts if frame.pts is not None else frame.dts
        return float((min(self.times, default=0) if ticks is None else ticks) * self.base)

    @property
    def base(self) -> Fraction:
        return Fraction(self.stream.time_base)

    @property
    def codec(self) -> str:
        return str(self.stream.codec_context.codec.canonical_name)


class _Picture(_Track):
    frame: Any = None

    def wanted(self) -> bool:
        return self.frame is None and self.tries < MAX_TRIES

    def take(self, frame: Any) -> None:
        self.frame = self.frame or frame

    def problem(self) -> str:
        if self.frame is None or not self.times:
            return "picture cannot be decoded"
        return ""

    def describe(self) -> VideoStream:
        assert self.first is not None
        pts = np.unique(np.array(self.times)) * float(self.base)
        fps, vfr = _rhythm(pts, self.stream.average_rate)
        last = max(range(len(self.times)), key=self.times.__getitem__)
        length = float(self.lengths[last] * self.base) or 1 / fps
        return VideoStream(
            codec=self.codec,
            width=self.frame.width,
            height=self.frame.height,
            rotation=round(-self.frame.rotation / 90) * 90 % 360,  # FFmpeg counts anticlockwise
            fps=fps,
            vfr=vfr,
            start=self.first,
            duration=float(pts[-1]) + length - self.first,
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


class _Sound(_Track):
    meter: _Meter | None = None
    end = 0.0
    whole = True
    """Whether everything was decoded, so that `end` is exact."""

    def wanted(self) -> bool:
        if self.tries >= MAX_TRIES and self.first is None:
            return False
        if self.first is None or self.end - self.first < HEAD_SECONDS:
            return True
        self.whole = False
        return False

    def take(self, frame: Any) -> None:
        self.meter = self.meter or _Meter(frame.sample_rate)
        self.meter.feed(frame)
        time = self._time(frame) if frame.pts is not None else self.end or self.first
        self.end = (time or 0.0) + frame.samples / frame.sample_rate

    def problem(self) -> str:
        return "sound cannot be decoded" if self.first is None or not self.times else ""

    @property
    def level(self) -> float:
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
            container.seek(int(start / self.base), stream=self.stream)
        except av.FFmpegError:
            return
        self.stream.codec_context.flush_buffers()
        for packet in _packets(container, self.stream):
            self.decode(packet)
            if self.end > start + seconds or (seconds > 1 and self.level > SILENCE_DB):
                return

    def _last(self) -> float:
        return float(max(t + n for t, n in zip(self.times, self.lengths, strict=True)) * self.base)

    def describe(self) -> AudioStream:
        assert self.first is not None
        assert self.meter is not None
        end = self.end if self.whole else self._last()
        layout = self.stream.codec_context.layout
        return AudioStream(
            self.codec, self.meter.rate, layout.nb_channels, self.first, end - self.first, self.level
        )


class _Meter:
    """Loudest 100 ms of mono sound, in dBFS: a full-scale square wave reads 0, a sine -3."""

    def __init__(self, rate: int) -> None:
        self.rate, self.peak = rate, 0.0
        self._resampler = av.AudioResampler(format="fltp")
        self._rest = np.zeros(0, np.float32)

    def feed(self, frame: Any) -> None:
        parts = [part.to_ndarray().mean(axis=0) for part in self._resampler.resample(frame)]
        self._rest = np.nan_to_num(np.concatenate([self._rest, *parts]))
        block = max(1, self.rate // 10)
        if count := len(self._rest) // block:
            blocks = self._rest[: count * block].reshape(count, block)
            self._rest = self._rest[count * block :]
            self.peak = max(self.peak, float(np.square(blocks, dtype=np.float64).mean(axis=1).max()))

    @property
    def level(self) -> float:
        power = self.peak
        if not power and len(self._rest):  # shorter than 100 ms
            power = float(np.square(self._rest, dtype=np.float64).mean())
        return max(FLOOR_DB, 10 * float(np.log10(power))) if power > 0 else FLOOR_DB


def _short(error: Any) -> str:
    return " ".join(str(getattr(error, "strerror", None) or error).split())[:200]
