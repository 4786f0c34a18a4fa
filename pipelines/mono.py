"""Decoded sound of any sample format and layout as one track."""

from __future__ import annotations

from typing import Any

import numpy as np
from av.audio.fifo import AudioFifo
from numpy.typing import NDArray

KINDS = {  # FFmpeg's sample formats
    name: np.dtype(kind)
    for name, kind in {"u8": "u1", "s16": "i2", "s32": "i4", "s64": "i8", "flt": "f4", "dbl": "f8"}.items()
}


class MonoBuffer:
    """Puts frames together: they are many and short, so FFmpeg joins them before NumPy sees them; `samples` so far."""

    def __init__(self) -> None:
        self.samples = 0
        self._joined: list[AudioFifo] = []  # one after the other, where a stream changes its format
        self._kind: tuple[str, int, int] | None = None

    def write(self, frame: Any) -> None:
        """Appends a frame, whose time stamp is lost."""
        kind = (frame.format.name, frame.layout.nb_channels, frame.sample_rate)
        if kind != self._kind:
            self._kind = kind
            self._joined.append(AudioFifo())
        frame.pts = None  # a buffer refuses stamps with gaps, and rounded ones
        self._joined[-1].write(frame)
        self.samples += frame.samples

    def read(self) -> NDArray[np.float32]:
        """All of it, (samples,) float32 in [-1, 1]; there is one reading."""
        tracks = [mono(frame) for each in self._joined if (frame := each.read()) is not None]
        return tracks[0] if len(tracks) == 1 else np.concatenate([*tracks, np.zeros(0, np.float32)])


def mono(frame: Any) -> NDArray[np.float32]:
    """The channels' mean, (n,) float32 in [-1, 1], of an audio frame."""
    name, channels = frame.format.name, frame.layout.nb_channels
    planes, kind = frame.planes[:channels], KINDS[name.rstrip("p")]  # of eight planes PyAV makes nine
    if name[-1] == "p":
        tracks = [np.frombuffer(plane, kind, frame.samples) for plane in planes]
    else:
        tracks = list(np.frombuffer(planes[0], kind, frame.samples * channels).reshape(-1, channels).T)
    total = _mean(tracks)
    if kind.kind == "f":
        return total
    middle, full = (128, 128) if kind.kind == "u" else (0, -int(np.iinfo(kind).min))
    return (total - np.float32(middle)) * np.float32(1 / full)


def _mean(tracks: list[NDArray[Any]]) -> NDArray[np.float32]:
    """In memory of its own: the tracks lie in the decoder's."""
    if len(tracks) == 1:
        return tracks[0].astype(np.float32)
    total: NDArray[np.float32] = np.add(tracks[0], tracks[1], dtype=np.float32)
    for track in tracks[2:]:
        np.add(total, track, out=total, dtype=np.float32)
    total /= len(tracks)
    return total
