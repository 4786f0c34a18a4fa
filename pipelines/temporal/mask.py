"""TM, time mask (spatio-temporal co-augmentations, section 3.3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from ..curves import segment, white
from ..timeline import Factor, Product, Timeline, TimeMap
from .base import Clip, Parameters, Transform, require

KEYS = 2**31


@dataclass(frozen=True)
class Mask(Transform):
    """`mask(0.5)` or `mask(0.5, 0)`: one segment of up to alpha of the clip, replaced by noise or by a constant.

    Its length is uniform, and so is its place. Noise is Gaussian: as loud as the recorded clip for sound, of the
    normalisation's mean and standard deviation for pictures. A constant is a share of full scale or of white.
    """

    alpha: float
    fill: float | Literal["noise"] = "noise"
    tones: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require(0 <= self.alpha <= 1, f"a strength is between 0 and 1, not {self.alpha}")
        number = isinstance(self.fill, int | float)
        require(number or self.fill == "noise", f"a mask is filled with noise or a number, not {self.fill!r}")

    def draw(self, draws: Sequence[float], clip: Clip, room: float) -> Parameters:
        """(start, end, key): shares of the clip, and which noise."""
        length = self.alpha * draws[0]
        start = (1 - length) * draws[1]
        return (start, start + length, float(int(draws[2] * KEYS)))

    def timeline(self, parameters: Parameters, clip: Clip, before: TimeMap) -> Timeline:
        """A gain of 0 with a fill."""
        start, end, key = parameters
        if end <= start:
            return Timeline()
        fill: Product = (
            Factor(segment(start, end, level=1.0 if self.fill == "noise" else float(self.fill))),
        )
        if self.fill == "noise":
            level = clip.sound.rms if clip.sound else 1.0
            fill += (Factor(white(int(key), clip.count, level, span=(start, end))),)
        return Timeline(gain=(Factor(segment(start, end, outside=True)),), fill=(fill,))

    def describe(self, parameters: Parameters, clip: Clip) -> str:
        """Such as "masked by noise from 20% to 45%"."""
        start, end, _ = parameters
        what = "noise" if self.fill == "noise" else f"{self.fill:g}"
        return f"masked by {what} from {start:.0%} to {end:.0%}" if end > start else ""
