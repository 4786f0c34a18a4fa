"""Coloured noise on the sound (spatio-temporal co-augmentations, Table 1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ..curves import COLOURS, white
from ..timeline import Factor, Timeline, TimeMap
from .base import Clip, Parameters, Transform, between, require
from .mask import KEYS


@dataclass(frozen=True)
class Noise(Transform):
    """`audio: noise(pink, 5, 20)`: Gaussian noise of a colour, so many decibels (uniform) below the recorded clip.

    White, pink and brown: power proportional to 1, 1 / f and 1 / f². Later steps act on it, but for a pitch shift,
    which moves what was recorded only.
    """

    colour: str = "white"
    low: float = 5.0
    high: float = 20.0
    tones: ClassVar[bool] = True
    audio_only: ClassVar[bool] = True

    def __post_init__(self) -> None:
        known = ("any", *COLOURS)
        require(self.colour in known, f"a noise's colour is one of {', '.join(known)}, not {self.colour!r}")
        require(self.low <= self.high, f"signal-to-noise ratios ascend: {self.low}, {self.high} dB")

    def draw(self, draws: Sequence[float], clip: Clip, room: float) -> Parameters:
        """(SNR in dB, key, number of the colour)."""
        names = list(COLOURS)
        colour = int(draws[2] * len(names)) if self.colour == "any" else names.index(self.colour)
        return (between(self.low, self.high, draws[0]), float(int(draws[1] * KEYS)), float(colour))

    def timeline(self, parameters: Parameters, clip: Clip, before: TimeMap) -> Timeline:
        """A fill."""
        ratio, key, colour = parameters
        level = (clip.sound.rms if clip.sound else 1.0) * 10.0 ** (-ratio / 20)
        noise = white(int(key), clip.count, level, list(COLOURS)[int(colour)])
        return Timeline(fill=((Factor(noise),),))

    def describe(self, parameters: Parameters, clip: Clip) -> str:
        """Such as "pink noise, 12 dB below"."""
        ratio, _, colour = parameters
        return f"{list(COLOURS)[int(colour)]} noise, {ratio:.0f} dB below"
