"""`coaug pack`: the recordings of a catalog -> shards that are read without parsing, and their catalog.

Each recording is packed alone, in a process that can be ended, into a file below `OUT/.packing`; a shard whose
recordings are all there is put together and checked. So a killed run goes on where it was, and the result is the same.
"""

from __future__ import annotations

import fcntl
import json
import re
import shutil
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from .. import pool
from ..catalog import Catalog, CatalogError
from ..media import Deadline, MediaError, reason
from ..probe import Reject
from ..report import bar, show_rejects, write_rejects
from ..table import replace
from . import index, listing, shards
from .sample import packed
from .settings import NAME, Packing

LEFT = re.compile(r"\..+\.(tar|arrow|json|parquet)\.\d+")  # what `table.replace` was filling
WORK, JOURNAL = ".packing", "rejects.jsonl"
CATALOG, REJECTED = "catalog.parquet", "rejects.parquet"
DEADLINE = 120.0  # seconds for one recording, and SLOWER for each of its own
SLOWER = 4.0
TRIED = 8  # recordings by which the disk use is told beforehand
ROOM = 1.1  # of that, to be on the safe side
TARGET = "coaug.pipelines.packed.pack:pack_row"


@dataclass(frozen=True)
class PackReport:
    """What a run of `pack` made: `recordings` in `shards` of `bytes` in all, and what was left out."""

    path: Path
    recordings: int
    shards: int
    bytes: int
    rejects: tuple[Reject, ...]

    def show(self) -> None:
        """Prints a summary, and the rejects by reason."""
        show_rejects(self.rejects)
        print(
            f"{self.recordings} recordings in {self.shards} shards ({_gib(self.bytes)}), "
            f"{len(self.rejects)} rejects -> {self.path}"
        )


@dataclass
class _Job:
    """A pack in the making."""

    catalog: Catalog
    out: Path
    packing: Packing
    rejects: dict[int, Reject] = field(default_factory=dict)

    @property
    def work(self) -> Path:
        return self.out / WORK


def pack(
    catalog: str | Path,
    out: str | Path,
    packing: Packing = Packing(),  # noqa: B008  # frozen
    *,
    workers: int | None = None,
    progress: bool = True,
) -> PackReport:
    """Packs all recordings of `catalog` into the folder `out`: shards, their indexes, and `catalog.parquet`.

    A run that was ended goes on when it is started again; one that is complete is left alone. What cannot be packed
    stands with its reason in `rejects.parquet`.

    Args:
        workers: processes; default: one per core.
        progress: show a bar on a terminal and say beforehand how much disk is needed.

    Raises:
        CatalogError: another pack is in `out`, not enough room on its disk, or nothing could be packed.
    """
    job = _Job(Catalog.open(catalog), Path(out).absolute(), packing)
    _begin(job)
    with _alone(job.out):
        _tidy(job.out)
        plan = layout(job.catalog, packing)
        if (job.out / CATALOG).exists():
            return _report(job)
        job.work.mkdir(exist_ok=True)
        job.rejects = dict(_known_rejects(job.work / JOURNAL))
        count = workers or pool.cores()
        _tell(job, plan, count, progress)
        _pack_all(job, plan, count, progress)
        return _finish(job, plan)


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Keeps other runs out of the folder; the kernel lets go however this one ends."""
    with (out / NAME).open() as settings:
        try:
            fcntl.flock(settings, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CatalogError(f"{out}: another `coaug pack` is at work there") from None
        yield


def _begin(job: _Job) -> None:
    """Makes the folder this pack's own."""
    if not len(job.catalog) or job.catalog[0].member is not None:
        raise CatalogError(f"{job.catalog.path}: nothing to pack, or packed already")
    if (job.out / CATALOG).exists() and not (job.out / NAME).exists():
        raise CatalogError(f"{job.out} holds a catalog that is no pack's: choose another folder")
    job.out.mkdir(parents=True, exist_ok=True)
    job.packing.save(job.out, job.catalog.fingerprint)


def _tidy(out: Path) -> None:
    """Takes away what a killed run was writing."""
    for path in out.iterdir():
        if LEFT.fullmatch(path.name):
            path.unlink()


def layout(catalog: Catalog, packing: Packing) -> list[list[int]]:
    """The rows of each shard: in the catalog's order, pictures of one size together."""
    sizes: dict[tuple[int, int], list[int]] = defaultdict(list)
    for row, recording in enumerate(catalog):
        sizes[packing.stored(recording.video) if recording.video else (0, 0)].append(row)
    step = packing.samples
    return [rows[n : n + step] for _, rows in sorted(sizes.items()) for n in range(0, len(rows), step)]


def pack_row(argument: str) -> dict[str, Any]:
    """One recording, in a worker process: [catalog, folder, row] as JSON -> {} or a Reject's fields."""
    path, folder, row = json.loads(argument)
    catalog, out = _opened(path), Path(folder)
    recording = catalog[row]
    names = catalog.label_names
    label = names[recording.label] if 0 <= recording.label < len(names) else ""
    try:
        data, entry = packed(recording, label, _packing(folder), Deadline(_allowed(recording.duration)))
    except Exception as error:  # whatever a strange file sets off, it must not end the run
        known = isinstance(error, MediaError)
        return asdict(Reject(recording.path, str(error) if known else f"{type(error).__name__}: {error}"))
    tar, done = _parts(out / WORK, row)

    def fill(name: str) -> None:
        Path(name).write_bytes(data)

    try:
        replace(tar, fill)  # in one piece: a killed run's worker may be about to do the same
        index.write([entry], done)  # comes last: where it is, the recording is packed
    except OSError as error:  # a full disk is not the recording's fault
        return {"stop": f"{out}: {reason(error)}"}
    return {}


