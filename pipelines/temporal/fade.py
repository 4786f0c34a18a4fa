"""FD, fade in and out (spatio-temporal co-augmentations, section 3.3.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from ..curves import EXPONENTIAL, HALF_SINE, LINEAR, LOGARITHMIC, QUARTER_SINE, RAMPS, Curve
from ..timeline import Factor, Timeline, TimeMap
from .base import Clip, Parameters, Transform, require

SHAPES: Mapping[str, int] = {
    "linear": LINEAR,
    "exponential": EXPONENTIAL,
    "logarithmic": LOGARITHMIC,
    "quarter_sine": QUARTER_SINE,
    "half_sine": HALF_SINE,
}


@dataclass(frozen=True)
class Fade(Transform):
    """`fade(0.5)`: rises from nothing and falls to nothing, each over up to alpha / 2 of the clip.

    Both lengths are uniform and independent; the shape is one of five, uniformly, or the one that is named.
    """

    alpha: float
    shape: str = "any"
    tones: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require(0 <= self.alpha <= 1, f"a strength is between 0 and 1, not {self.alpha}")
        known = ("any", *SHAPES)
        require(self.shape in known, f"a fade's shape is one of {', '.join(known)}, not {self.shape!r}")

    def draw(self, draws: Sequence[float], clip: Clip, room: float) -> Parameters:
        """(length in, length out, shape): shares of the clip."""
        kind = SHAPES[self.shape] if self.shape in SHAPES else RAMPS[int(draws[2] * len(RAMPS))]
        return (draws[0] * self.alpha / 2, draws[1] * self.alpha / 2, float(kind))

    def timeline(self, parameters: Parameters, clip: Clip, before: TimeMap) -> Timeline:
        """Two gains."""
        rise, fall, kind = parameters
        ramps = [Curve(int(kind), 0.0, rise)] if rise else []
        ramps += [Curve(int(kind), 1.0, 1.0 - fall)] if fall else []
        return Timeline(gain=tuple(map(Factor, ramps)))

    def describe(self, parameters: Parameters, clip: Clip) -> str:
        """Such as "faded in over 21%, out over 8% (half sine)"."""
        rise, fall, kind = parameters
        name = next(name for name, number in SHAPES.items() if number == kind).replace("_", " ")
        ends = [f"{way} over {share:.0%}" for way, share in (("in", rise), ("out", fall)) if share]
        return f"faded {', '.join(ends)} ({name})" if ends else ""
