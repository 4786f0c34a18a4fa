"""What do clips cost to read from files, against DALI's own decoders and against decoding alone?

    python benchmarks/source.py [--json FILE] [--folder data/films]

One core each, CPU seconds of this process (all its threads), parts interleaved, medians over passes. Films are
generated once (`films.py`), coded as collections come.

    DALI       fn.decoders.video on whole files: from the first frame to the last one that is wanted
    slices     the same operator, fed with what those frames need, cut out of the file (`slices.py`)
    host       FFmpeg's decoders in the source (`read_frames`), frames left as planes: what "auto" does on a CPU

    decode     the very packets that the source decodes, already in memory, through new decoders; nothing else
    read       from the path to cropped frames and sound: the file's list of packets, read, decode, cut
    source     everything that the source does: plan, read, thin, compile
    container  the source where there are no lists: open, seek and demux
    undropped  the same, with pictures decoded that nothing refers to and nobody sees

Random places in random films; 16 frames at 16 a second. Against DALI at normal speed; the source as SvaCLR has it, at
speeds 1 to 4, with a second of sound.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any
from unittest import mock

import av
import numpy as np
from films import FILMS, made
from nvidia.dali import fn, pipeline_def
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from coaug.pipelines import groups, pcm
from coaug.pipelines.bans import Bans
from coaug.pipelines.catalog import Catalog
from coaug.pipelines.config import DataConfig, VideoConfig, ViewConfig
from coaug.pipelines.index import index
from coaug.pipelines.media import Deadline, audio_rate, open_media, read_frames, stream_of
from coaug.pipelines.memory import keep_memory
from coaug.pipelines.opened import opened
from coaug.pipelines.plan import AUDIO, VIDEO, ClipPlan, epoch_row, plan
from coaug.pipelines.planes import Cutter
from coaug.pipelines.recording import Recording
from coaug.pipelines.schedule import Schedule
from coaug.pipelines.slices import cut
from coaug.pipelines.source import Source
from coaug.pipelines.timeline import instants

FRAMES, RATE, BATCH = 16, 16.0, 8
AGAINST_DALI = ("vp9.webm", "mjpeg.mkv", "minute.webm", "minute.mkv")
SPED = DataConfig(
    video=VideoConfig(frames=FRAMES, fps=RATE, size=112, crop="resized(0.2, 1)"),
    views=(ViewConfig("speed(1, 2, 3, 4)"),),
)
Step = Callable[[], Any]  # a batch; with a `prepare`, that is called before and not timed
Row = dict[str, Any]


def main() -> None:
    options = arguments()
    threadpool_limits(1)
    keep_memory()  # as worker processes do
    rows = [row for name in AGAINST_DALI for row in against_dali(name, options)]
    rows += whole_source("h264.mp4", options)
    report(rows)
    if options.json:
        machine = {"machine": platform.platform(), "libav": av.library_versions["libavcodec"]}
        options.json.write_text(json.dumps([row | machine for row in rows], indent=1))


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


def against_dali(name: str, options: argparse.Namespace) -> list[Row]:
    """Clips per CPU second of three ways to the same frames."""
    folder = options.folder
    ways = {
        "DALI": decoded(whole, windows(name, folder)),
        "slices": decoded(sliced, windows(name, folder)),
        "host": on_host(windows(name, folder)),
    }
    seconds = measured(ways, options)
    ratios = {way: statistics.median(seconds["DALI"]) / statistics.median(s) for way, s in seconds.items()}
    return [row(f"{name}, {way}", s, ratio=ratios[way], to="DALI") for way, s in seconds.items()]


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


def whole_source(name: str, options: argparse.Namespace) -> list[Row]:
    """The source against its own decoding."""
    paths = made(name, options.folder)
    catalog_path = options.folder / f"{paths[0].stem}.parquet"
    indexed = index(list(paths), catalog_path, progress=False)
    catalog = Catalog.open(indexed.path)
    bare = Catalog.open(shutil.copy(indexed.path, indexed.path.with_stem(f"{indexed.path.stem}-bare")))
    ways: dict[str, Any] = {
        "decode": Alone(catalog),
        "read": Read(catalog),
        "source": Sourced(catalog),
        "container": Sourced(bare),
        "undropped": Sourced(bare, dropping=False),
    }
    seconds = measured(ways, options)
    alone = seconds["decode"]  # of the same samples in each pass
    ratios = {
        way: statistics.median(a / b for a, b in zip(s, alone, strict=True)) for way, s in seconds.items()
    }
    costs = {
        way: f"{each.decoded / each.shown:.2f}" for way, each in ways.items() if isinstance(each, Sourced)
    }
    return [
        row(f"{name}, {way}", s, ratio=ratios[way], to="decode's time", decoded_per_shown=costs.get(way))
        for way, s in seconds.items()
    ]


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


def measured(ways: Mapping[str, Step], options: argparse.Namespace) -> dict[str, list[float]]:
    """CPU seconds a clip of each way, pass by pass."""
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for repeat in range(options.repeats + 1):
        for way, step in ways.items():
            spent = [_timed(step) for _ in range(options.steps)]
            if repeat:  # the first pass warms caches
                seconds[way].append(statistics.fmean(spent) / BATCH)
    return seconds


def _timed(step: Step) -> float:
    getattr(step, "prepare", lambda: None)()
    start = time.process_time()
    step()
    return time.process_time() - start


def row(name: str, seconds: Sequence[float], **more: Any) -> Row:
    """One line of the report."""
    ordered = sorted(seconds)
    low, high = ordered[-1 - len(ordered) // 4], ordered[len(ordered) // 4]
    return {
        "name": name,
        "clips_per_cpu_s": 1 / statistics.median(ordered),
        "low": 1 / low,
        "high": 1 / high,
        **more,
    }


def report(rows: Sequence[Row]) -> None:
    table = Table("", "clips / CPU s", "middle half", "ratio", "decoded / shown", title="one core")
    for r in rows:
        ratio = f"{r['ratio']:.2f} x {r['to']}"
        table.add_row(
            r["name"],
            f"{r['clips_per_cpu_s']:.1f}",
            f"{r['low']:.1f}-{r['high']:.1f}",
            ratio,
            r.get("decoded_per_shown") or "",
        )
    Console().print(table)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("data/films"), help="where the films are kept")
    parser.add_argument("--steps", type=int, default=3, help="batches a pass")
    parser.add_argument("--repeats", type=int, default=7, help="interleaved passes")
    parser.add_argument("--json", type=Path, help="write the rows here")
    return parser.parse_args()


if __name__ == "__main__":
    main()
