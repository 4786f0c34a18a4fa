"""Clips in memory for `augment.py`: the loader's own source, reading decoded frames and sound instead of files."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import av
import numpy as np
import torch
from augment_peers import Clip, as_rgb
from numpy.typing import NDArray
from torch import Tensor

from coaug.config import build as build_config
from coaug.config import read
from coaug.pipelines import table
from coaug.pipelines.bans import Bans
from coaug.pipelines.catalog import Catalog
from coaug.pipelines.config import DataConfig, ViewConfig
from coaug.pipelines.media import Frames
from coaug.pipelines.plan import AUDIO, epoch_rows, plan
from coaug.pipelines.planes import Cutter
from coaug.pipelines.recording import AudioStream, Recording, VideoStream, sample_id, table_of
from coaug.pipelines.schedule import Schedule
from coaug.pipelines.source import Source

RATE, FPS, SECONDS, HEIGHT, WIDTH = 44100, 30.0, 10.0, 256, 340
ALL = "speed(1, 2) | fade(0.5) | mask(0.5) | shift(0.5) | resample(0.5)"
RECIPES: Mapping[
    str, tuple[str, str | None]
] = {  # name -> preset, and what every view plays instead of its own
    "svaclr": ("svaclr", None),
    "avid-small": ("avid-small", None),
    "tempssl": ("tempssl", None),
    "staug": ("staug", "resample(0.5)"),
    "staug+pitch": ("staug", None),
    "all-112": ("tempssl", ALL),
    "all-224": ("staug", ALL),
}


def recipe(name: str) -> DataConfig:
    """The config of a row of `RECIPES`."""
    preset, temporal = RECIPES[name]
    config = build_config(DataConfig, read(preset)["data"], "data.")
    if temporal is None:
        return config
    apply = config.views[0].apply
    return replace(config, views=tuple(ViewConfig(temporal, apply) for _ in config.views))


class Memory:
    """A recording's `Media` in memory: decoded frames, as decoders leave them and as RGB, and sound."""

    rate = RATE

    def __init__(self, number: int, frames: int) -> None:
        rng = np.random.default_rng(number)
        shades = np.add.outer(np.arange(HEIGHT), np.arange(WIDTH))[..., None] * np.array([0.4, 0.2, 0.3])
        noise = rng.integers(0, 32, (HEIGHT, WIDTH, 3))
        moving = (np.roll(shades + noise, 5 * n, 1) for n in range(frames))
        coded = [
            av.VideoFrame.from_ndarray(picture.astype(np.uint8)).reformat(format="yuv420p")
            for picture in moving
        ]
        self.cutter = Cutter()
        self.planes = np.stack([self.cutter(frame) for frame in coded])
        self.coded, self.rgb = coded, as_rgb(coded)
        time = np.arange(-RATE, (SECONDS + 1) * RATE) / RATE  # a second more on either side
        tones = sum(np.sin(2 * np.pi * hertz * time) for hertz in rng.uniform(100, 8000, 8))
        loud = 0.02 * tones + 0.02 * rng.standard_normal(len(time))
        self.pcm: NDArray[np.float32] = loud.astype(np.float32)

    def sound(self, low: int, high: int) -> NDArray[np.float32]:
        """Samples [low, high) of the recording."""
        return self.pcm[low + RATE : high + RATE]

    def frames(self, times: NDArray[np.float64], cutter: Cutter) -> Frames:
        """Each frame on screen at `times` (n,) once, but always from the same pictures, and whole."""
        cutter.matrix = self.cutter.matrix
        numbers, index = np.unique(np.floor(times * FPS + 1e-6), return_inverse=True)
        pts = numbers[index] / FPS
        return Frames(self.planes[: len(numbers)], index.astype(np.int32), pts, len(numbers))


@contextmanager
def in_memory(memories: Mapping[str, Memory]) -> Iterator[None]:
    """While it lasts, sources of this process read `memories` instead of files."""
    with mock.patch.multiple(
        "coaug.pipelines.source",
        opened=lambda recording, *_: nullcontext(memories[recording.path]),
        kept=lambda crops, upright, size: None,
    ):
        yield


