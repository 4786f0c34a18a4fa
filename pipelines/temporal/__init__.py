"""Temporal co-augmentations by the names that recipes use; a new one is a file and a line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from .base import DRAWS, Clip, Placement, Sound, Transform
from .fade import Fade
from .jitter import Duration, Offset, Volume
from .mask import Mask
from .noise import Noise
from .pitch import Pitch
from .resample import Resample
from .shift import Shift
from .speed import Reverse, Speed, Stretch

TRANSFORMS: Mapping[str, Callable[..., Transform]] = {
    "speed": Speed,
    "stretch": Stretch,
    "reverse": Reverse,
    "fade": Fade,
    "mask": Mask,
    "shift": Shift,
    "resample": Resample,
    "offset": Offset,
    "duration": Duration,
    "volume": Volume,
    "pitch": Pitch,
    "noise": Noise,
}
SCOPES = ("aligned", "unaligned", "audio", "video")

__all__ = ["DRAWS", "SCOPES", "TRANSFORMS", "Clip", "Pitch", "Placement", "Sound", "Transform"]
