"""`coaug index`: folders of media files -> a catalog, probing every file once, in parallel, resumably."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa

from . import pool, scan, table
from .catalog import CatalogError
from .config import Modality
from .cut import Policy, Source, recordings
from .datasets import Entry, labeller
from .journal import Journal
from .listings import SUFFIX, ListingsFile
from .probe import Probe, Reject
from .recording import Recording, table_of
from .report import IndexReport, bar, write_rejects

DEADLINE = 60.0  # seconds for one file, and one more for every 20 MB


def index(
    roots: Sequence[str | Path],
    out: str | Path,
    *,
    label_format: str = "folder",
    workers: int | None = None,
    modalities: Sequence[Modality] | Literal["any"] = ("video", "audio"),
    segment_seconds: float | None = None,
    segments: str | Path | None = None,
    holdout: float = 0.0,
    resume: bool = True,
    progress: bool = True,
    deadline: float = DEADLINE,
) -> IndexReport:
    """Probes all media files below `roots` and writes the catalog `out` (.parquet, and an .arrow twin).

    Args:
        roots: folders or files; "FOLDER=2.0" gives its recordings the weight 2.
        label_format: how labels and splits are found, a name from `datasets.LABELLERS`.
        workers: probing processes; default: one per core.
        modalities: streams that a recording must have; others are dropped. "any" keeps whatever there is.
        segment_seconds: cuts recordings into pieces of this length (the last takes what is left, half to one and
            a half of it).
        segments: a CSV file `path,start,end[,label][,split][,id]`; only what it lists is used.
        holdout: share of recordings that become the split "test", where the data name no such split themselves;
            chosen by id, so that it stays the same when files are added.
        resume: reuse what `<out>.probed.jsonl` knows of unchanged files.
        progress: show a bar on a terminal, and print the report.
        deadline: seconds after which a file that hangs is given up; large files have more.

    Everything that was left out stands with its reason in `<out>.rejects.parquet`, and where the packets of each file
    lie in `<out>.packets` (see `listing`). Rows are sorted by key, so the result does not depend on the order of files
    or roots; ids depend on paths below the root only.

    Raises:
        CatalogError: missing root, no media files, nothing usable, bad segments file, ids that are not unique.
    """
    target = Path(out).with_suffix(".parquet")
    policy = Policy(modalities, segment_seconds)
    sources, missing = _sources(scan.roots(roots), label_format, segments)
    paths = list(dict.fromkeys(source.path for source in sources))
    with (
        Journal(target.with_suffix(".probed.jsonl"), resume) as journal,
        ListingsFile(target.with_suffix(SUFFIX), resume) as listings,
    ):
        reused = _probe_all(paths, journal, listings, workers or pool.cores(), progress, deadline)
        journal.compact(paths)
        listings.keep(paths)
    rejects = {(reject.path, reject.reason): reject for reject in missing}
    labels = sorted({source.entry.label for source in sources if source.entry.label is not None})
    rows = _build(sources, labels, policy, journal, rejects)
    ordered = tuple(sorted(rejects.values(), key=lambda reject: (reject.path, reject.reason)))
    write_rejects(ordered, target.with_suffix(".rejects.parquet"))
    if not rows.num_rows:
        raise CatalogError(_nothing(roots, ordered, target))
    _check_ids(rows)
    rows = _held_out(rows, holdout)
    table.write(rows, target)
    seconds = float(np.sum(rows["end"].to_numpy() - rows["start"].to_numpy()))
    report = IndexReport(target, rows.num_rows, seconds / 3600, len(labels), len(paths), reused, ordered)
    if progress:
        report.show()
    return report


def _held_out(rows: pa.Table, share: float) -> pa.Table:
    splits = np.array(rows["split"].to_pylist(), object)
    if share and "test" not in splits:
        splits[rows["id"].to_numpy() < share * 2.0**63] = "test"  # ids are hashes: uniform below 2^63
    place = table.SCHEMA.get_field_index("split")
    return rows.set_column(place, table.SCHEMA.field(place), pa.array(splits, pa.large_string()))


def _sources(
    roots: Sequence[scan.Root], label_format: str, segments: str | Path | None
) -> tuple[list[Source], list[Reject]]:
    """Every entry of every root with its file and key, and rejects for those whose file is not there."""
    label = labeller(label_format)
    found = [scan.files(root) for root in roots]
    if not any(found):
        names = ", ".join(str(root.path) for root in roots)
        raise CatalogError(f"no media files in {names}: looked for {' '.join(sorted(scan.EXTENSIONS))}")
    entries = [list(label(root.path, files)) for root, files in zip(roots, found, strict=True)]
    if segments is not None:
        entries, missing = _segments(Path(segments), roots, found, entries)
    else:
        missing = []
    owners: dict[str, set[int]] = defaultdict(set)
    for number, rows in enumerate(entries):
        for entry in rows:
            owners[entry.key or entry.file].add(number)
    sources = []
    for root, files, rows in zip(roots, found, entries, strict=True):
        present = set(files)
        for entry in rows:
            key = entry.key or entry.file
            key = f"{root.name}/{key}" if len(owners[key]) > 1 else key
            source = Source(str(root.path / entry.file), key, entry, root.weight)
            if entry.file in present:
                sources.append(source)
            else:
                missing.append(Reject(source.path, "listed but not there"))
    return sources, missing


def _segments(
    path: Path, roots: Sequence[scan.Root], found: Sequence[Sequence[str]], entries: Sequence[Sequence[Entry]]
) -> tuple[list[list[Entry]], list[Reject]]:
    """The entries of a segments file, with the label format's label and split where the file gives none."""
    lists = [(root, scan.by_name(files)) for root, files in zip(roots, found, strict=True)]
    known = [{entry.file: entry for entry in rows} for rows in entries]
    result: list[list[Entry]] = [[] for _ in roots]
    missing = []
    for segment in scan.segments(path):
        if (place := scan.match(segment, lists)) is None:
            missing.append(Reject(segment.file, "listed but not there", str(path)))
            continue
        number, file = place
        base = known[number].get(file, Entry(file))
        label, split = segment.label or base.label, segment.split or base.split
        result[number].append(Entry(file, label, split, segment.start, segment.end, segment.key))
    return result, missing


