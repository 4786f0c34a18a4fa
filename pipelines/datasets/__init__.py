"""How published datasets name and split their files: one small module each, one line in `LABELLERS`.

A labeller is a function

    def entries(root: Path, files: Sequence[str]) -> Iterable[Entry]

that is given a root folder and the media files found below it (POSIX paths relative to the root, sorted) and says
which recordings they are. It may read the dataset's own lists from `root`, leave files out, name files that are not
there (they end up among the rejects) and cut a file into several entries. It must not depend on where `root` lies.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..table import CatalogError


@dataclass(frozen=True, slots=True)
class Entry:
    """One recording of a dataset.

    Attributes:
        file: path relative to the root, POSIX.
        label: class name; None where unknown.
        split: "train", "val", "test" or the dataset's own word.
        start, end: the part of the file, in seconds of its presentation time; None: from its start, to its end.
        key: the dataset's own id; None: the file's path (and window). Sample ids are derived from it.
    """

    file: str
    label: str | None = None
    split: str = "train"
    start: float | None = None
    end: float | None = None
    key: str | None = None


Labeller = Callable[[Path, Sequence[str]], Iterable[Entry]]

LABELLERS: dict[str, str] = {
    "folder": "folder:entries",
}


def labeller(name: str) -> Labeller:
    """The labeller registered as `name`. Raises CatalogError naming those that exist."""
    if name not in LABELLERS:
        raise CatalogError(f"unknown label format {name!r}; there are: {', '.join(sorted(LABELLERS))}")
    module, function = LABELLERS[name].split(":")
    found: Labeller = getattr(importlib.import_module(f".{module}", __name__), function)
    return found
