"""Playing faster, slower or backwards: SpeedAug's and temporal self-supervision's co-augmentation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..timeline import Timeline, TimeMap
from .base import Clip, Parameters, Placement, Transform, between, require

FITS = 1e-6  # a clip may be longer than its recording by this share


class Speed(Transform):
    """`speed(1, 2, 3, 4)`: one factor of the library, uniformly, of those whose clip fits the recording.

    The clip keeps its length and covers as many times as much of the recording (SpeedAug, section 3.2).
    """

    def __init__(self, *library: float) -> None:
        require(bool(library) and min(library) > 0, "speeds are positive, such as speed(1, 2, 4)")
        self.library = tuple(map(float, library))

    def __repr__(self) -> str:
        return f"Speed{self.library}"

    def slowest(self, seconds: float) -> float:
        """The smallest of the library."""
        return min(self.library)

    def draw(self, draws: Sequence[float], clip: Clip, room: float) -> Parameters:
        """(factor,)."""
        fitting = [s for s in self.library if s <= room + FITS] or [min(self.library)]
        return (fitting[int(draws[0] * len(fitting))],)

    def place(self, parameters: Parameters) -> Placement:
        """Faster by the factor."""
        return Placement(speed=parameters[0])


@dataclass(frozen=True)
class Stretch(Transform):
    """`stretch(0.7, 1.4)`: any factor between the two, uniformly, as far as the recording goes."""

    low: float
    high: float

    def __post_init__(self) -> None:
        require(0 < self.low <= self.high, f"speeds are positive and ascend: {self.low}, {self.high}")

    def slowest(self, seconds: float) -> float:
        """The smallest factor."""
        return self.low

    def draw(self, draws: Sequence[float], clip: Clip, room: float) -> Parameters:
        """(factor,)."""
        return (between(self.low, max(min(self.high, room), self.low), draws[0]),)

    def place(self, parameters: Parameters) -> Placement:
        """Faster by the factor."""
        return Placement(speed=parameters[0])


@dataclass(frozen=True)
class Reverse(Transform):
    """`reverse(0.5)`: backwards, with this probability."""

    probability: float = 1.0

    def __post_init__(self) -> None:
        require(0 <= self.probability <= 1, f"a probability is between 0 and 1, not {self.probability}")

    def draw(self, draws: Sequence[float], clip: Clip, room: float) -> Parameters:
        """(1 or 0,): whether it is played backwards."""
        return (float(draws[0] < self.probability),)

    def place(self, parameters: Parameters) -> Placement:
        """The same part, the other way."""
        return Placement(direction=-1 if parameters[0] else 1)

    def timeline(self, parameters: Parameters, clip: Clip, before: TimeMap) -> Timeline:
        """u -> 1 - u."""
        return Timeline(TimeMap.affine(1.0, -1.0)) if parameters[0] else Timeline()
