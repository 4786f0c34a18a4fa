"""What no loader of packed shards can do without, stage by stage, each on input that is ready."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from coaug.pipelines.bans import Bans
from coaug.pipelines.catalog import Catalog
from coaug.pipelines.config import DataConfig
from coaug.pipelines.graph import build
from coaug.pipelines.media import Deadline
from coaug.pipelines.packed.clip import SCALE, PackedMedia
from coaug.pipelines.packed.stored import packet_of
from coaug.pipelines.plan import VIDEO, epoch_row, plan
from coaug.pipelines.planes import Cutter
from coaug.pipelines.resample import thin
from coaug.pipelines.schedule import Schedule
from coaug.pipelines.source import Source
from coaug.pipelines.timeline import instants

IDLE = 0.002  # CPU seconds less than which is no work


@dataclass
class Sample:
    """What each stage is given of one sample."""

    media: PackedMedia
    reads: list[tuple[int, int]]
    packets: list[list[Any]]  # runs of the pictures', then the sound's
    frames: list[Any]
    cutter: Cutter
    windows: list[tuple[int, int]]
    speeds: list[float]
    sound: np.ndarray
    first: int
    pcm: bytes


class Stage:
    """One stage of the samples that a loader would read, batch after batch."""

    def __init__(self, catalog: Catalog, config: DataConfig, batch: int, name: str) -> None:
        self.source = Source(catalog, config, Schedule(len(catalog), len(catalog), 1), Bans())
        self.batch, self.place = batch, 0
        self.samples: list[Sample] = []
        self.stage: Callable[[Sample], None] = getattr(self, f"_{name}")

    def prepare(self) -> None:
        """What the next step is given."""
        count = len(self.source.catalog)
        self.samples = [self._sample(*divmod(self.place + n, count)) for n in range(self.batch)]
        self.place += self.batch

    def __call__(self) -> None:
        for sample in self.samples:
            self.stage(sample)

    def _sample(self, epoch: int, position: int) -> Sample:
        source, catalog, config = self.source, self.source.catalog, self.source.config
        row = epoch_row(catalog, 0, epoch, position)
        recording, clips = catalog[row], plan(catalog, config, seed=0, epoch=epoch, rows=np.array([row]))
        assert recording.member is not None and recording.video is not None
        media = source.shards.media(recording.path, recording.member, Deadline(60))
        u = instants(config.video.frames)
        views = range(len(config.views))
        times = np.concatenate(
            [clips.start[0, v] + config.clip_seconds * clips.timeline(0, v, VIDEO).time(u) for v in views]
        )
        windows = source._windows(clips, media.rate)
        first, last = min(low for low, _ in windows), max(high for _, high in windows)
        read, reads, frames = media.read, list[tuple[int, int]](), list[Any]()
        media.read = lambda at, size: (reads.append((at, size)), read(at, size))[1]
        runs = [run.packets for run in media.runs(np.unique(times))]
        sound = media.sound(first, last)
        media.read = read
        media.frames(times, lambda frame, room: (frames.append(frame), room((1,))))
        speeds = clips.speed[0, :, 1].tolist()
        cutter = source._cutter(recording.video, clips.crop[0].copy())
        heard = [packet_of(data) for data in self._heard(media, first, last)]
        pcm = b"" if heard else bytes(2 * len(sound))
        return Sample(media, reads, [*runs, heard], frames, cutter, windows, speeds, sound, first, pcm)

    def _heard(self, media: PackedMedia, first: int, last: int) -> list[memoryview]:
        lists, row = media.sample.lists, media.sample.row
        if row["audio_codec"] != "flac":
            return []
        begins = row["audio_first"] + np.cumsum(lists["audio_samples"]) - lists["audio_samples"]
        chosen = np.flatnonzero((begins + lists["audio_samples"] > first) & (begins < last))
        return [
            memoryview(media.read(int(at), int(size)))
            for at, size in zip(lists["audio_at"][chosen], lists["audio_size"][chosen], strict=True)
        ]

    def _read(self, sample: Sample) -> None:
        for at, size in sample.reads:
            sample.media.read(at, size)

    def _decode(self, sample: Sample) -> None:
        *runs, heard = sample.packets
        with sample.media.decoding("video") as codec:
            for run in runs:
                for packet in run:
                    codec.decode(packet)
                codec.decode(None)
                codec.flush_buffers()
        if sample.pcm:
            np.frombuffer(sample.pcm, "<i2") * SCALE
        if heard:
            with sample.media.decoding("audio") as codec:
                heard = [frame for packet in heard for frame in codec.decode(packet)]
            np.concatenate([np.frombuffer(f.planes[0], np.int16, f.samples) for f in heard]) * SCALE

    def _convert(self, sample: Sample) -> None:
        for frame in sample.frames:
            sample.cutter(frame)
        rate = self.source.config.audio.rate
        for (low, high), speed in zip(sample.windows, sample.speeds, strict=True):
            part = sample.sound[low - sample.first : high - sample.first]
            thin(part, float(Fraction(sample.media.rate, rate)) * speed)


class Graph:
    """The graph alone: resize, timeline, mel, on the arrays of a few batches."""

    BATCHES = 4

    def __init__(self, catalog: Catalog, config: DataConfig, batch: int) -> None:
        source = Source(catalog, config, Schedule(len(catalog), batch, 1), Bans())
        ready = _Ready(source, batch * self.BATCHES)
        self.pipeline = build(
            ready, device="cpu", parallel=False, batch_size=batch, num_threads=1, device_id=None,
            prefetch_queue_depth=1, exec_dynamic=True,
        )  # fmt: skip
        self.pipeline.build()

    def __call__(self) -> None:
        self.pipeline.run()
        settle()


def settle() -> None:
    """Wait for DALI's threads, which prepare the next batch: what they do belongs to whoever started them."""
    done, spent = -1.0, time.process_time()
    while spent - done > IDLE:
        time.sleep(2 * IDLE)
        done, spent = spent, time.process_time()


class _Ready:
    """A source whose samples were made beforehand."""

    def __init__(self, source: Source, count: int) -> None:
        self.config, self.feeds = source.config, source.feeds
        infos = (SampleInfo(n, 0) for n in range(count))
        self.samples = [source(info) for info in infos]

    def __call__(self, info: Any) -> Any:
        return self.samples[info.idx_in_epoch % len(self.samples)]


@dataclass
class SampleInfo:
    """What a source wants to know of DALI's."""

    idx_in_batch: int
    iteration: int
