"""What do clips cost, out of files and out of packs, against other people's loaders and against decoding alone?

    make bench                                    films as downloaded, generated once
    make bench ARGS="--data FOLDER --json FILE"   your own
    coaug bench loader --rows coaug torchcodec --views two

Every row makes the same clips of the same files (`rows/`): 16 frames of 112² at a speed from 1 to 4 and a second of
log-mel; one view a sample, or two that begin at one instant. A clip is a view. Each row runs in a process of its own
on the same core, one thread a library, passes interleaved; CPU seconds are all its threads'. Peers run with the fastest
of their settings, which are tried first. Ratios are medians over passes with 95 % intervals; they carry over to other
machines, rates do not.

Other parts: coaug bench augment | source | packed | stages | headspace, each with its own --help.
"""

from __future__ import annotations

import argparse
import os
import runpy
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from films import made
from measure import Row, machine, measured, rates, ratio, row_of
from report import chart, show, write
from rich.console import Console
from rows import ROWS
from rows import Row as Entry
from rows.worker import Job, Passed

from coaug.cli import _catalog_of
from coaug.pipelines.index import index
from coaug.pipelines.packed.pack import pack
from coaug.pipelines.packed.settings import Packing

PARTS = ("loader", "augment", "source", "packed", "stages", "headspace")
STAGES = {"all": "loader", "augment": "augment", "decode": "source"}
PACKS = {
    "coaug, layered + FLAC": Packing("layered"),
    "coaug, layered + PCM": Packing("layered", audio="pcm"),
    "coaug, h264 + FLAC": Packing("h264"),
    "coaug, mjpeg + PCM": Packing("mjpeg", audio="pcm"),
}
AGAINST = ("AVID-CMA", "torchcodec", "decode only", "torchcodec, CUDA", "PyNvVideoCodec", "NVDEC")
console = Console()


def main() -> None:
    named = sys.argv[1:2] if sys.argv[1:2] and sys.argv[1] in PARTS else []
    stage = argparse.ArgumentParser(add_help=False)
    stage.add_argument("--stage", choices=STAGES, default="all")
    known, rest = stage.parse_known_args(sys.argv[1 + len(named) :])
    part = named[0] if named else STAGES[known.stage]
    if part != "loader":
        sys.argv = [f"{part}.py", *rest]
        runpy.run_path(str(Path(__file__).with_name(f"{part}.py")), run_name="__main__")
        return
    options = arguments(parents=[stage]).parse_args(rest)
    rows = [
        row for views in options.views for row in loaders(f"{views} view{'s' * (views == 'two')}", options)
    ]
    write(rows, options.json, options.csv)
    if options.chart and rows:
        chart(rows, options.chart)


def loaders(views: str, options: argparse.Namespace) -> list[Row]:
    """All rows of one config, shown."""
    jobs = {name: job for name, job in _jobs(views, options).items() if _asked(name, options.rows)}
    passes = measured(jobs, options.repeats, options.steps or (8 if options.workers else 6), console.print)
    wall = options.workers > 0
    rows = [row_of(name, found) | _compared(found, passes, wall) for name, found in passes.items()]
    if rows:
        where = f"{options.workers} workers" if options.workers else "one core"
        show(rows, f"{views} a sample, {where}", console)
    return [row | {"views": views} | machine() for row in rows]


def _compared(found: list[Passed], passes: dict[str, list[Passed]], wall: bool) -> Row:
    """Rates against the peers': by CPU seconds, or by the clock where several workers share the cores."""
    peers = [name for name in AGAINST if name in passes]
    return {f"x {name}": ratio(rates(found, wall), rates(passes[name], wall)) for name in peers}


def _jobs(views: str, options: argparse.Namespace) -> dict[str, Job]:
    catalog, folder = data(options)
    cores = frozenset(os.sched_getaffinity(0))
    job = Job(
        "coaug",
        catalog,
        views,
        options.batch,
        cores if options.workers else frozenset({max(cores)}),
        options.workers,
    )
    jobs = {name: replace(job, row=name) for name, row in ROWS.items() if _possible(row, name, options)}
    if options.packs:
        for name, packing in PACKS.items():
            if _asked(name, options.rows):
                out = folder / f"packed-{packing.video}-{packing.audio}"
                jobs[name] = replace(job, catalog=pack(catalog, out, packing, progress=False).path)
    return jobs


def _possible(row: Entry, name: str, options: argparse.Namespace) -> bool:
    """What needs a GPU is not even named where there is none, unless it was asked for."""
    if row.gpu and not torch.cuda.is_available():
        return options.rows is not None and name in options.rows
    return not (options.workers and row.alone)


def _asked(name: str, rows: list[str] | None) -> bool:
    return rows is None or name in rows or name.split(",")[0] in rows


def data(options: argparse.Namespace) -> tuple[Path, Path]:
    """The catalog, and where its packs are kept."""
    if options.data:
        catalog = _catalog_of(options.data)
        return catalog, options.folder / catalog.stem
    films = made("h264.mp4", options.folder)
    return index(films, options.folder / "h264-0.parquet", progress=False).path, options.folder


def arguments(parents: Sequence[argparse.ArgumentParser] = ()) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="coaug bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=list(parents),
    )
    parser.add_argument("--data", type=Path, help="folder, catalog or pack (default: generated films)")
    parser.add_argument(
        "--folder", type=Path, default=Path("data/films"), help="where films and packs are kept"
    )
    parser.add_argument(
        "--rows",
        nargs="+",
        choices=[*ROWS, *PACKS],
        metavar="ROW",
        help=f"only these of: {', '.join([*ROWS, *PACKS])}",
    )
    parser.add_argument(
        "--views", nargs="+", choices=("one", "two"), default=["one", "two"], help="views a sample"
    )
    parser.add_argument("--no-packs", dest="packs", action="store_false", help="no packed shards")
    parser.add_argument("--batch", type=int, default=8, help="samples a batch")
    parser.add_argument(
        "--workers", type=int, default=0, help="of every row, on all cores (0: one core, no workers)"
    )
    parser.add_argument("--steps", type=int, help="batches a pass (default: 6; with workers 8)")
    parser.add_argument("--repeats", type=int, default=9, help="interleaved passes")
    parser.add_argument("--json", type=Path, help="write the rows here")
    parser.add_argument("--csv", type=Path, help="and here")
    parser.add_argument("--chart", type=Path, help="draw them here: .png, .pdf or .svg")
    return parser


if __name__ == "__main__":
    main()
