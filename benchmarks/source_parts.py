"""What the source does with a sample, and parts of that alone (`source.py`): reading it, decoding it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from itertools import takewhile
from typing import Any
from unittest import mock

import av
import numpy as np

from coaug.pipelines import groups, pcm
from coaug.pipelines.bans import Bans
from coaug.pipelines.catalog import Catalog
from coaug.pipelines.config import DataConfig, VideoConfig, ViewConfig
from coaug.pipelines.media import Deadline, audio_rate, open_media, stream_of
from coaug.pipelines.opened import opened
from coaug.pipelines.plan import AUDIO, VIDEO, ClipPlan, epoch_row, plan
from coaug.pipelines.planes import Cutter
from coaug.pipelines.recording import Recording
from coaug.pipelines.schedule import Schedule
from coaug.pipelines.source import Source
from coaug.pipelines.timeline import instants

FRAMES, RATE, BATCH = 16, 16.0, 8
SPED = DataConfig(
    video=VideoConfig(frames=FRAMES, fps=RATE, size=112, crop="resized(0.2, 1)"),
    views=(ViewConfig("speed(1, 2, 3, 4)"),),
)
Step = Callable[[], Any]  # a batch; with a `prepare`, that is called before and not timed


class Sourced:
    """Samples of the real source, one after the other; the same for every instance."""

    def __init__(self, catalog: Catalog, *, dropping: bool = True) -> None:
        self.source = Source(catalog, SPED, Schedule(len(catalog), len(catalog), 1), Bans())
        self.place, self.decoded, self.shown = 0, 0, 0
        self.patch = (
            nullcontext() if dropping else mock.patch.object(groups, "without_disposable", _all_of_them)
        )

    def __call__(self) -> None:
        with self.patch:
            for _ in range(BATCH):
                epoch, position = divmod(self.place, self.source.schedule.samples)
                arrays = self.source.sample(0, epoch, position)
                if not arrays["valid"]:
                    raise SystemExit(arrays["error"].decode())
                self.decoded, self.shown = (
                    a + int(b) for a, b in zip((self.decoded, self.shown), arrays["cost"], strict=True)
                )
                self.place += 1


class Read:
    """The same samples read, and nothing else: what of them is drawn in `prepare`."""

    def __init__(self, catalog: Catalog) -> None:
        self.source = Source(catalog, SPED, Schedule(len(catalog), len(catalog), 1), Bans())
        self.place = 0
        self.ready: list[tuple[Recording, np.ndarray, Cutter, int, int]] = []

    def prepare(self) -> None:
        """Draw what the next step reads."""
        self.ready = [self._drawn(*divmod(self.place + n, len(self.source.catalog))) for n in range(BATCH)]
        self.place += BATCH

    def __call__(self) -> None:
        source, deadline = self.source, Deadline(60)
        for recording, times, cutter, first, last in self.ready:
            with opened(recording, ("video", "audio"), source.shards, source.listings, deadline) as media:
                media.frames(times, cutter)
                media.sound(first, last)

    def _drawn(self, epoch: int, position: int) -> tuple[Recording, np.ndarray, Cutter, int, int]:
        source = self.source
        recording, clips, times = drawn(source.catalog, epoch, position)
        if recording.video is None or recording.audio is None:
            raise SystemExit(f"{recording.path}: no picture or no sound")
        cutter = source._cutter(recording.video, clips.crop[0].copy())
        ((first, last),) = source._windows(clips, recording.audio.rate)
        return recording, times, cutter, first, last


def drawn(catalog: Catalog, epoch: int, position: int) -> tuple[Recording, ClipPlan, np.ndarray]:
    """What the source plays at one place of the global order, and the seconds of its frames."""
    row = epoch_row(catalog, 0, epoch, position)
    clips = plan(catalog, SPED, seed=0, epoch=epoch, rows=np.array([row]))
    times = clips.start[0, 0] + SPED.clip_seconds * clips.timeline(0, 0, VIDEO).time(instants(FRAMES))
    return catalog[row], clips, times


def _all_of_them(packets: list[Any], wanted: Any, codec: Any) -> list[Any]:
    return packets


class Alone:
    """Nothing but the decoding of the same samples. Packets are read before, in `prepare`."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog, self.place = catalog, 0
        self.ready: list[list[tuple[Any, list[list[Any]]]]] = []

    def prepare(self) -> None:
        """Demux what the next step decodes."""
        self.ready = [self._packets(*divmod(self.place + n, len(self.catalog))) for n in range(BATCH)]
        self.place += BATCH

    def __call__(self) -> None:
        for streams in self.ready:
            for stream, runs in streams:
                codec = av.CodecContext.create(stream.codec_context.codec.canonical_name, "r")
                codec.extradata, codec.thread_count = stream.codec_context.extradata, 1
                for run in runs:
                    for packet in run:
                        codec.decode(packet)
                    codec.decode(None)
                    codec.flush_buffers()

    def _packets(self, epoch: int, position: int) -> list[tuple[Any, list[list[Any]]]]:
        recording, clips, times = drawn(self.catalog, epoch, position)
        container = open_media(recording.path, Deadline(60))
        picture, sound = stream_of(container, "video"), stream_of(container, "audio")
        runs = groups.needed(container, picture, np.unique(times), Deadline(60))
        first = float(clips.start[0, 0])
        last = first + SPED.clip_seconds * float(clips.speed[0, 0, AUDIO])
        begin = first - pcm.priming(sound.codec_context) - 1024 / audio_rate(container)
        groups.only(container, sound)
        heard = takewhile(
            lambda p: p.pts is not None and p.pts * p.time_base < last,
            pcm._needed(container, sound, begin, Deadline(60)),
        )
        return [(picture, [run.packets for run in runs]), (sound, [list(heard)])]