def recordings(count: int) -> list[Recording]:
    """`count` recordings of ten seconds, to be read from memory."""
    video = VideoStream("h264", WIDTH, HEIGHT, 0, FPS, False, 0.0, SECONDS)
    audio = AudioStream("aac", RATE, 1, 0.0, SECONDS, -20.0)
    names = (f"memory-{n}" for n in range(count))
    return [Recording(sample_id(name), name, name, 0.0, SECONDS, 0, "train", video, audio) for name in names]


def catalog_of(rows: Sequence[Recording]) -> Catalog:
    with tempfile.TemporaryDirectory() as folder:
        table.write(table_of(rows, ["one"]), path := Path(folder) / "memory.parquet")
        return Catalog.open(path)


@dataclass
class Setup:
    """A config's source and what it reads. `batch` samples a step; steps go on as in training."""

    source: Source
    memories: Mapping[str, Memory]
    batch: int

    @classmethod
    def of(cls, config: DataConfig, batch: int) -> Setup:
        rows, frames = recordings(batch), len(config.views) * config.video.frames
        memories = {row.path: Memory(n, frames) for n, row in enumerate(rows)}
        catalog = catalog_of(rows)
        return cls(Source(catalog, config, Schedule(batch, batch, 1), Bans()), memories, batch)

    def sample(self, step: int, index: int) -> dict[str, Any]:
        """The source's arrays of one sample."""
        return self.source.sample(*self.source.schedule.place(step, index))

    def clips(self, step: int, pin: bool = False) -> list[Clip]:
        """The same clips for the peer."""
        return [clip for i in range(self.batch) for clip in self._views(step, i, pin)]

    def _views(self, step: int, index: int, pin: bool) -> Iterator[Clip]:
        config, catalog = self.source.config, self.source.catalog
        _, epoch, position = self.source.schedule.place(step, index)
        row = epoch_rows(catalog, 0, epoch, np.array([position]))
        drawn, arrays = plan(catalog, config, seed=0, epoch=epoch, rows=row), self.sample(step, index)
        memory, frames = self.memories[catalog[int(row[0])].path], config.video.frames
        count = len(arrays["planes"])
        coded, pixels = memory.coded[:count], _tensor(memory.rgb[:count], pin)
        for v, view in enumerate(config.views):
            begin = round(float(drawn.start[0, v] + drawn.offset[0, v, AUDIO]) * RATE)
            speed = float(drawn.speed[0, v, AUDIO])
            sound = memory.sound(begin, begin + round(speed * config.audio.seconds * RATE) + 1)
            shown, repeats = once(arrays["frames"][v])
            tone = arrays.get("tone", np.tile([1.0, 0, 0, 0], (v + 1, frames, 1)))[v]
            heard = zip(view.steps, drawn.steps[0, v, AUDIO], strict=False)
            yield Clip(
                coded,
                pixels,
                shown,
                repeats,
                box(drawn.crop[0, v]),
                bool(drawn.crop[0, v, 0] > drawn.crop[0, v, 2]),
                tuple(drawn.colour[0, v].tolist()),
                float(drawn.blur[0, v]),
                torch.from_numpy(tone),
                _tensor(sound, pin),
                RATE,
                speed,
                tuple((step.what, values.tolist()) for step, values in heard if step.applies("audio")),
            )


def once(index: NDArray[np.int32]) -> tuple[Tensor, Tensor | None]:
    """`index` without what it repeats, and where each of its entries is then; None: as they stand."""
    shown, repeats = np.unique(index, return_inverse=True)
    if len(shown) == len(index):
        return torch.from_numpy(index), None
    return torch.from_numpy(shown), torch.from_numpy(repeats)


def _tensor(array: NDArray[Any], pin: bool) -> Tensor:
    tensor = torch.from_numpy(array)
    return tensor.pin_memory() if pin else tensor


def box(crop: NDArray[np.float32]) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of a crop in whole pixels, as torchvision has it."""
    left, right = sorted((float(crop[0]) * WIDTH, float(crop[2]) * WIDTH))
    return round(left), round(float(crop[1]) * HEIGHT), round(right), round(float(crop[3]) * HEIGHT)
