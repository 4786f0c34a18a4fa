"""What a class of audible events consists of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..canvas import Canvas
from ..score import Array, Score


@dataclass(frozen=True)
class Event:
    """One class.

    Attributes:
        name: The label, and the name of the folder.
        paint: Draws the moment t (seconds) of a score on a canvas.
        play: The score's sound, (S,) float32 at a rate in hertz.
    """

    name: str
    paint: Callable[[Canvas, Score, float], None]
    play: Callable[[Score, int], Array]
