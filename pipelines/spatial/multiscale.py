"""Multi-scale cropping with fixed corners (Wang et al., 2016: Temporal Segment Networks, 3.2)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from .base import Box, Crop, numbers

SCALES = (1.0, 0.875, 0.75, 0.66)
# shares of the room that a crop leaves: corners, centre, middles of the sides, centres of the quarters
PLACES = (
    *product((0.0, 1.0), repeat=2),
    *((0.5, 0.5), (0.5, 0.0), (0.5, 1.0), (0.0, 0.5), (1.0, 0.5)),
    *product((0.25, 0.75), repeat=2),
)


@dataclass(frozen=True, init=False)
class Multiscale(Crop):
    """Width and height are the shorter side times two scales, drawn from those at most one step apart in the list.

    The place is one of thirteen. Scales default to those of the paper's code, 1, 0.875, 0.75 and 0.66.
    """

    scales: tuple[float, ...]
    draws: ClassVar[int] = 2

    def __init__(self, *scales: float) -> None:
        numbers("multiscale", *scales)
        if not all(0 < scale <= 1 for scale in scales):
            raise ValueError(f"multiscale takes shares of the shorter side, in (0, 1], not {scales}")
        object.__setattr__(self, "scales", scales or SCALES)

    def box(self, width: int, height: int, draws: NDArray[np.float64], view: int) -> Box:
        """As `Crop.box`."""
        steps = [pair for pair in product(range(len(self.scales)), repeat=2) if abs(pair[0] - pair[1]) <= 1]
        across, down = steps[int(draws[0] * len(steps))]
        left, top = PLACES[int(draws[1] * len(PLACES))]
        w, h = (self.scales[step] * min(width, height) for step in (across, down))
        return Box(left * (width - w), top * (height - h), w, h)
