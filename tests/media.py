"""Small real media files for the tests: written by PyAV, with frame numbers burnt in, events on both tracks.

`picture(index, seconds)` and `sound(seconds)` are given *presentation* time, the start time included, so that
what happens at 2 s of one track happens at 2 s of the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import cycle, islice
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
from numpy.typing import NDArray

from coaug.pipelines.scheduling import ordinary_scheduling

Picture = Callable[[int, float], NDArray[np.uint8]]
Sound = Callable[[NDArray[np.float64]], NDArray[np.float64]]

CODECS = {  # suffix -> default video and audio encoder
    ".mp4": ("libx264", "aac"),
    ".mov": ("libx264", "aac"),
    ".mkv": ("libx264", "aac"),
    ".webm": ("libvpx-vp9", "libopus"),
    ".avi": ("mpeg4", "libmp3lame"),
    ".wav": (None, "pcm_s16le"),
    ".flac": (None, "flac"),
    ".mp3": (None, "libmp3lame"),
    ".m4a": (None, "aac"),
    ".ogg": (None, "libopus"),
}
OPTIONS: dict[str, dict[str, str]] = {
    "libx264": {"preset": "veryfast", "crf": "18", "x264-params": "scenecut=0"},
    "libvpx": {"deadline": "realtime", "cpu-used": "8"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8"},
}
COLUMNS, ROWS = 5, 4  # 20 cells: white, 18 bits, black (top right, so that a mirrored picture cannot be read)
BITS = 12
LAME_DELAY = 1105  # samples; AVI cannot say so, and FFmpeg would move the pictures instead


@dataclass(frozen=True)
class Clip:
    """What was written: `pts` of every frame in seconds, as the container stores them, in order."""

    path: Path
    pts: tuple[Fraction, ...]
    seconds: float
    audio_start: float
    audio_seconds: float


def write_clip(
    path: str | Path,
    *,
    codec: str | None = "auto",
    size: tuple[int, int] = (96, 64),
    fps: Fraction | int = 30,
    frames: int = 90,
    audio_codec: str | None = "auto",
    audio_rate: int | None = None,
    channels: int = 1,
    gop: int = 12,
    b_frames: int = 0,
    start: float = 0.0,
    vfr: bool = False,
    rotation: int = 0,
    picture: Picture | None = None,
    sound: Sound | None = None,
    audio_start: float | None = None,
    audio_seconds: float | None = None,
    options: dict[str, str] | None = None,
) -> Clip:
    """One encoded file; the suffix chooses the container and, for "auto", the codecs (None: no such track).

    `size` is (width, height) as coded; `rotation` is the clockwise turn that players apply, and `picture`
    draws what they show, upright. `picture` defaults to burnt-in numbers, `sound` to a 440 Hz tone. `vfr`
    makes frames last 1, 3, 2 or 6 half-frames. `audio_start` and `audio_seconds` default to the picture's.
    The AVI container knows neither start times nor irregular frames; WebM and Matroska round pts to 1 ms.
    """
    path = Path(path)
    video_default, audio_default = CODECS.get(path.suffix, CODECS[".mp4"])
    video_codec = video_default if codec == "auto" else codec
    audio_codec = audio_default if audio_codec == "auto" else audio_codec
    times = _times(Fraction(fps), frames, Fraction(start), vfr)
    seconds = float(times[-1] - times[0])
    audio_seconds = seconds if audio_seconds is None else audio_seconds
    audio_start = start if audio_start is None else audio_start
    upright = size if rotation % 180 == 0 else size[::-1]
    picture = picture or (lambda index, _: burn(index, upright))
    with av.open(str(path), "w") as container:
        tick = Fraction(1) / (Fraction(fps) * (2 if vfr else 1))
        video = audio = None
        if video_codec:
            video = _video(container, video_codec, size, Fraction(fps), tick, gop, b_frames, options or {})
            if rotation:
                video.set_display_rotation(-rotation)
        if audio_codec:
            rate = audio_rate or (48000 if audio_codec == "libopus" else 44100)
            audio = container.add_stream(audio_codec, rate=rate, layout={1: "mono", 2: "stereo"}[channels])
        with ordinary_scheduling():
            container.start_encoding()
        if video is not None:
            _write_video(container, video, times[:-1], tick, picture, rotation)
        if audio is not None:
            _write_audio(container, audio, audio_start, audio_seconds, channels, sound or tone(440.0))
        base = tick if video is None else Fraction(video.time_base)
    pts = tuple(round(t / base) * base for t in times[:-1]) if video_codec else ()
    return Clip(path, pts, seconds, audio_start, audio_seconds if audio_codec else 0.0)


def _times(fps: Fraction, frames: int, start: Fraction, vfr: bool) -> list[Fraction]:
    """Presentation times of all frames and, last, the end of the last one, on the encoder's clock."""
    tick = 1 / fps / (2 if vfr else 1)
    lengths = islice(cycle([1, 3, 2, 6] if vfr else [1]), frames)
    ticks = [round(start / tick)]
    for length in lengths:
        ticks.append(ticks[-1] + length)
    return [t * tick for t in ticks]