def _probe_all(
    paths: Sequence[str],
    journal: Journal,
    listings: ListingsFile,
    workers: int,
    progress: bool,
    deadline: float,
) -> int:
    """Fills the journal and the lists of packets; returns how many files the journal knew."""
    stamps = {path: scan.stamp(path) for path in paths}
    todo = [path for path, stamp in stamps.items() if not journal.knows(path, stamp)]
    allowed = {path: deadline + scan.size(stamps[path]) / 20e6 for path in todo}
    results = pool.run("coaug.pipelines.probe:probe_json", todo, workers, allowed.__getitem__)
    for path, result in bar(results, len(todo), progress):
        if isinstance(result, pool.Hung):
            result = asdict(Reject(path, "took too long", f"{allowed[path]:.0f} s", retry=True))
        elif isinstance(result, pool.Crashed):
            result = asdict(Reject(path, "crashed the decoder", retry=True))
        listings.add(path, scan.size(stamps[path]), result.pop("packets", None))
        journal.add(path, stamps[path], result)  # comes last: what it knows is not probed again
    return len(paths) - len(todo)


def _build(
    sources: Sequence[Source],
    labels: Sequence[str],
    policy: Policy,
    journal: Journal,
    rejects: dict[tuple[str, str], Reject],
) -> pa.Table:
    """The catalog's rows, sorted by key; what cannot be used is added to `rejects`."""
    numbers = {name: number for number, name in enumerate(labels)}
    weights: list[float] = []

    def rows() -> Iterator[Recording]:
        for source in sources:
            found = journal.result(source.path)
            for row in recordings(source, found, numbers, policy) if isinstance(found, Probe) else [found]:
                if isinstance(row, Reject):
                    rejects[row.path, row.reason] = row
                else:
                    weights.append(source.weight)
                    yield row

    return table_of(rows(), labels, weights).sort_by("key")


def _check_ids(rows: pa.Table) -> None:
    ids = rows["id"].to_numpy()
    order = np.argsort(ids, kind="stable")
    for place in np.flatnonzero(np.diff(ids[order]) == 0)[:1]:
        first, second = (rows.slice(int(order[place + step]), 1).to_pylist()[0] for step in (0, 1))
        names = f"{first['key']!r} ({first['path']}) and {second['key']!r} ({second['path']})"
        raise CatalogError(f"two recordings have the same id: {names}; rename one or give it another id")


def _nothing(roots: Sequence[str | Path], rejects: Sequence[Reject], target: Path) -> str:
    reasons = ", ".join(
        f"{reason} {count}" for reason, count in Counter(r.reason for r in rejects).most_common()
    )
    names = ", ".join(map(str, roots))
    where = target.with_suffix(".rejects.parquet")
    return f"no usable recording in {names}: {reasons}; every file and its reason: {where}"
