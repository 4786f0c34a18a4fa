"""The largest square, at the centre."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .base import Box, Crop


@dataclass(frozen=True)
class Centre(Crop):
    """The largest square, at the centre."""

    def box(self, width: int, height: int, draws: NDArray[np.float64], view: int) -> Box:
        """As `Crop.box`."""
        side = min(width, height)
        return Box((width - side) / 2, (height - side) / 2, side, side)
