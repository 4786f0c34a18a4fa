"""Any folder of files: the parent folder is the class, the folder above it the split if it is called like one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from . import Entry

SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


def entries(root: Path, files: Sequence[str]) -> Iterable[Entry]:
    """`root/dog/x.mp4` -> label "dog", split "train"; `root/Valid/dog/x.mp4` and `valid/dog/x.mp4` -> split "val".

    Files right below the root, or right below a split's folder, have no label.
    """
    for file in files:
        above = PurePosixPath(file).parts[:-1]
        if above and len(above) == 1 and above[0].lower() in SPLITS:  # root/train/x.mp4
            yield Entry(file, None, SPLITS[above[0].lower()])
        else:
            grandparent = (root.name, *above)[-2] if above else root.name
            yield Entry(file, above[-1] if above else None, SPLITS.get(grandparent.lower(), "train"))
