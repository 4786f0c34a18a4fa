"""What do clips cost out of packed shards, against AVID-CMA's own loader on the originals, and where does it go?

    python benchmarks/packed.py [--json FILE] [--folder data/films]

One core, CPU seconds of this process (all its threads), ways interleaved, medians over passes. Films as downloaded
(`films.py`: H.264 and AAC), two views of 16 frames of 112² from one instant, each at a speed from 1 to 4, with a second
of log-mel. A clip is one view.

    AVID-CMA   its own loader (`avid_loader.py`) on the originals; plain: without its colour jitter, the output of ours
    coaug      AVLoader, everything in this process: on the originals, and on packs of 128 pixels
    stages     what a loader cannot do without (`packed_stages.py`), each alone, added up: bytes read, packets decoded,
               frames and sound converted (cut out, thinned), the graph (resize, timeline, mel)

Packs are made once, below the folder. The second table counts frames decoded for each one shown, by speed, of clips
at the films' own rate halved; slack lets a frame lie half an output frame off its moment.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
from collections.abc import Iterator
from dataclasses import replace
from operator import truediv
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from avid_loader import AvidLoader
from films import made
from packed_stages import Graph, Stage, settle
from rich.console import Console
from rich.table import Table
from source import Row, measured, report, row
from threadpoolctl import threadpool_limits

from coaug.pipelines.bans import Bans
from coaug.pipelines.catalog import Catalog
from coaug.pipelines.config import DataConfig, VideoConfig, ViewConfig
from coaug.pipelines.index import index
from coaug.pipelines.loader import AVLoader
from coaug.pipelines.memory import keep_memory
from coaug.pipelines.packed.pack import pack
from coaug.pipelines.packed.settings import Packing
from coaug.pipelines.plan import VIDEO, epoch_row, plan
from coaug.pipelines.schedule import Schedule
from coaug.pipelines.source import Source

BATCH = 8  # as in source.py
SPED = ViewConfig("speed(1, 2, 3, 4)")
VIDEO_CONFIG = VideoConfig(frames=16, fps=16.0, size=112)
CONFIG = DataConfig(video=VIDEO_CONFIG, views=(SPED, SPED))
VIEWS = len(CONFIG.views)
PACKS = {
    "layered, FLAC": Packing("layered"),
    "layered, PCM": Packing("layered", audio="pcm"),
    "h264, FLAC": Packing("h264"),
    "mjpeg, PCM": Packing("mjpeg", audio="pcm"),
}
STAGES = ("read", "decode", "convert")
SPEEDS = (1, 2, 4, 8)


def main() -> None:
    options = arguments()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # two threads of one core slow each other down
    torch.set_num_threads(1)
    threadpool_limits(1)
    keep_memory()  # as worker processes do
    films = list(made("h264.mp4", options.folder))
    originals = Catalog.open(index(films, options.folder / "h264-0.parquet", progress=False).path)
    packs = {name: packed(originals, options.folder, packing) for name, packing in PACKS.items()}
    rows = loaders(originals, packs, options)
    report(rows)
    costs = [cost for name in ("h264, FLAC", "layered, FLAC") for cost in layers(name, packs[name])]
    show(costs)
    if options.json:
        machine = {"machine": platform.platform(), "libav": av.library_versions["libavcodec"]}
        options.json.write_text(json.dumps([each | machine for each in rows + costs], indent=1))


def packed(originals: Catalog, folder: Path, packing: Packing) -> Catalog:
    """A pack of the films, made if it is missing."""
    out = folder / f"packed-{packing.video}-{packing.audio}"
    return Catalog.open(pack(originals.path, out, packing, progress=False).path)


def loaders(originals: Catalog, packs: dict[str, Catalog], options: argparse.Namespace) -> list[Row]:
    """Clips per CPU second of every way to the same output, and of the stages added up."""
    ways: dict[str, Any] = {
        "graph": Graph(next(iter(packs.values())), CONFIG, BATCH),  # the same arrays, but for what JPEG loses
        "AVID-CMA": Avid(originals, jitter=True),
        "AVID-CMA, plain": Avid(originals, jitter=False),
        "coaug, originals": Loaded(originals),
    }
    for name, catalog in packs.items():
        ways[f"coaug, {name}"] = Loaded(catalog)
        ways |= {f"{stage}, {name}": Stage(catalog, CONFIG, BATCH, stage) for stage in STAGES}
    seconds = {way: [s / VIEWS for s in found] for way, found in measured(ways, options).items()}
    return list(_rows(seconds, packs))


def _rows(seconds: dict[str, list[float]], packs: dict[str, Catalog]) -> Iterator[Row]:
    peer = statistics.median(seconds["AVID-CMA"])
    for way in [way for way in seconds if way.startswith(("AVID", "coaug"))]:
        yield row(way, seconds[way], ratio=peer / statistics.median(seconds[way]), to="AVID-CMA's rate")
    for name in packs:
        parts = {stage: seconds[f"{stage}, {name}"] for stage in STAGES} | {"graph": seconds["graph"]}
        added = [sum(each) for each in zip(*parts.values(), strict=True)]
        # pass by pass: what disturbs one disturbs all that is measured in it
        ratio = statistics.median(map(truediv, added, seconds[f"coaug, {name}"]))
        yield row(
            f"stages, {name}", added, ratio=ratio, to="of their rate reached",
            **{stage: statistics.median(found) for stage, found in parts.items()},
        )  # fmt: skip


class Loaded:
    """Batches of our loader."""

    def __init__(self, catalog: Catalog) -> None:
        self.loader = AVLoader(catalog, CONFIG, batch_size=BATCH, workers=0)
        self.batches = self._batches()

    def __call__(self) -> None:
        if not next(self.batches).valid.all():
            raise SystemExit(f"{self.loader.catalog}: a sample could not be read")
        settle()

    def _batches(self) -> Iterator[Any]:
        while True:
            yield from self.loader


class Avid:
    """AVID-CMA's loader on the same recordings, moments and speeds."""

    def __init__(self, catalog: Catalog, jitter: bool) -> None:
        self.catalog, self.place = catalog, 0
        self.loader = AvidLoader(frames=16, fps=16.0, size=112, jitter=jitter, draw=random.Random(0))

    def __call__(self) -> None:
        steps = len(self.catalog) // BATCH  # batches an epoch, as with a loader that drops the last
        for n in range(BATCH):
            epoch, step = divmod(self.place, steps)
            row = epoch_row(self.catalog, 0, epoch, step * BATCH + n)
            clips = plan(self.catalog, CONFIG, seed=0, epoch=epoch, rows=np.array([row]))
            for start, speed in zip(clips.start[0], clips.speed[0, :, VIDEO], strict=True):
                self.loader.clip(self.catalog[row].path, float(start), float(speed))
        self.place += 1


