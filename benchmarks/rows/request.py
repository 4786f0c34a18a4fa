"""What every way is asked for: the same clips of the same files, drawn beforehand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coaug.pipelines.catalog import Catalog
from coaug.pipelines.config import DataConfig, VideoConfig, ViewConfig
from coaug.pipelines.plan import AUDIO, VIDEO, ClipPlan, epoch_rows, plan
from coaug.pipelines.recording import Recording
from coaug.pipelines.timeline import instants

SPED = ViewConfig("speed(1, 2, 3, 4)")
VIDEO_OF = VideoConfig(frames=16, fps=16.0, size=112)
CONFIGS = {  # a clip is one view; two views begin at one instant
    "one view": DataConfig(video=VIDEO_OF, views=(SPED,)),
    "two views": DataConfig(video=VIDEO_OF, views=(SPED, SPED)),
}


@dataclass(frozen=True)
class Request:
    """One sample, V views of T frames.

    Attributes:
        recording: what the catalog knows of the file.
        start: (V,) seconds at which view and sound begin.
        speed: (V,) how many times as fast they are played.
        times: (V, T) seconds of the frames: the one shown then is wanted.
        heard: (V, 2) seconds of sound, from and to.
        crop: (V, 4) left, top, right, bottom, shares of the picture; left > right: mirrored.
    """

    recording: Recording
    start: NDArray[np.float64]
    speed: NDArray[np.float64]
    times: NDArray[np.float64]
    heard: NDArray[np.float64]
    crop: NDArray[np.float64]

    @property
    def path(self) -> str:
        return str(self.recording.path)


def batches(catalog: Catalog, config: DataConfig, size: int, seed: int = 0) -> Iterator[list[Request]]:
    """For ever, the samples that a shuffling AVLoader of the same seed loads, in its order."""
    for step in iter(range(1 << 30)):
        epoch, within = divmod(step, len(catalog) // size)
        rows = epoch_rows(catalog, seed, epoch, np.arange(size) + within * size)
        clips = plan(catalog, config, seed=seed, epoch=epoch, rows=rows)
        yield [_request(catalog[int(row)], clips, b, config) for b, row in enumerate(rows)]


def _request(recording: Recording, clips: ClipPlan, b: int, config: DataConfig) -> Request:
    start, speed = np.asarray(clips.start[b], float), np.asarray(clips.speed[b, :, AUDIO], float)
    u = instants(config.video.frames)
    shown = [clips.timeline(b, v, VIDEO).time(u) for v in range(len(config.views))]
    times = start[:, None] + config.video.seconds * np.stack(shown)
    heard = np.stack([start, start + speed * config.audio.seconds], axis=1)
    return Request(recording, start, speed, times, heard, np.asarray(clips.crop[b], float))
