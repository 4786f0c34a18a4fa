"""What every crop offers."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray


def numbers(name: str, *values: object) -> None:
    """Raise ValueError unless all arguments of the crop `name` are finite numbers."""
    for value in values:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise ValueError(f"{name} takes numbers, not {value!r}")


class Box(NamedTuple):
    """Left, top, width and height in pixels of the displayed picture; fractions of a pixel are meant."""

    left: float
    top: float
    width: float
    height: float


class Crop(ABC):
    """Where the picture of a clip is cut out before it is resized; the same for all its frames."""

    draws: ClassVar[int] = 0
    """Uniforms it uses."""
    per_moment: ClassVar[int] = 1
    """Views of one moment that differ in their crops only (test time)."""

    @abstractmethod
    def box(self, width: int, height: int, draws: NDArray[np.float64], view: int) -> Box:
        """The part of a picture of `width` by `height` pixels that view number `view` shows.

        Args:
            draws: (self.draws,) uniforms in [0, 1).
        """