def layers(name: str, catalog: Catalog) -> Iterator[Row]:
    """Frames decoded for each one shown, at each speed, without and with slack."""
    for speed in SPEEDS:
        for slack in (0.0, 0.5):
            video = replace(VIDEO_CONFIG, fps=15.0, frames=16 if speed < 8 else 8, slack=slack)
            config = DataConfig(video=video, views=(ViewConfig(f"speed({speed})"),), modalities=("video",))
            source = Source(catalog, config, Schedule(len(catalog), len(catalog), 1), Bans())
            samples = [source.sample(0, epoch, n) for epoch in range(16) for n in range(len(catalog))]
            decoded, shown = np.sum([sample["cost"] for sample in samples], axis=0).tolist()
            yield {"name": f"{name}, speed {speed}, slack {slack}", "decoded_per_shown": decoded / shown}


def show(costs: list[Row]) -> None:
    table = Table("", "decoded / shown", title="one view, films of 30 frames a second, clips of 15")
    for cost in costs:
        table.add_row(cost["name"], f"{cost['decoded_per_shown']:.2f}")
    Console().print(table)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--folder", type=Path, default=Path("data/films"), help="where films and packs are kept"
    )
    parser.add_argument("--steps", type=int, default=2, help="batches a pass")
    parser.add_argument("--repeats", type=int, default=7, help="interleaved passes")
    parser.add_argument("--json", type=Path, help="write the rows here")
    return parser.parse_args()


if __name__ == "__main__":
    main()
