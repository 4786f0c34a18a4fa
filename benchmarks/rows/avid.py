"""AVID-CMA's loader (`avid_loader.py`) on the same recordings, moments and speeds; its crops are its own draws."""

from __future__ import annotations

import random
from typing import Any

from avid_loader import AvidLoader

from coaug.pipelines.catalog import Catalog
from coaug.pipelines.config import DataConfig

from .request import Request


class Avid:
    """Each view opened and decoded for itself."""

    jitter = True

    def __init__(self, catalog: Catalog, config: DataConfig, batch: int) -> None:
        video, audio = config.video, config.audio
        self.loader = AvidLoader(
            frames=video.frames,
            fps=video.fps,
            size=video.size,
            audio_seconds=audio.seconds,
            audio_rate=audio.rate,
            jitter=self.jitter,
            draw=random.Random(0),
        )

    def __call__(self, batch: list[Request]) -> list[Any]:
        return [
            self.loader.clip(request.path, float(start), float(speed))
            for request in batch
            for start, speed in zip(request.start, request.speed, strict=True)
        ]

    @property
    def decoded(self) -> int:
        return self.loader.decoded


class Plain(Avid):
    """Without colour jitter."""

    jitter = False
