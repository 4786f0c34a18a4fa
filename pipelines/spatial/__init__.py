"""Crops: where a clip's picture is cut out, one file each; a new one is a file and a line here."""

from __future__ import annotations

from collections.abc import Mapping

from .base import Box, Crop
from .centre import Centre
from .multiscale import Multiscale
from .resized import Resized
from .three import Three

CROPS: Mapping[str, type[Crop]] = {
    "resized": Resized,
    "multiscale": Multiscale,
    "centre": Centre,
    "three": Three,
}

__all__ = ["CROPS", "Box", "Crop"]
