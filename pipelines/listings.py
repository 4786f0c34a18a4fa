"""The lists of packets of a catalog's files (`listing`), in an SQLite database beside it: `<catalog>.packets`.

It only saves time. Where it lacks a file, is damaged or gone, or the file has changed, clips are read through the
file's container and come out the same.
"""

from __future__ import annotations

import sqlite3
import sys
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from .listing import Row
from .packed.index import BYTES, LISTS, NUMBERS, TEXTS, Sample
from .recording import sample_id

SUFFIX = ".packets"
CACHE = 64  # pages that a reader keeps: who comes at random finds only the tree's upper ones again
NUMBERED = (*NUMBERS, "audio_origin")  # the first sample that is meant to be heard
COLUMNS = {
    **dict.fromkeys(NUMBERED, "INTEGER"),
    **dict.fromkeys(TEXTS, "TEXT"),
    **dict.fromkeys((*BYTES, *LISTS), "BLOB"),
}
NAMES = ", ".join(f'"{name}"' for name in COLUMNS)
TYPED = ", ".join(f'"{name}" {kind}' for name, kind in COLUMNS.items())
CREATE = f"CREATE TABLE IF NOT EXISTS packets ({TYPED}, PRIMARY KEY (id))"
INSERT = f"INSERT OR REPLACE INTO packets ({NAMES}) VALUES ({', '.join('?' * len(COLUMNS))})"
# zlib's check sum finds what SQLite does not
DAMAGE = (sqlite3.Error, zlib.error, KeyError, TypeError, ValueError)
SELECT = f"SELECT {NAMES} FROM packets WHERE id = ? AND size = ?"


class Listings:
    """Lists to read, from any process; each opens the database for itself."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._database: sqlite3.Connection | None = None

    def sample(self, path: str, size: int) -> Sample | None:
        """The list of the file at `path`, which has `size` bytes; None where it is not known."""
        try:
            database = self._database = self._database or _readable(self.path)
            found = database.execute(SELECT, (_number(path), size)).fetchone()
            values = dict(zip(COLUMNS, found or (), strict=False))
            lists = {
                name: np.frombuffer(zlib.decompress(values.pop(name)), kind) for name, kind in LISTS.items()
            }
        except DAMAGE:
            return None
        return Sample(values, lists)

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_database": None}


class ListingsFile:
    """The database, to write to while files are probed. Killed at any moment, it holds what was added before.

    Where it cannot be written, that is said once, and nothing else fails.

    Args:
        resume: keep what is there.
    """

    def __init__(self, path: Path, resume: bool = True) -> None:
        self.path, self.resume = path, resume
        self._database: sqlite3.Connection | None = None

    def __enter__(self) -> ListingsFile:
        with self._excused():
            if not self.resume:
                self.path.unlink(missing_ok=True)  # readers of the old one keep it
            try:
                self._database = _created(self.path)
            except sqlite3.OperationalError:  # locked by another run, or no room
                raise
            except sqlite3.DatabaseError:  # it is none
                self.path.unlink(missing_ok=True)
                self._database = _created(self.path)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._database is not None:
            self._database.close()

    def add(self, path: str, size: int, row: Row | None) -> None:
        """Remembers the list of a file of `size` bytes, or that it has none."""
        with self._excused():
            if self._database is not None and row is not None:
                self._database.execute(INSERT, _values(path, size, row))
            elif self._database is not None:
                self._database.execute("DELETE FROM packets WHERE id = ?", (_number(path),))

    def keep(self, paths: Iterable[str]) -> None:
        """Forgets all files but those at `paths`."""
        with self._excused():
            if self._database is not None:
                there = {number for (number,) in self._database.execute("SELECT id FROM packets")}
                gone = there - set(map(_number, paths))
                self._database.executemany("DELETE FROM packets WHERE id = ?", [(number,) for number in gone])

    @contextmanager
    def _excused(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            self._database = None
            print(
                f"coaug index: {self.path}: lists of packets are not kept ({error}); clips will be read through their "
                "containers, which takes a little longer",
                file=sys.stderr,
            )


def _readable(path: Path) -> sqlite3.Connection:
    database = _connect(path, "ro&immutable=1")
    database.execute(f"PRAGMA cache_size = {CACHE}")
    return database


def _created(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    database = _connect(path, "rwc")
    database.execute("PRAGMA synchronous = OFF")  # after a power failure, lists may be missing
    database.execute(CREATE)
    return database


def _values(path: str, size: int, row: Row) -> list[int | str | bytes]:
    values: Row = {name: row.get(name, 0) for name in NUMBERED} | {"id": _number(path), "size": size}
    values |= {name: row.get(name, "") for name in TEXTS}
    values |= {name: bytes.fromhex(row.get(name, "")) for name in BYTES}
    for name, kind in LISTS.items():
        values[name] = zlib.compress(np.array(row.get(name, []), kind).tobytes(), 1)
    return [values[name] for name in COLUMNS]


def _number(path: str) -> int:
    return sample_id(path.encode(errors="backslashreplace").decode())  # names may be no UTF-8


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    # each sample is read by one thread, not always the same
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
