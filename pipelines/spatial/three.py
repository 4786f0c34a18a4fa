"""Three squares that cover the picture, one a view: testing (Feichtenhofer et al., 2019: SlowFast, 4.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from .base import Box, Crop


@dataclass(frozen=True)
class Three(Crop):
    """Squares of the shorter side at the left or top end, the centre, and the right or bottom end, in turns."""

    per_moment: ClassVar[int] = 3

    def box(self, width: int, height: int, draws: NDArray[np.float64], view: int) -> Box:
        """As `Crop.box`; view v shows square v modulo 3."""
        side, place = min(width, height), view % 3 / 2
        return Box(place * (width - side), place * (height - side), side, side)
