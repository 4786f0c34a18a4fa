"""Clips of whole films by DALI's own decoder, of slices by the same, and by FFmpeg in the source (`source.py`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from films import FILMS, made
from nvidia.dali import fn, pipeline_def
from source_parts import BATCH, FRAMES, RATE, Step

from coaug.pipelines.media import Deadline, open_media, read_frames
from coaug.pipelines.planes import Cutter
from coaug.pipelines.slices import cut


@dataclass(frozen=True)
class Window:
    """A random clip: `times` (T,) seconds of its frames in the film at `path`, which has `fps` of them a second."""

    path: Path
    times: np.ndarray
    fps: int


def windows(name: str, folder: Path) -> Iterator[Window]:
    """For ever."""
    rng, paths, film = np.random.default_rng(0), made(name, folder), FILMS[name]
    while True:
        first = int(rng.uniform(0, film.seconds - FRAMES / RATE) * film.fps)
        start = (first + 0.3) / film.fps  # no time is where one frame ends: containers round that
        yield Window(paths[rng.integers(len(paths))], start + np.arange(FRAMES) / RATE, film.fps)


def whole(window: Window) -> tuple[Any, Any]:
    """What DALI's decoder needs of a clip: the file, and which of its frames."""
    return np.fromfile(window.path, np.uint8), np.floor(window.times * window.fps + 1e-6).astype(np.int32)


def sliced(window: Window) -> tuple[Any, Any]:
    """The same, cut out of the file."""
    with open_media(window.path, Deadline(60), probe=False) as container:
        found = cut(container, window.times, Deadline(60))
    return found.data, found.wanted


def decoded(make: Callable[[Window], tuple[Any, Any]], clips: Iterator[Window]) -> Step:
    """DALI's decoder on what `make` gives of each clip."""

    @pipeline_def(batch_size=BATCH, num_threads=1, device_id=None, prefetch_queue_depth=1)  # type: ignore[untyped-decorator]
    def graph() -> Any:
        encoded, frames = fn.external_source(lambda _: make(next(clips)), num_outputs=2, batch=False)
        return fn.decoders.video(encoded, frames=frames)

    pipeline = graph()
    pipeline.build()
    return lambda: pipeline.run()


def on_host(clips: Iterator[Window]) -> Step:
    def step() -> None:
        for _ in range(BATCH):
            window = next(clips)
            with open_media(window.path, Deadline(60), probe=False) as container:
                read_frames(container, window.times, Deadline(60), Cutter())

    return step
