"""What every temporal co-augmentation offers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..timeline import Timeline, TimeMap

Parameters = tuple[float, ...]
DRAWS = 4  # uniforms that a transform may use, and numbers it may keep of them


class Placement(NamedTuple):
    """Which part of the recording a clip plays: `speed` seconds a clip second, `offset` seconds later."""

    speed: float = 1.0
    offset: float = 0.0
    direction: int = 1

    def then(self, other: Placement) -> Placement:
        """Both together."""
        return Placement(
            self.speed * other.speed, self.offset + other.offset, self.direction * other.direction
        )


@dataclass(frozen=True)
class Sound:
    """The recorded sound that a clip plays from.

    Attributes:
        pcm: (n,) float32.  rate: samples a second.
        origin: position in `pcm` where the clip begins, before its transforms.
    """

    pcm: NDArray[np.float32]
    rate: float
    origin: float

    @cached_property
    def rms(self) -> float:
        """Root mean square of the window."""
        return math.sqrt(np.square(self.pcm).mean()) if len(self.pcm) else 0.0


@dataclass(frozen=True)
class Clip:
    """What a transform may know of the clip it is applied to.

    Attributes:
        modality: "video" or "audio".
        seconds: clip time from u = 0 to u = 1.
        count: output frames or samples in that time.
        sound: what is played, where a transform goes by it; None for pictures and where only times are asked for.
    """

    modality: Literal["video", "audio"]
    seconds: float
    count: float
    sound: Sound | None = None


class Transform:
    """A step of a view's recipe. Parameters are drawn once; they are what a plan holds and what aligned views share.

    A transform says which part of the recording is played (`place`), or what happens to the clip (`timeline`).
    """

    tones: ClassVar[bool] = False
    """Whether it changes gain or fill."""
    audio_only: ClassVar[bool] = False

    def slowest(self, seconds: float) -> float:
        """The smallest speed that can be drawn for clips of so many seconds."""
        return 1.0

    def draw(self, draws: Sequence[float], clip: Clip, room: float) -> Parameters:
        """At most `DRAWS` numbers from as many uniforms in [0, 1).

        Args:
            room: the greatest factor by which the clip could be sped up and still fit the recording.
        """
        return ()

    def place(self, parameters: Parameters) -> Placement:
        """The part of the recording that is played, whatever the order of the steps."""
        return Placement()

    def timeline(self, parameters: Parameters, clip: Clip, before: TimeMap) -> Timeline:
        """What happens to the clip, whose time so far is `before`, in clip lengths of [0, 1)."""
        return Timeline()

    def describe(self, parameters: Parameters, clip: Clip) -> str:
        """What happens to the clip, in a few words; "" where `place` says all there is, or where nothing happens."""
        return ""


def require(condition: bool, message: str) -> None:
    """Raises ValueError where an argument of a recipe makes no sense."""
    if not condition:
        raise ValueError(message)


def between(low: float, high: float, draw: float) -> float:
    """Uniform on [low, high)."""
    return float(low + (high - low) * draw)
