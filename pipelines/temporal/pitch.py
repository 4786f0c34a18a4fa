"""Pitch shift (spatio-temporal co-augmentations, Table 1), as a time map: short pieces read faster or slower, spliced.

Within a piece the sound is read r times as fast, so all frequencies are multiplied by r; each piece begins anew where
the clip stands, so that time goes on as before. A piece may begin a few milliseconds early or late, where its waveform
fits the end of the one before it best (WSOLA: Verhelst & Roelands, 1993), and is faded in over it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ..timeline import Stage, Timeline, TimeMap
from .base import Clip, Parameters, Transform, between, require

PIECE = 0.04  # seconds at most, and short enough that no sound is heard more than DRIFT / 2 early or late
DRIFT = 0.02
OVERLAP = 0.01
SEARCH = 0.006  # seconds to either side: the period of 83 Hz
COARSE = 8000.0  # Hz at which waveforms are compared


@dataclass(frozen=True)
class Pitch(Transform):
    """`audio: pitch(4)`: up to so many semitones higher or lower, uniformly; the order of the steps matters."""

    semitones: float
    audio_only: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require(0 <= self.semitones <= 24, f"0 to 24 semitones, not {self.semitones}")

    def draw(self, draws: Sequence[float], clip: Clip, room: float) -> Parameters:
        """(semitones,)."""
        return (between(-self.semitones, self.semitones, draws[0]),)

    def timeline(self, parameters: Parameters, clip: Clip, before: TimeMap) -> Timeline:
        """Pieces of slope r."""
        ratio = 2.0 ** (parameters[0] / 12)
        if ratio == 1.0:
            return Timeline()
        piece = min(PIECE, DRIFT / abs(ratio - 1.0))
        overlap = min(OVERLAP, piece / 2)
        starts = np.arange(0.0, clip.seconds, piece)
        sources = starts + (1.0 - ratio) * piece / 2  # right in the middle of the piece
        if clip.sound is not None:
            sources = _splice(_coarse(clip, before), sources, ratio, piece, overlap)
        start, source = (tuple((x / clip.seconds).tolist()) for x in (starts, sources))
        slope, faded = (ratio,) * len(starts), overlap / clip.seconds
        return Timeline(TimeMap((Stage(start, source, slope, overlap=faded),)))

    def describe(self, parameters: Parameters, clip: Clip) -> str:
        """Such as "pitch +4.2 semitones"."""
        return f"pitch {parameters[0]:+.1f} semitones"


def _coarse(clip: Clip, before: TimeMap) -> NDArray[np.float64]:
    """The clip so far at `COARSE` Hz, from `PIECE` seconds before its beginning to as long after its end."""
    sound = clip.sound
    assert sound is not None
    times = np.arange(-PIECE, clip.seconds + 2 * PIECE, 1 / COARSE)
    places = sound.origin + before(times / clip.seconds) * clip.seconds * sound.rate
    width = max(round(sound.rate * before.steepest / COARSE), 1)
    total = np.concatenate([[0.0], np.cumsum(sound.pcm, dtype=np.float64)])
    first = np.clip(places - width / 2, 0, len(sound.pcm)).astype(np.int64)
    last = np.minimum(first + width, len(sound.pcm))
    return np.asarray((total[last] - total[first]) / width)  # the mean around each place


def _splice(
    coarse: NDArray[np.float64], sources: NDArray[np.float64], ratio: float, piece: float, overlap: float
) -> NDArray[np.float64]:
    """The sources, each moved to where the waveform is most like the end of the piece before it."""
    chosen, reach = sources.copy(), round(SEARCH * COARSE)
    length = max(round(ratio * overlap * COARSE), 8)
    total = np.concatenate([[0.0], np.cumsum(coarse**2)])
    loudness = 1 / np.sqrt(
        total[length:] - total[:-length] + 1e-12
    )  # of the stretch that begins at each sample
    for k in range(1, len(sources)):
        exact = (chosen[k - 1] + ratio * piece + PIECE) * COARSE
        end, first = round(exact), round((sources[k] + PIECE) * COARSE) - reach
        template, around = coarse[max(end, 0) :][:length], coarse[max(first, 0) :][: length + 2 * reach]
        if len(template) < length or len(around) < length + 2 * reach or first < 0 or end < 0:
            continue
        match = np.correlate(around, template, "valid") * loudness[first : first + 2 * reach + 1]
        chosen[k] = (
            first + int(match.argmax()) + exact - end
        ) / COARSE - PIECE  # off by as much as the template
    return chosen
