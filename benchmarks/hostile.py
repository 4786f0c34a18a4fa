"""Does anything in a collection of files stop an epoch, change a good sample, or eat memory?

    python benchmarks/hostile.py                      2,000 files, of which 15 % are broken or strange; three epochs
    python benchmarks/hostile.py --files 60 --json FILE

The collection (hostile_files.py) is indexed, and what becomes of every file compared with what should. Then the
loader, with worker processes, goes through its epochs while some files vanish (hostile_run.py): each sample that should
fail must, and no other. The same good files alone, in a catalog of their own, must give the same samples, bit for bit.
At the end of each epoch, memory and descriptors of the trainer and its workers are read. Exit status 1: a check failed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from hostile_files import KINDS, Collection, Entry, take_away
from hostile_run import Departures, Run, run
from rich.console import Console
from rich.table import Table

from coaug.pipelines.catalog import Catalog
from coaug.pipelines.config import AudioConfig, DataConfig, VideoConfig, ViewConfig
from coaug.pipelines.index import index
from coaug.pipelines.loader import AVLoader
from coaug.pipelines.recording import Recording
from coaug.pipelines.report import IndexReport

CONFIG = DataConfig(  # clips of 1.2 s: a film of one second is too short
    video=VideoConfig(frames=6, fps=5.0, size=32),
    audio=AudioConfig(rate=16000, seconds=1.2, mels=16),
    views=(ViewConfig("speed(1, 2) | fade(0.5)"), ViewConfig("reverse(0.5)", "unaligned")),
)
FLAT = 0.05  # by how much of what it was after the first epoch a process may grow afterwards
Fates = dict[str, str]  # file -> what became of it: an outcome of `Entry`


def main() -> int:
    options = arguments()
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp(prefix="coaug-hostile-", dir=options.folder))
    try:
        found = campaign(folder, options)
    finally:
        shutil.rmtree(folder)
    show(found)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))
    return 0 if all(check["holds"] for check in found["checks"]) else 1


def campaign(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Everything that was found, ready for JSON."""
    broken, began = max(round(options.broken * options.files), len(KINDS)), time.monotonic()
    made = Collection(folder, options.films, options.files, broken, options.seed)
    reports = [
        index([root], folder / f"{root.name}.parquet", progress=False) for root in (made.mixed, made.alone)
    ]
    indexing = time.monotonic() - began
    with loader_of(reports[0].path, options) as loader:
        rows = {row.id: row for row in loader.catalog}
        fates = fates_of(made, Catalog.open(reports[0].path), rows, reports[0])
        leaving = departures(loader, made.entries, options.epochs)
        mixed = run(loader, options.epochs, lambda step: take(leaving.after.get(step, ()), rows))
    with loader_of(reports[1].path, options) as loader:
        alone = run(loader, options.epochs)
    names = {sample: name_of(row.path) for sample, row in rows.items()}
    return {
        "options": {
            "files": options.files,
            "epochs": options.epochs,
            "workers": options.workers,
            "seed": options.seed,
        },
        "machine": f"{platform.platform()}, {os.cpu_count()} cores",
        "seconds": {"indexing": indexing, "mixed": mixed.seconds, "good alone": alone.seconds},
        "kinds": kinds(made.entries, fates, mixed, names),
        "reasons": reports[0].reasons,
        "usage": {
            name: [asdict(usage) for usage in usages]
            for name, usages in (("trainer", mixed.trainer), ("workers", mixed.workers))
        },
        "stats": mixed.stats,
        "checks": [
            *check_index(made, reports[0], fates),
            *check_counts(mixed, leaving, rows, options),
            *check_good(mixed, alone, {s for s, name in names.items() if " good." in name}, options.epochs),
            *check_flat(mixed, options.workers),
        ],
    }


def loader_of(catalog: Path, options: argparse.Namespace) -> AVLoader:
    """All recordings, each once an epoch, in worker processes."""
    return AVLoader(
        catalog,
        CONFIG,
        batch_size=options.batch,
        workers=options.workers,
        seed=options.seed,
        drop_last=False,
    )


def name_of(path: str) -> str:
    """A file's name below its root, as in `Entry`."""
    return "/".join(Path(path).parts[-2:])


def departures(loader: AVLoader, entries: Sequence[Entry], epochs: int) -> Departures:
    """When the vanishing files of the loader's catalog do."""
    vanishing = {entry.file for entry in entries if entry.kind == "vanishing"}
    return Departures.of(loader, [row.id for row in loader.catalog if name_of(row.path) in vanishing], epochs)


def take(samples: Sequence[int], rows: Mapping[int, Recording]) -> None:
    """Takes these recordings' files away, one like this, the next like that."""
    for sample in samples:
        take_away(Path(rows[sample].path), sample)


def fates_of(
    made: Collection, catalog: Catalog, usable: Mapping[int, Recording], report: IndexReport
) -> Fates:
    """What became of every file, by the catalog and the table of rejects."""
    fates = {entry.file: "unlisted" for entry in made.entries}
    fates |= {name_of(reject.path): reject.reason for reject in report.rejects}
    return fates | {name_of(row.path): "played" if row.id in usable else "short" for row in catalog}


def as_expected(entry: Entry, fate: str) -> bool:
    """Whether a file became what it should; what vanishes later is playable at first."""
    if entry.outcome == "either":
        return fate != "unlisted"
    return fate == {"lost": "played"}.get(entry.outcome, entry.outcome)


def check(what: str, holds: bool, figures: str) -> dict[str, Any]:
    """A statement, whether it holds, and the figures behind it."""
    return {"what": what, "holds": bool(holds), "figures": figures}


