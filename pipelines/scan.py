"""Which files there are: root folders with weights, the media files below them, and lists of segments."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from .datasets import Entry
from .table import CatalogError

VIDEO = [
    "mp4",
    "m4v",
    "mov",
    "webm",
    "mkv",
    "avi",
    "mpg",
    "mpeg",
    "ogv",
    "flv",
    "wmv",
    "3gp",
    "ts",
    "m2ts",
    "mts",
    "mxf",
]
AUDIO = ["wav", "flac", "mp3", "m4a", "aac", "ogg", "oga", "opus", "wma", "aif", "aiff"]
EXTENSIONS = frozenset(f".{name}" for name in VIDEO + AUDIO)


@dataclass(frozen=True)
class Root:
    """A folder, how much its recordings weigh, and a name that no other root of this run has."""

    path: Path
    weight: float = 1.0
    name: str = ""
    only: str | None = None
    """The one file of interest, if a file was given instead of a folder."""


def roots(names: Sequence[str | Path]) -> list[Root]:
    """Folders (or files) as typed, "FOLDER" or "FOLDER=WEIGHT". Raises CatalogError for missing or nested ones."""
    found = [_root(str(name)) for name in names]
    if not found:
        raise CatalogError("no folder given: `coaug index FOLDER...`")
    folders = [root for root in found if root.only is None]
    for first in folders:
        for second in folders:
            if first is not second and second.path.is_relative_to(first.path):
                raise CatalogError(f"{second.path} lies in {first.path}: give one of them")
    return [replace(root, name=_name(root, found)) for root in found]


def files(root: Root) -> list[str]:
    """Media files below a root, by extension: POSIX paths relative to it, sorted; hidden ones are left out."""
    return [root.only] if root.only else sorted(_walk(root.path))


def stamp(path: str) -> str:
    """Size and time of change, by which a changed file is known; empty for one that is not there."""
    try:
        status = os.stat(path)
    except OSError:
        return ""
    return f"{status.st_size}:{status.st_mtime_ns}"


def size(stamp: str) -> int:
    """Bytes of the file with this stamp."""
    return int(stamp.partition(":")[0] or 0)


def segments(path: Path) -> list[Entry]:
    """A CSV file with columns path, start, end and, if wanted, label, split, id. Raises CatalogError with the line.

    Times are seconds of the file's presentation time; an empty `end` means its end. Paths are relative to a root (or
    absolute), with or without their extension.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, skipinitialspace=True)
            missing = {"path", "start", "end"} - set(reader.fieldnames or ())
            if missing:
                raise CatalogError(
                    f"{path}: needs a first line with columns path,start,end; lacks {min(missing)}"
                )
            return [_segment(row, f"{path}, line {reader.line_num}") for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CatalogError(f"{path}: not a CSV file of segments ({error})") from None


def match(entry: Entry, lists: Sequence[tuple[Root, Mapping[str, str]]]) -> tuple[int, str] | None:
    """(number of the root, file) that a segment's path means; `lists` maps paths, also without extension, to files."""
    for number, (root, names) in enumerate(lists):
        name = PurePosixPath(entry.file)
        if name.is_absolute():
            if not name.is_relative_to(root.path.as_posix()):
                continue
            name = name.relative_to(root.path.as_posix())
        if (file := names.get(str(name))) is not None:
            return number, file
    return None


def by_name(found: Sequence[str]) -> dict[str, str]:
    """Files by path and by path without extension; of two that differ only there, the short form means the first."""
    short = {str(PurePosixPath(file).with_suffix("")): file for file in reversed(found)}
    return short | {file: file for file in found}


def _root(text: str) -> Root:
    folder, equals, weight = text.rpartition("=")
    path, factor = Path(text), 1.0
    if equals and not path.exists():
        try:
            path, factor = Path(folder), float(weight)
        except ValueError:
            raise CatalogError(f"{text!r}: no such folder, and {weight!r} is not a weight") from None
        if not 0 < factor < float("inf"):
            raise CatalogError(f"{text!r}: a weight must be above 0")
    if not path.exists():
        raise CatalogError(f"no such folder: {path}")
    path = path.resolve()
    return Root(path, factor) if path.is_dir() else Root(path.parent, factor, only=path.name)


def _name(root: Root, others: Sequence[Root]) -> str:
    """The shortest end of the root's path that tells it from the others'."""
    paths = {other.path for other in others} - {root.path}
    for count in range(1, len(root.path.parts) + 1):
        end = root.path.parts[-count:]
        if all(path.parts[-count:] != end for path in paths):
            return "/".join(end)
    return root.path.as_posix()


def _walk(top: Path) -> Iterator[str]:
    seen: set[str] = set()
    for folder, below, names in os.walk(top, followlinks=True):
        real = os.path.realpath(folder)
        below[:] = [] if real in seen else sorted(name for name in below if not name.startswith("."))
        if real in seen:  # a link back up
            continue
        seen.add(real)
        for name in names:
            if os.path.splitext(name)[1].lower() in EXTENSIONS and not name.startswith("."):
                yield Path(folder, name).relative_to(top).as_posix()


def _segment(row: Mapping[str, str | None], where: str) -> Entry:
    values = {name: (value or "").strip() for name, value in row.items() if isinstance(value, str | None)}
    try:
        start, end = (float(values[name]) if values[name] else None for name in ("start", "end"))
    except ValueError:
        raise CatalogError(f"{where}: start and end must be seconds") from None
    if not values["path"]:
        raise CatalogError(f"{where}: no path")
    if end is not None and end <= (start or 0.0):
        raise CatalogError(f"{where}: end {end:g} is not after start {start or 0.0:g}")
    return Entry(
        values["path"],
        values.get("label") or None,
        values.get("split") or "",
        start,
        end,
        values.get("id") or None,
    )
