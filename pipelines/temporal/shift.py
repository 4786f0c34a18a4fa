"""TS, time shift (spatio-temporal co-augmentations, section 3.3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..timeline import Stage, Timeline, TimeMap
from .base import Clip, Parameters, Transform, between, require


@dataclass(frozen=True)
class Shift(Transform):
    """`shift(0.5)`: shifted by up to alpha of the clip either way; what leaves at one end enters at the other."""

    alpha: float

    def __post_init__(self) -> None:
        require(0 <= self.alpha <= 1, f"a strength is between 0 and 1, not {self.alpha}")

    def draw(self, draws: Sequence[float], clip: Clip, room: float) -> Parameters:
        """(share of the clip by which it is later,)."""
        return (between(-self.alpha, self.alpha, draws[0]),)

    def timeline(self, parameters: Parameters, clip: Clip, before: TimeMap) -> Timeline:
        """u -> u - share, modulo 1."""
        later = parameters[0] % 1.0
        if not later:
            return Timeline()
        return Timeline(TimeMap((Stage((0.0, later), (1.0 - later, 0.0), (1.0, 1.0)),)))

    def describe(self, parameters: Parameters, clip: Clip) -> str:
        """Such as "shifted by +32%"."""
        return f"shifted by {parameters[0]:+.0%}"