def check_index(made: Collection, report: IndexReport, fates: Fates) -> list[dict[str, Any]]:
    """Every file is in the catalog or in the table of rejects, and for the right reason."""
    wrong = [e for e in made.entries if not as_expected(e, fates[e.file])]
    files = sum(entry.outcome != "unlisted" for entry in made.entries)
    total = f"{report.files} files = {report.recordings} recordings + {len(report.rejects)} rejects"
    whole = report.files == files == report.recordings + len(report.rejects)
    surprises = "; ".join(f"{e.file}: {fates[e.file]}" for e in wrong[:3])
    return [
        check("every file is catalogued or rejected", whole, total),
        check("as it should be", not wrong, f"{len(wrong)} surprises {surprises}".strip()),
    ]


def check_counts(
    mixed: Run, leaving: Departures, rows: Mapping[int, Recording], options: argparse.Namespace
) -> list[dict[str, Any]]:
    """The epochs finish, and exactly what vanished fails, is counted and is logged."""
    seen, samples = len(mixed.digests) + len(mixed.invalid), len(rows) * options.epochs
    batches = -(-len(rows) // options.batch) * options.epochs
    counted = (int(mixed.stats["samples"]), int(mixed.stats["failures"]), mixed.warnings)
    expected = (batches * options.batch, leaving.failures, leaving.warnings)
    return [
        check("all epochs finish, each recording once in each", seen == samples, f"{seen} of {samples}"),
        check(
            "what vanished fails, and nothing else",
            mixed.invalid == leaving.lost,
            f"{len(mixed.invalid)} invalid, {len(leaving.lost)} expected",
        ),
        check(
            "samples, failures and warnings are counted exactly",
            counted == expected,
            f"{counted} of {expected}",
        ),
    ]


def check_good(mixed: Run, alone: Run, good: set[int], epochs: int) -> list[dict[str, Any]]:
    """Good samples know nothing of their neighbours."""
    ours = {key: digest for key, digest in mixed.digests.items() if key[1] in good}
    same = sum(alone.digests.get(key) == digest for key, digest in ours.items())
    return [
        check(
            "good samples are the same bit for bit without the others",
            same == len(ours) == len(alone.digests) == len(good) * epochs,
            f"{same} of {len(alone.digests)}",
        )
    ]


def check_flat(mixed: Run, workers: int) -> list[dict[str, Any]]:
    """Neither memory nor descriptors grow after the first epoch; a worker may have a file open at the moment."""
    both = {"trainer": mixed.trainer, "workers": mixed.workers}
    own = {name: [usage.own for usage in usages] for name, usages in both.items()}
    opened = {name: [usage.descriptors for usage in usages] for name, usages in both.items()}
    memory = all(max(later) <= (1 + FLAT) * later[0] for later in own.values())
    descriptors = all(max(later) <= later[0] + workers for later in opened.values())
    return [
        check("memory is flat after the first epoch", memory, told(own)),
        check("descriptors are flat after the first epoch", descriptors, told(opened)),
    ]


def told(figures: Mapping[str, Sequence[float]]) -> str:
    """From the first epoch's figure to the last one's, and the largest."""
    return ", ".join(f"{name} {f[0]:.0f} -> {f[-1]:.0f}, at most {max(f):.0f}" for name, f in figures.items())


def kinds(
    entries: Sequence[Entry], fates: Fates, mixed: Run, names: Mapping[int, str]
) -> list[dict[str, Any]]:
    """A row a kind: files, what became of them, and how often they were played and failed."""
    rows: dict[str, dict[str, Any]] = defaultdict(
        lambda: {"files": 0, "fates": Counter(), "valid": 0, "invalid": 0}
    )
    of = {entry.file: entry.kind for entry in entries}
    for file, kind in of.items():
        rows[kind]["files"] += 1
        rows[kind]["fates"][fates[file]] += 1
    for samples, column in ((mixed.digests, "valid"), (mixed.invalid, "invalid")):
        for _, sample in samples:
            rows[of[names[sample]]][column] += 1
    return [{"kind": kind, **rows[kind]} for kind in ("good", *KINDS) if kind in rows]


def show(found: Mapping[str, Any]) -> None:
    """Three tables: kinds, memory, checks."""
    table = Table("kind", "files", "what became of them", "valid samples", "invalid")
    for row in found["kinds"]:
        fates = ", ".join(f"{count} {fate}" for fate, count in row["fates"].items())
        table.add_row(row["kind"], str(row["files"]), fates, str(row["valid"]), str(row["invalid"]))
    usage = Table("at the end of epoch", "", "resident MB", "own MB", "descriptors")
    for name, rows in found["usage"].items():
        for epoch, row in enumerate(rows):
            figures = (f"{row['resident']:.1f}", f"{row['own']:.1f}", str(row["descriptors"]))
            usage.add_row(str(epoch), name, *figures)
    verdicts = Table("", "check", "figures")
    for row in found["checks"]:
        verdicts.add_row("ok" if row["holds"] else "FAILED", row["what"], row["figures"])
    console = Console()
    console.print(table, usage, verdicts)
    console.print({name: round(seconds) for name, seconds in found["seconds"].items()}, "seconds")


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--files", type=int, default=2000, help="in the collection")
    parser.add_argument("--broken", type=float, default=0.15, help="share of them; at least one of each kind")
    parser.add_argument(
        "--films", type=int, default=40, help="distinct good films; the other good files are links"
    )
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--folder", type=Path, help="where to put the files (default: the system's temporary folder)"
    )
    parser.add_argument("--json", type=Path, help="write everything that was found here")
    return parser.parse_args(given)


if __name__ == "__main__":
    sys.exit(main())
