"""Inception's random resized crop (Szegedy et al., 2015), as torchvision draws it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from .base import Box, Crop, numbers

TRIES = 10  # torchvision's number of attempts


@dataclass(frozen=True)
class Resized(Crop):
    """Between `low` and `high` of the picture's area, of an aspect (width / height, log-uniform) in [narrow, wide].

    What fits in none of ten tries gives way to the largest crop of an allowed aspect, at the centre.
    """

    low: float = 0.2
    high: float = 1.0
    narrow: float = 0.75
    wide: float = 4 / 3
    draws: ClassVar[int] = 2 + 2 * TRIES

    def __post_init__(self) -> None:
        numbers("resized", self.low, self.high, self.narrow, self.wide)
        if not 0 < self.low <= self.high <= 1:
            raise ValueError(
                f"resized takes shares of the area, 0 < low <= high <= 1, not {self.low}, {self.high}"
            )
        if not 0 < self.narrow <= self.wide:
            raise ValueError(f"resized takes aspects, 0 < narrow <= wide, not {self.narrow}, {self.wide}")

    def box(self, width: int, height: int, draws: NDArray[np.float64], view: int) -> Box:
        """As `Crop.box`."""
        w, h, drawn = self._size(width, height, draws[2:].tolist())
        across, down = draws[:2] if drawn else (0.5, 0.5)
        return Box(float(across * (width - w)), float(down * (height - h)), w, h)

    def _size(self, width: int, height: int, draws: Sequence[float]) -> tuple[float, float, bool]:
        """Width, height and whether they were drawn."""
        low, high = math.log(self.narrow), math.log(self.wide)
        for share, shape in zip(draws[:TRIES], draws[TRIES:], strict=True):
            area = width * height * (self.low + share * (self.high - self.low))
            aspect = math.exp(low + shape * (high - low))
            w, h = math.sqrt(area * aspect), math.sqrt(area / aspect)
            if w <= width and h <= height and (self.low, self.high) != (1.0, 1.0):
                return w, h, True
        aspect = min(max(width / height, self.narrow), self.wide)
        return min(width, height * aspect), min(height, width / aspect), False
