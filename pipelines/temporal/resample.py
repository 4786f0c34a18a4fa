"""RE, resample (spatio-temporal co-augmentations, section 3.3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..timeline import Stage, Timeline, TimeMap
from .base import Clip, Parameters, Transform, require

MOST = 0.95  # of the rate that may be taken away: something must be left


@dataclass(frozen=True)
class Resample(Transform):
    """`resample(0.5)`: down to (1 - a) of the rate, a uniform in [0, alpha], and up again by repetition.

    Each frame or sample is held as long as one of the lower rate lasts, and shows the middle of that time; the clip
    holds a whole number of them. Aligned, both streams lose the same share of their own rate.
    """

    alpha: float

    def __post_init__(self) -> None:
        require(0 <= self.alpha <= 1, f"a strength is between 0 and 1, not {self.alpha}")

    def draw(self, draws: Sequence[float], clip: Clip, room: float) -> Parameters:
        """(a,): the share that is lost."""
        return (min(self.alpha, MOST) * draws[0],)

    def timeline(self, parameters: Parameters, clip: Clip, before: TimeMap) -> Timeline:
        """u, held for a share of the clip."""
        kept = self._kept(parameters, clip)
        if kept >= clip.count:
            return Timeline()
        return Timeline(TimeMap((Stage(hold=1.0 / kept),)))

    def describe(self, parameters: Parameters, clip: Clip) -> str:
        """Such as "held at 63% of the rate"."""
        kept = self._kept(parameters, clip)
        return f"held at {kept / clip.count:.0%} of the rate" if kept < clip.count else ""

    def _kept(self, parameters: Parameters, clip: Clip) -> int:
        return max(round(clip.count * (1.0 - parameters[0])), 1)
