"""AVID's jitters of the sound against the picture: when it begins, how long it lasts, how loud it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ..curves import constant
from ..timeline import Factor, Timeline, TimeMap
from .base import Clip, Parameters, Placement, Transform, between, require


@dataclass(frozen=True)
class Offset(Transform):
    """`audio: offset(0.5)`: begins up to so many seconds earlier or later, uniformly (AVID, appendix A)."""

    most: float

    def __post_init__(self) -> None:
        require(self.most >= 0, f"an offset is given in seconds, 0 or more, not {self.most}")

    def draw(self, draws: Sequence[float], clip: Clip, room: float) -> Parameters:
        """(seconds,)."""
        return (between(-self.most, self.most, draws[0]),)

    def place(self, parameters: Parameters) -> Placement:
        """Later by the seconds."""
        return Placement(offset=parameters[0])


@dataclass(frozen=True)
class Duration(Transform):
    """`audio: duration(1.4, 2.8)`: so many seconds of the recording (uniform), rescaled to the clip (AVID, app. A)."""

    low: float
    high: float

    def __post_init__(self) -> None:
        require(0 < self.low <= self.high, f"durations are positive and ascend: {self.low}, {self.high}")

    def slowest(self, seconds: float) -> float:
        """At the shortest duration."""
        return self.low / seconds

    def draw(self, draws: Sequence[float], clip: Clip, room: float) -> Parameters:
        """(seconds of the recording a second of the clip,)."""
        most = max(min(self.high, room * clip.seconds), self.low)
        return (between(self.low, most, draws[0]) / clip.seconds,)

    def place(self, parameters: Parameters) -> Placement:
        """Faster by the quotient."""
        return Placement(speed=parameters[0])


@dataclass(frozen=True)
class Volume(Transform):
    """`volume(0.9, 1.1)`: everything times one factor between the two, uniformly (AVID, appendix A)."""

    low: float
    high: float
    tones: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require(0 <= self.low <= self.high, f"volumes are 0 or more and ascend: {self.low}, {self.high}")

    def draw(self, draws: Sequence[float], clip: Clip, room: float) -> Parameters:
        """(factor,)."""
        return (between(self.low, self.high, draws[0]),)

    def timeline(self, parameters: Parameters, clip: Clip, before: TimeMap) -> Timeline:
        """A constant gain."""
        return Timeline(gain=(Factor(constant(parameters[0])),))

    def describe(self, parameters: Parameters, clip: Clip) -> str:
        """Such as "1.07 times the volume"."""
        return f"{parameters[0]:.2f} times the volume"