def _video(
    container: Any,
    codec: str,
    size: tuple[int, int],
    fps: Fraction,
    tick: Fraction,
    gop: int,
    b_frames: int,
    options: dict[str, str],
) -> Any:
    stream = container.add_stream(codec, rate=fps, options=OPTIONS.get(codec, {}) | options)
    stream.width, stream.height = size
    stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    stream.codec_context.thread_count = 1
    stream.codec_context.time_base = stream.time_base = tick
    if codec != "mjpeg":
        stream.codec_context.gop_size = gop
        stream.codec_context.max_b_frames = b_frames
    if codec != "libx264":  # enough for readable numbers at any rate that the tests use
        stream.codec_context.bit_rate = 40 * size[0] * size[1] * 8
    return stream


def _write_video(
    container: Any, stream: Any, times: list[Fraction], tick: Fraction, picture: Picture, rotation: int
) -> None:
    for index, time in enumerate(times):
        rgb = np.ascontiguousarray(np.rot90(picture(index, float(time)), rotation // 90))
        frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
        frame = frame.reformat(stream.width, stream.height, stream.pix_fmt)
        frame.pts, frame.time_base = round(time / tick), tick
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def _write_audio(
    container: Any, stream: Any, start: float, seconds: float, channels: int, sound: Sound
) -> None:
    rate = stream.codec_context.sample_rate
    first, count = round(start * rate), round(seconds * rate)
    if container.format.name == "avi" and stream.codec_context.name == "libmp3lame":
        first += LAME_DELAY
    for offset in range(0, count, 1024):
        index = np.arange(offset, min(offset + 1024, count))
        mono = sound((first + index) / rate).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(
            np.tile(mono, (channels, 1)), format="fltp", layout={1: "mono", 2: "stereo"}[channels]
        )
        frame.sample_rate, frame.pts, frame.time_base = rate, first + offset, Fraction(1, rate)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def burn(number: int, size: tuple[int, int] = (96, 64)) -> NDArray[np.uint8]:
    """A (height, width, 3) picture that shows `number` (below 4096) as big black and white squares."""
    cells = _cells(number).reshape(ROWS, COLUMNS)
    rows = np.arange(size[1]) * ROWS // size[1]
    columns = np.arange(size[0]) * COLUMNS // size[0]
    grey = np.where(cells[rows][:, columns] > 0, 235, 16).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def read_number(frame: Any) -> int | None:
    """The number in a whole, upright picture of any size and value range; None if there is none to be read.

    `frame`: (H, W), (H, W, 3) or (3, H, W) array or tensor, uint8 or float.
    """
    grey = np.asarray(frame, dtype=np.float64)
    if grey.ndim == 3:
        grey = grey.mean(axis=0 if grey.shape[0] == 3 else 2)
    means = np.array([grey[cell].mean() for cell in _centres(*grey.shape)])
    white, black = means[0], means[COLUMNS - 1]
    if white - black < 1e-3 or np.abs(means - (white + black) / 2).min() < 0.2 * (white - black) / 2:
        return None
    bits = means > (white + black) / 2
    number = int(np.delete(bits, [0, COLUMNS - 1])[:BITS] @ (1 << np.arange(BITS)))
    return number if np.array_equal(bits, _cells(number) > 0) else None


def _cells(number: int) -> NDArray[np.int64]:
    """20 cells in reading order: white corner, black corner, 12 bits of the number and 6 check bits."""
    if not 0 <= number < 1 << BITS:
        raise ValueError(f"{number = } does not fit into {BITS} squares")
    bits = (np.array([number, (number * 37 + 11) % 64])[:, None] >> np.arange(BITS)) & 1
    code = np.concatenate([bits[0], bits[1, : COLUMNS * ROWS - 2 - BITS]])
    return np.insert(code, [0, COLUMNS - 2], [1, 0]).astype(np.int64)


def _centres(height: int, width: int) -> Iterator[tuple[slice, slice]]:
    """The middle half of every cell."""
    for row in range(ROWS):
        for column in range(COLUMNS):
            y, x = height / ROWS, width / COLUMNS
            top, left = (row + 0.25) * y, (column + 0.25) * x
            yield (
                slice(int(top), max(int(top) + 1, int(top + y / 2))),
                slice(int(left), max(int(left) + 1, int(left + x / 2))),
            )


def tone(hertz: float, level: float = 0.5) -> Sound:
    """A steady sine of amplitude `level`."""
    return lambda t: level * np.sin(2 * np.pi * hertz * t)


def silence(t: NDArray[np.float64]) -> NDArray[np.float64]:
    """Digital silence."""
    return np.zeros_like(t)


def flash_and_beep(
    period: float = 1.0,
    first: float = 0.5,
    length: float = 0.1,
    size: tuple[int, int] = (96, 64),
    hertz: float = 1000.0,
) -> tuple[Picture, Sound]:
    """(picture, sound): at first, first + period, ... a black screen turns white and a tone starts."""

    def on(t: NDArray[np.float64]) -> NDArray[np.bool_]:
        return np.asarray((t > first - 1e-6) & ((t - first + 1e-6) % period < length))

    def picture(_: int, seconds: float) -> NDArray[np.uint8]:
        return np.full((size[1], size[0], 3), 255 if on(np.array(seconds)) else 0, np.uint8)

    return picture, lambda t: 0.8 * on(t) * np.sin(2 * np.pi * hertz * (t - first))


def read_frames(path: str | Path) -> list[tuple[Fraction, NDArray[np.uint8]]]:
    """(pts in seconds, upright RGB picture) of every frame: decodes the whole file, the tests' reference."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    pictures = [np.rot90(f.to_ndarray(format="rgb24"), round(f.rotation / 90) % 4) for f in frames]
    times = [cast(int, f.pts) * cast(Fraction, f.time_base) for f in frames]
    return list(zip(times, pictures, strict=True))


def read_audio(path: str | Path) -> tuple[float, int, NDArray[np.float32]]:
    """(seconds of the first sample, rate, mono samples): decodes the whole track, the tests' reference."""
    with av.open(str(path)) as container:
        frames = list(container.decode(audio=0))
        resampler = av.AudioResampler(format="fltp")
        pcm = [part.to_ndarray().mean(axis=0) for f in frames for part in resampler.resample(f)]
    assert frames[0].pts is not None
    assert frames[0].time_base is not None
    return float(frames[0].pts * frames[0].time_base), frames[0].sample_rate, np.concatenate(pcm)


def write_sound(
    path: str | Path,
    codec: str,
    form: str,
    rate: int,
    layout: str,
    *,
    seconds: float = 4.0,
    start: float = 0.0,
    options: dict[str, str] | None = None,
) -> Path:
    """A sound track alone, for any encoder, sample format and layout: swelling tones and noise, each channel its own.

    AAC's noise substitution is off: decoders draw it at random, so that no two of them agree.
    """
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(
            codec, rate=rate, layout=layout, options={"strict": "-2", "aac_pns": "0"} | (options or {})
        )
        stream.format = form
        data = _noises(stream.codec_context.layout.nb_channels, rate, seconds)
        resampler = av.AudioResampler(form, layout, rate)
        for first in range(0, data.shape[1], 4096):
            part = np.ascontiguousarray(data[:, first : first + 4096].T).reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(part, "flt", layout)  # PyAV cannot fill eight planes
            frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
            frame.pts = round(start * rate) + first
            for converted in resampler.resample(frame):
                container.mux(stream.encode(converted))
        container.mux(stream.encode(None))
    return Path(path)


def _noises(channels: int, rate: int, seconds: float) -> NDArray[np.float32]:
    rng, t = np.random.default_rng(0), np.arange(round(seconds * rate)) / rate
    hertz = 300 + 170 * np.arange(channels)[:, None]
    tones = np.sin(2 * np.pi * hertz * t * (1 + 0.1 * t)) * (0.6 + 0.4 * np.sin(2 * np.pi * 1.3 * t))
    noise = rng.standard_normal(tones.shape) * (np.sin(2 * np.pi * 0.7 * t) > 0)
    return np.asarray(0.3 * tones + 0.03 * noise, np.float32)


def copy_packets(
    source: str | Path,
    path: str | Path,
    *,
    later: float = 0.0,
    hole: tuple[float, float] = (0.0, 0.0),
    options: dict[str, str] | None = None,
) -> Path:
    """The same packets in another container, by decoding time, `later` seconds later and without those that begin in
    `hole` [low, high).

    With `later` below zero an mp4 gets an edit list that hides what comes before time zero.
    """
    options = ({"avoid_negative_ts": "disabled"} if later < 0 else {}) | (options or {})
    with av.open(str(source)) as container, av.open(str(path), "w", options=options) as out:
        targets = {s.index: out.add_stream_from_template(s, opaque=True) for s in container.streams}
        for packet in sorted((p for p in container.demux() if p.size), key=lambda p: p.dts * p.time_base):
            if not hole[0] <= float(packet.pts * packet.time_base) < hole[1]:
                shift = round(later / packet.time_base)
                packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                packet.stream = targets[packet.stream_index]
                out.mux(packet)
    return Path(path)
