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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import av
from films import made
from rich.console import Console
from rich.table import Table
from source_dali import decoded, on_host, sliced, whole, windows
from source_parts import BATCH, Alone, Read, Sourced, Step
from threadpoolctl import threadpool_limits

from coaug.pipelines.catalog import Catalog
from coaug.pipelines.index import index
from coaug.pipelines.memory import keep_memory

AGAINST_DALI = ("vp9.webm", "mjpeg.mkv", "minute.webm", "minute.mkv")
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
