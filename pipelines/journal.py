"""What has been probed, one JSON line a file: a killed run goes on, a later one probes only what is new."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from .probe import Probe, Reject, from_json
from .table import replace

VERSION = 3  # of the probe's findings: lines of another version are probed again


class Journal:
    """Results by path, valid while the file's `stamp` (size and time of change) is the same."""

    def __init__(self, path: Path, resume: bool = True) -> None:
        self._path = path
        self._lines: dict[str, tuple[str, str]] = dict(_read(path)) if resume else {}
        self._file: TextIO | None = None
        self._resume = resume

    def __enter__(self) -> Journal:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._path.open("a" if self._resume else "w")
        self._file.write(
            "\n" if self._resume and self._path.stat().st_size else ""
        )  # ends a line cut off by a kill
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._file is not None
        self._file.close()

    def knows(self, path: str, stamp: str) -> bool:
        """Whether this state of the file was probed."""
        return path in self._lines and self._lines[path][0] == stamp

    def result(self, path: str) -> Probe | Reject:
        """The finding for `path`."""
        return from_json(json.loads(self._lines[path][1])[3])

    def add(self, path: str, stamp: str, result: dict[str, Any]) -> None:
        """Remembers a `probe_json` result; those that may differ next time are not written."""
        line = json.dumps([VERSION, path, stamp, result])
        self._lines[path] = (stamp, line)
        if self._file is not None and not result.get("retry"):
            self._file.write(line + "\n")
            self._file.flush()  # survives a kill of this process

    def compact(self, paths: Iterable[str]) -> None:
        """Rewrites the file with the lines of `paths` only."""

        def fill(name: str) -> None:
            with open(name, "w") as stream:
                for path in paths:
                    if path in self._lines and not json.loads(self._lines[path][1])[3].get("retry"):
                        stream.write(self._lines[path][1] + "\n")

        replace(self._path, fill)


def _read(path: Path) -> Iterable[tuple[str, tuple[str, str]]]:
    if not path.exists():
        return
    with path.open() as stream:
        for line in stream:
            try:
                version, name, stamp, _ = json.loads(line)
            except ValueError:  # cut off by a kill
                continue
            if version == VERSION:
                yield name, (stamp, line.rstrip("\n"))