_opened = lru_cache(Catalog.open)
_packing = lru_cache(lambda folder: Packing.of(Path(folder)))


def _allowed(seconds: float) -> float:
    return DEADLINE + SLOWER * seconds


def _parts(work: Path, row: int) -> tuple[Path, Path]:
    return work / f"{row}.tar", work / f"{row}.arrow"


def _tell(job: _Job, plan: Sequence[Sequence[int]], workers: int, progress: bool) -> None:
    """Packs a few recordings from all over the catalog to see how much disk all will take."""
    todo = [row for number, rows in enumerate(plan) if not _complete(job, number) for row in rows]
    tried = [todo[len(todo) * n // TRIED] for n in range(TRIED)] if len(todo) > TRIED else todo
    for _ in _results(job, tried, workers):
        pass
    done = [row for row in tried if _parts(job.work, row)[1].exists()]
    if not done:
        return
    durations = job.catalog.durations
    per_second = sum(_parts(job.work, row)[0].stat().st_size for row in done) / durations[done].sum()
    left = [row for row in todo if not _settled(job, row)]
    # a shard lies there twice while it is put together
    shard = max(durations[rows].sum() for number, rows in enumerate(plan) if not _complete(job, number))
    need, free = float((durations[left].sum() + shard) * per_second), shutil.disk_usage(job.out).free
    if progress:
        print(f"{len(left)} more recordings: about {_gib(need)}; {_gib(free)} free on the disk of {job.out}")
    if ROOM * need > free:
        raise CatalogError(
            f"{job.out}: about {_gib(need)} will be needed, {_gib(free)} are free; free some, "
            "or choose a smaller --size"
        )


def _gib(size: float) -> str:
    return f"{size / 2**30:.2f} GiB"


def _pack_all(job: _Job, plan: Sequence[Sequence[int]], workers: int, progress: bool) -> None:
    """Packs what is missing, and puts each shard together as soon as its last recording is there."""
    open_ones = {number: set(rows) for number, rows in enumerate(plan) if not _complete(job, number)}
    owner = {row: number for number, rows in open_ones.items() for row in rows}
    for row in [row for row in owner if _settled(job, row)]:
        open_ones[owner[row]].discard(row)
    todo = [row for row in owner if row in open_ones[owner[row]]]
    for number in [number for number, rows in open_ones.items() if not rows]:
        _assemble(job, number, plan[number])
    for row, _ in bar(_results(job, todo, workers), len(todo), progress, "packing"):
        rows = open_ones[owner[row]]
        rows.discard(row)
        if not rows:
            _assemble(job, owner[row], plan[owner[row]])


def _results(job: _Job, rows: Sequence[int], workers: int) -> Iterator[tuple[int, Any]]:
    """Packs `rows` but for those that are packed; (row, what came of it), rejects noted."""
    arguments = {
        json.dumps([str(job.catalog.path), str(job.out), row]): row for row in rows if not _settled(job, row)
    }
    allowed = job.catalog.durations

    def deadline(argument: str) -> float:
        return 2 * _allowed(float(allowed[arguments[argument]]))

    for argument, result in pool.run(TARGET, arguments, workers, deadline):
        row = arguments[argument]
        if isinstance(result, pool.Hung):
            result = asdict(Reject(job.catalog[row].path, "took too long"))
        elif isinstance(result, pool.Crashed):
            result = asdict(Reject(job.catalog[row].path, "crashed the decoder"))
        if "stop" in result:
            raise CatalogError(f"{result['stop']}; start again when that is put right")
        if result:
            job.rejects[row] = Reject(**result)
            with (job.work / JOURNAL).open("a") as journal:
                journal.write("\n" + json.dumps([row, result]) + "\n")
        yield row, result


def _settled(job: _Job, row: int) -> bool:
    return row in job.rejects or _parts(job.work, row)[1].exists()


def _known_rejects(path: Path) -> Iterator[tuple[int, Reject]]:
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            row, fields = json.loads(line)
        except ValueError:  # empty, or cut off by a kill
            continue
        yield row, Reject(**fields)


def _complete(job: _Job, number: int) -> bool:
    return (job.out / shards.tar_name(number)).with_suffix(".arrow").exists()


def _assemble(job: _Job, number: int, rows: Sequence[int]) -> None:
    parts = [_parts(job.work, row) for row in rows if row not in job.rejects]
    if parts:
        path = job.out / shards.tar_name(number)
        shards.write(path, ((tar, index.rows_of(done)[0]) for tar, done in parts))
    for part in parts:
        for file in part:
            file.unlink(missing_ok=True)


def _finish(job: _Job, plan: Sequence[Sequence[int]]) -> PackReport:
    there = [job.out / shards.tar_name(n) for n in range(len(plan)) if _complete(job, n)]
    rejects = sorted(job.rejects.values(), key=lambda reject: (reject.path, reject.reason))
    write_rejects(rejects, job.out / REJECTED)
    if not there:
        raise CatalogError(f"{job.out}: nothing could be packed; the first reason: {rejects[0].reason}")
    listing.write(job.catalog, there, job.out / CATALOG)  # comes last: where it is, the pack is complete
    return _report(job)


def _report(job: _Job) -> PackReport:
    shutil.rmtree(job.work, ignore_errors=True)
    table = pq.read_table(job.out / REJECTED).to_pylist()
    sizes = [path.stat().st_size for path in job.out.glob("*.tar")]
    path = job.out / CATALOG
    return PackReport(
        path, len(Catalog.open(path)), len(sizes), sum(sizes), tuple(Reject(**r) for r in table)
    )
