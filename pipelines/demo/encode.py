"""The three kinds of file of the demo set: H.264/AAC mp4, VP9/Opus webm, MPEG-4/MP3 avi."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from .recording import Recording
from .score import Array


@dataclass(frozen=True)
class Format:
    """A container with its codecs and their options."""

    container: str
    video: str
    audio: str
    options: dict[str, str] = field(default_factory=dict)
    sound_options: dict[str, str] = field(default_factory=dict)
    bit_rate: int = 0
    delay: int = 0
    """Samples that the sound encoder puts in front, where the container cannot say so: as many are left out."""

    def write(self, path: Path, recording: Recording) -> None:
        """Encode a recording into `path`."""
        with av.open(str(path), "w", format=self.container, options={"fflags": "+bitexact"}) as file:
            picture = self._picture_stream(file, recording)
            sound = file.add_stream(self.audio, rate=recording.sample_rate, options=self.sound_options)
            sound.codec_context.layout = "mono" if recording.channels == 1 else "stereo"
            file.mux(
                sound.encode(_block(recording.samples()[:, self.delay :], recording.sample_rate, self.delay))
            )
            file.mux(sound.encode(None))
            for n, pixels in enumerate(recording.frames()):
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                frame.pts, frame.time_base = n, Fraction(1) / recording.look.rate
                file.mux(picture.encode(frame))
            file.mux(picture.encode(None))

    def _picture_stream(self, file: av.container.OutputContainer, recording: Recording) -> av.VideoStream:
        stream = file.add_stream(self.video, rate=recording.look.rate, options=self.options)
        stream.width, stream.height, stream.pix_fmt = recording.look.width, recording.look.height, "yuv420p"
        stream.codec_context.thread_count = 1  # the pool is parallel already, and one thread is deterministic
        if self.bit_rate:
            stream.bit_rate = self.bit_rate
        return stream


def _block(samples: Array, rate: int, start: int) -> av.AudioFrame:
    """The whole sound as one frame; the encoder cuts it to its own length."""
    layout = "mono" if len(samples) == 1 else "stereo"
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout=layout)
    frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
    return frame


FORMATS = {
    ".mp4": Format(
        "mp4",
        "libx264",
        "aac",
        {"preset": "veryfast", "bf": "3", "g": "250", "crf": "21", "x264-params": "cpu-independent=1"},
        {"aac_coder": "fast"},
    ),
    ".webm": Format(
        "webm", "libvpx-vp9", "libopus", {"deadline": "realtime", "cpu-used": "8"}, bit_rate=300_000
    ),
    ".avi": Format("avi", "mpeg4", "libmp3lame", {"g": "60"}, bit_rate=600_000, delay=1105),
}
