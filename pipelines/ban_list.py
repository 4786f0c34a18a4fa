"""What could not be read in earlier runs, kept beside the catalog, so that the next run need not find out again."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .scan import stamp

PASSING = tuple(  # what the machine or the network is to blame for
    os.strerror(number)
    for number in (
        *(errno.EACCES, errno.EAGAIN, errno.EHOSTDOWN, errno.EINTR, errno.EIO, errno.EMFILE, errno.ENFILE),
        *(errno.ENOMEM, errno.ENOTCONN, errno.ESTALE, errno.ETIMEDOUT),
    )
)
LATE = "took longer than the deadline"


class BanList:
    """`x.bans.jsonl` beside `x.parquet`: a line a recording with its file, its reason and the file's state.

    A file that has changed since, or has come back, is tried again; what may have been a passing failure is never
    written. To try everything again, delete the list.
    """

    def __init__(self, catalog: Path) -> None:
        self.path = catalog.with_suffix(".bans.jsonl")
        self._noted: set[int] = set()

    def read(self, ids: NDArray[np.int64]) -> dict[int, str]:
        """Sample id -> path and reason, of those among `ids` whose files are as they were."""
        unchanged = [row for row in self._rows() if stamp(row["path"]) == row["stamp"]]
        among = np.isin([row["id"] for row in unchanged], ids)
        return {
            r["id"]: f"{r['path']}: {r['reason']}" for r, one in zip(unchanged, among, strict=True) if one
        }

    def add(self, sample_id: int, path: str, reason: str) -> None:
        """Note a failure, once, unless it may be a passing one. Where nobody may write, nothing is noted."""
        passing = reason.startswith(LATE) or reason.endswith(PASSING) or "://" in path  # networks fail
        if sample_id in self._noted or passing:
            return
        self._noted.add(sample_id)
        row = {"id": sample_id, "path": path, "stamp": stamp(path), "reason": reason}
        with suppress(OSError), self.path.open("a") as stream:
            stream.write(
                "\n" + json.dumps(row)
            )  # in one piece, and after what a kill cut off: others write, too

    def _rows(self) -> Iterator[dict[str, Any]]:
        with suppress(OSError), self.path.open() as stream:
            for line in stream:
                with suppress(ValueError):  # cut off by a kill
                    yield json.loads(line)
