"""Packs that the tests make in their own process, and the members of shards as Python's tarfile finds them."""

from __future__ import annotations

import json
import tarfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from catalogs import recording
from media import write_clip

from coaug.pipelines import pool, table
from coaug.pipelines.media import Deadline
from coaug.pipelines.packed import pack, sample, shards
from coaug.pipelines.packed.clip import PackedMedia
from coaug.pipelines.packed.settings import Packing
from coaug.pipelines.packed.shards import Shards
from coaug.pipelines.recording import Recording, sample_id, table_of

Members = dict[str, bytes]  # suffix -> content
TINY = Packing("h264", 32, keyint=4, samples=2)
LABELS = ["cat", "dog"]
SHAPES = [(64, 48), (48, 64), (64, 48), (64, 48), (48, 64)]  # of films, in turn


def members(shard: Path) -> dict[str, Members]:
    """key -> members, in the archive's order."""
    found: dict[str, Members] = defaultdict(dict)
    with tarfile.open(shard) as archive:
        for entry in archive:
            key, _, suffix = entry.name.partition(".")
            content = archive.extractfile(entry)
            assert content is not None
            found[key][suffix] = content.read()
    return dict(found)


def told(sample: Members) -> dict[str, Any]:
    """What a sample's JSON says."""
    return dict(json.loads(sample["json"]))


def write(shard: Path, recordings: Iterable[Recording], packing: Packing) -> Path:
    """A shard of `recordings`."""

    def parts() -> Iterator[tuple[Path, dict[str, Any]]]:
        part = shard.with_suffix(".part")
        for each in recordings:
            entries, row = sample.packed(each, "one", packing, Deadline(60.0))
            part.write_bytes(entries)
            yield part, row

    shards.write(shard, parts())
    return shard


def opened(shard: Path, member: int = 0) -> PackedMedia:
    """A sample of a shard, as the loader reads it."""
    return Shards().media(str(shard), member, Deadline(60.0))


@contextmanager
def in_this_process() -> Iterator[None]:
    """`pack` without worker processes, which take a second to start."""

    def run(
        _: str, arguments: Iterable[str], workers: int, deadline: Callable[[str], float]
    ) -> Iterator[tuple[str, Any]]:
        return ((argument, pack.pack_row(argument)) for argument in arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool, "run", run)
        for cached in (pack._opened, pack._packing):
            cached.cache_clear()
        yield


def various(folder: Path) -> list[Recording]:
    """Five films of two shapes, a sound, a silent film and a part of a film, 0.4 s each."""
    clips = [
        write_clip(folder / f"{number}.mp4", size=size, frames=12, channels=1 + number % 2)
        for number, size in enumerate(SHAPES)
    ]
    clips.append(write_clip(folder / "sound.wav", frames=12))
    clips.append(write_clip(folder / "silent.mkv", size=(64, 48), frames=12, audio_codec=None))
    rows = [recording(clip.path) for clip in clips]
    rows.append(replace(rows[0], start=0.1, end=0.3))
    return [
        replace(row, id=sample_id(f"r{n}"), key=f"r{n}", label=n % 3 - 1, split=("train", "test")[n % 2])
        for n, row in enumerate(rows)
    ]


def catalogued(path: Path, rows: list[Recording]) -> Path:
    """A catalog of `rows`, each with a weight of its own."""
    table.write(table_of(rows, LABELS, [1.0 + n for n in range(len(rows))]), path)
    return path


def contents(folder: Path) -> dict[str, bytes]:
    """All files of a pack but the catalog's twin, which bears a time stamp."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "catalog.arrow"}


def quick(source: Path, out: Path, packing: Packing = TINY) -> pack.PackReport:
    """`pack` by one worker, in silence."""
    return pack.pack(source, out, packing, workers=1, progress=False)
