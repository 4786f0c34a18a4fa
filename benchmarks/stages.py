"""Where does a clip's time go, on one core, from the file to the batch?

    coaug bench stages [--data FOLDER] [--views one] [--json FILE]

Seconds by stage are the loader's own counters (`AVLoader.stats`, `deadline.STAGES`), read with a clock of CPU time and
with one of the wall, pass by pass. The graph is measured alone, on arrays that are ready: pictures (crop, resize,
colour), sound (resampling, timeline) and log-mel. Hand-over is what is left: packing samples into DALI's inputs, its
scheduling, and unpacking batches. The same on the packed shards of the same files.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from loader import PACKS, data
from measure import machine
from nvidia.dali import fn, pipeline_def
from packed_stages import Graph, settle
from report import write
from rich.console import Console
from rich.table import Table
from rows.ours import Loaded
from rows.request import CONFIGS
from threadpoolctl import threadpool_limits

from coaug.pipelines import deadline
from coaug.pipelines.catalog import Catalog
from coaug.pipelines.config import DataConfig
from coaug.pipelines.memory import keep_memory
from coaug.pipelines.packed.pack import pack
from coaug.pipelines.sound import spectrogram

CLOCKS: dict[str, tuple[Callable[[], float], Callable[[], float]]] = {  # of a stage, and of all threads
    "cpu": (time.thread_time, time.process_time),
    "wall": (time.perf_counter, time.perf_counter),
}
LABELS = {"video": "video decode", "audio": "audio decode", "demux": "seek + demux", "plan": "plan + compile"}
Row = dict[str, Any]


def main() -> None:
    options = arguments()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # two threads of one core slow each other down
    torch.set_num_threads(1)
    threadpool_limits(1)
    keep_memory()
    catalog, folder = data(options)
    packing = PACKS["coaug, layered + FLAC"]
    packs = pack(catalog, folder / f"packed-{packing.video}-{packing.audio}", packing, progress=False).path
    config, rows = CONFIGS[f"{options.views} view{'s' * (options.views == 'two')}"], list[Row]()
    for name, path in (("files", catalog), ("packed", packs)):
        found = stages(Catalog.open(path).where(min_seconds=config.needed_seconds), config, options)
        show(name, found)
        rows += [row | {"name": f"{name}, {row['name']}"} for row in found]
    write([row | machine() for row in rows], options.json, options.csv)


def stages(catalog: Catalog, config: DataConfig, options: argparse.Namespace) -> list[Row]:
    """Milliseconds a clip of every stage, medians over passes; the last row is all of it."""
    loaded, clips = Loaded(catalog, config, options.batch), options.batch * options.steps * len(config.views)
    alone = {
        "graph: pictures": Graph(catalog, replace(config, modalities=("video",)), options.batch),
        "graph: sound": Graph(catalog, replace(config, modalities=("audio",)), options.batch),
        "graph: log-mel of it": Mel(config, options.batch),
    }
    passes: list[Row] = []
    for repeat in range(options.repeats + 1):
        for kind, clocks in CLOCKS.items():
            found = {name: one(step, options.steps, clocks[1]) for name, step in alone.items()}
            found |= by_stage(loaded, options.steps, *clocks)
            found["hand-over"] = found["all"] - sum(
                v for k, v in found.items() if k not in ("all", "graph: log-mel of it")
            )
            if repeat:  # the first pass warms caches
                passes += [{"name": name, "kind": kind, "ms": 1e3 * s / clips} for name, s in found.items()]
    names = [*(LABELS.get(stage, stage) for stage in deadline.STAGES), *alone, "hand-over", "all"]
    return [
        {"name": name, **{f"{kind}_ms": _median(passes, name, kind) for kind in CLOCKS}} for name in names
    ]


def _median(passes: list[Row], name: str, kind: str) -> float:
    return statistics.median(p["ms"] for p in passes if (p["name"], p["kind"]) == (name, kind))


def by_stage(
    loaded: Loaded, steps: int, clock: Callable[[], float], total: Callable[[], float]
) -> dict[str, float]:
    """Seconds of every stage of the source, and of all, for a few batches."""
    marks: list[dict[str, float]] = []

    def step() -> None:
        loaded([])
        marks.append(_spent(loaded))

    with ticking(clock):
        loaded([])  # what was prepared ahead by another clock
        seconds = one(step, steps, total)
        step()  # a batch is handed out, and counted, a step after it was made
    first, last = marks[0], marks[-1]
    return {LABELS.get(s, s): last[s] - first[s] for s in last} | {"all": seconds}


def one(step: Callable[[], Any], steps: int, clock: Callable[[], float]) -> float:
    """Seconds of a few steps, and of what they leave behind for other threads."""
    settle()
    start = clock()
    for _ in range(steps):
        step()
    idle = clock()
    settle()
    return (clock() if clock is time.process_time else idle) - start


def _spent(loaded: Loaded) -> dict[str, float]:
    stats = loaded.loader.stats()
    return {stage: stats[f"ms.{stage}"] * stats["samples"] / 1e3 for stage in deadline.STAGES}


@contextmanager
def ticking(clock: Callable[[], float]) -> Iterator[None]:
    """Stages are timed by `clock` in here."""
    before, deadline.clock = deadline.clock, clock
    yield
    deadline.clock = before


class Mel:
    """Log-mel of sound that is there, alone."""

    def __init__(self, config: DataConfig, batch: int) -> None:
        audio = config.audio
        played = np.random.default_rng(0).standard_normal(audio.samples).astype(np.float32)

        @pipeline_def(batch_size=batch, num_threads=1, device_id=None, prefetch_queue_depth=1)  # type: ignore[untyped-decorator]
        def graph() -> Any:
            heard = [fn.external_source(lambda _: played, batch=False, no_copy=True) for _ in config.views]
            return tuple(spectrogram(each, audio, "cpu") for each in heard)

        self.pipeline = graph()
        self.pipeline.build()

    def __call__(self) -> None:
        self.pipeline.run()


def show(name: str, rows: list[Row]) -> None:
    table = Table("", "CPU ms a clip", "share", "wall ms", title=f"{name}, one core")
    whole = rows[-1]["cpu_ms"]
    for row in rows:
        table.add_row(
            row["name"], f"{row['cpu_ms']:.2f}", f"{row['cpu_ms'] / whole:.0%}", f"{row['wall_ms']:.2f}"
        )
    Console().print(table)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="coaug bench stages", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder or catalog (default: generated films)")
    parser.add_argument(
        "--folder", type=Path, default=Path("data/films"), help="where films and packs are kept"
    )
    parser.add_argument("--views", choices=("one", "two"), default="two", help="views a sample")
    parser.add_argument("--batch", type=int, default=8, help="samples a batch")
    parser.add_argument("--steps", type=int, default=2, help="batches a pass")
    parser.add_argument("--repeats", type=int, default=7, help="passes")
    parser.add_argument("--json", type=Path, help="write the rows here")
    parser.add_argument("--csv", type=Path, help="and here")
    return parser.parse_args()


if __name__ == "__main__":
    main()
