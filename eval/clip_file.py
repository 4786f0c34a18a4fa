"""The views of a sheet as one film to look at and listen to, one after the other."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.audio.resampler import AudioResampler
from numpy.typing import NDArray

from .take import Sheet

PAUSE = 0.5  # seconds, black and silent, between two views
SMALLEST = 256  # pixels: smaller pictures are enlarged by a whole number
AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)


def write_clips(sheet: Sheet, path: Path) -> None:
    """Writes H.264 and AAC: the frames at their rate and the waveforms at theirs, what is absent left out.

    View v begins v · `period(sheet)` seconds into the film. Values beyond full scale are clipped, as a player would.

    Raises:
        OSError: `path` cannot be written.
    """
    with av.open(str(path), "w", format="mp4") as file:
        streams = []
        if sheet.takes[0].frames is not None:
            streams.append((_picture_stream(file, sheet), _pictures(sheet)))
        if sheet.takes[0].waveform is not None:
            rate = next((r for r in AAC_RATES if r >= sheet.config.audio.rate), AAC_RATES[-1])
            streams.append((file.add_stream("aac", rate=rate, layout="mono"), _sound(sheet, rate)))
        for stream, frames in streams:
            for frame in frames:
                file.mux(stream.encode(frame))
            file.mux(stream.encode(None))


def period(sheet: Sheet) -> float:
    """Seconds from the beginning of a view to that of the next: whole frames."""
    fps = float(_rate(sheet))
    return math.ceil((sheet.config.clip_seconds + PAUSE) * fps - 1e-6) / fps


def _rate(sheet: Sheet) -> Fraction:
    return Fraction(sheet.config.video.fps).limit_denominator(1001)


def _picture_stream(file: av.container.OutputContainer, sheet: Sheet) -> av.VideoStream:
    stream = file.add_stream("libx264", rate=_rate(sheet), options={"crf": "16", "preset": "fast"})
    stream.width = stream.height = sheet.config.video.size * _factor(sheet.config.video.size)
    stream.pix_fmt = "yuv420p"
    return stream


def _factor(size: int) -> int:
    """What makes a picture at least `SMALLEST` pixels and, as H.264 wants it, an even number of them."""
    factor = math.ceil(SMALLEST / size)
    return factor + 1 if factor * size % 2 else factor


def _pictures(sheet: Sheet) -> Iterator[av.VideoFrame]:
    rate, factor = _rate(sheet), _factor(sheet.config.video.size)
    every = round(period(sheet) * rate)
    last = math.ceil(sheet.config.clip_seconds * rate)  # nothing follows the last view
    for index in range(every * (len(sheet.takes) - 1) + last):
        view, place = divmod(index, every)
        frames = sheet.takes[view].frames
        assert frames is not None
        pixels = frames[place] if place < len(frames) else np.zeros_like(frames[0])
        enlarged = pixels.repeat(factor, axis=0).repeat(factor, axis=1)
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(enlarged), format="rgb24")
        frame.pts, frame.time_base = index, 1 / rate
        yield frame


def _sound(sheet: Sheet, rate: int) -> Iterator[av.AudioFrame]:
    """The whole sound as one frame, resampled where the encoder does not know its rate."""
    samples = sheet.config.audio.rate
    frame = av.AudioFrame.from_ndarray(_samples(sheet)[None], format="fltp", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = samples, 0, Fraction(1, samples)
    if rate == samples:
        yield frame
        return
    resampler = AudioResampler(format="fltp", layout="mono", rate=rate)
    yield from resampler.resample(frame)
    yield from resampler.resample(None)


def _samples(sheet: Sheet) -> NDArray[np.float32]:
    rate, begins = sheet.config.audio.rate, period(sheet)
    length = round((begins * (len(sheet.takes) - 1) + sheet.config.clip_seconds) * rate)
    out = np.zeros(length + 1, np.float32)
    for view, take in enumerate(sheet.takes):
        assert take.waveform is not None
        first = round(view * begins * rate)
        out[first : first + len(take.waveform)] = take.waveform.clip(-1, 1)
    return out
