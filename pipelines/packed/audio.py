"""Sound as a member of a shard that can be entered anywhere: FLAC in its short frames, or PCM."""

from __future__ import annotations

import io
import wave
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

FULL_SCALE = 32768
HEADER = 8  # bytes of FLAC's magic and of the head of its first block, STREAMINFO, which has 34 more
STREAMINFO = 34


@dataclass(frozen=True)
class Stored:
    """A sound file: its bytes, where its packets lie in it, how long each is in bytes and in samples."""

    data: bytes
    codec: str
    extradata: bytes
    at: list[int]
    size: list[int]
    samples: list[int]


def pcm16(sound: NDArray[np.float32]) -> NDArray[np.int16]:
    """Mono sound (n,) in [-1, 1] as 16-bit integers; what is louder is cut off."""
    scaled = np.rint(sound * np.float32(FULL_SCALE))
    whole: NDArray[np.int16] = np.clip(scaled, -FULL_SCALE, FULL_SCALE - 1).astype(np.int16)
    return whole


def flac(blocks: Iterable[NDArray[np.int16]], rate: int) -> Stored:
    """A FLAC file of mono sound, whose frames of some 0.1 s are decoded one by one."""
    buffer, sizes, samples, done = io.BytesIO(), list[int](), list[int](), 0
    with av.open(buffer, "w", format="flac") as out:
        stream: Any = out.add_stream("flac", rate=rate, layout="mono")
        stream.codec_context.format, stream.codec_context.thread_count = "s16", 1

        def mux(packets: Iterable[Any]) -> None:
            for packet in packets:
                sizes.append(packet.size)
                samples.append(packet.duration)
                out.mux(packet)

        for block in blocks:
            frame = av.AudioFrame.from_ndarray(block[None], format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = rate, done, Fraction(1, rate)
            done += len(block)
            mux(stream.encode(frame))
        mux(stream.encode(None))
    data = buffer.getvalue()
    sizes, samples = sizes[: (count := _frames(sizes))], samples[:count]
    at = np.cumsum([len(data) - sum(sizes), *sizes])[:-1].tolist()
    return Stored(data, "flac", data[HEADER : HEADER + STREAMINFO], at, sizes, samples)


def _frames(sizes: list[int]) -> int:
    """The encoder's last packet is empty: it only brings the final header."""
    return len(sizes) - (sizes[-1:] == [0])


def pcm(blocks: Iterable[NDArray[np.int16]], rate: int) -> Stored:
    """A WAV file of mono sound."""
    sound, buffer = np.concatenate(list(blocks)), io.BytesIO()
    with wave.open(buffer, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes(sound.astype("<i2").tobytes())
    data = buffer.getvalue()
    return Stored(data, "pcm_s16le", b"", [len(data) - 2 * len(sound)], [2 * len(sound)], [len(sound)])


AUDIO: dict[str, Callable[[Iterable[NDArray[np.int16]], int], Stored]] = {"flac": flac, "pcm": pcm}
SUFFIX = {"flac": "flac", "pcm_s16le": "wav"}
