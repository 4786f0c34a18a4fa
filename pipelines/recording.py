"""A recording: which part of a file it is, and what its streams are; and a catalog's rows made of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import pyarrow as pa

from . import table as files


@dataclass(frozen=True)
class VideoStream:
    """The picture track of a file. Times are seconds of the file's presentation time.

    Attributes:
        codec: FFmpeg's codec name, such as "h264".
        width, height: pixels as coded, before rotation.
        rotation: clockwise turn needed for display: 0, 90, 180 or 270.
        fps: average frames per second.
        vfr: whether frames stray from an even grid by more than 0.4 of its period.
        start, duration: presentation time of the first frame, and from there to the end of the last one.
        pixel_format: FFmpeg's name, such as "yuv420p".
        declared: whether the file's header says all that decoding needs, so that nobody has to probe (`declared.py`).
        display_width, display_height: pixels of the upright picture that crops are drawn for, where it was packed at
            another shape; 0: as coded.
    """

    codec: str
    width: int
    height: int
    rotation: int
    fps: float
    vfr: bool
    start: float
    duration: float
    pixel_format: str = "yuv420p"
    declared: bool = False
    display_width: int = 0
    display_height: int = 0

    @property
    def upright(self) -> tuple[int, int]:
        """(width, height) as displayed."""
        if self.display_width:
            return self.display_width, self.display_height
        return (self.height, self.width) if self.rotation in (90, 270) else (self.width, self.height)


@dataclass(frozen=True)
class AudioStream:
    """The sound track of a file: sample rate in Hz, times in seconds; `level_db` is the loudest 100 ms (RMS, dBFS),
    `declared` as of the picture."""

    codec: str
    rate: int
    channels: int
    start: float
    duration: float
    level_db: float
    declared: bool = False


@dataclass(frozen=True)
class Recording:
    """A row: the part [start, end) seconds of a file in which every stream that is present has data.

    `id` is stable across machines and runs (`sample_id(key)`), `label` is -1 where unknown. Where it was packed, `path`
    is the shard's, and `member` its number there.
    """

    id: int
    key: str
    path: str
    start: float
    end: float
    label: int
    split: str
    video: VideoStream | None
    audio: AudioStream | None
    member: int | None = None

    @property
    def duration(self) -> float:
        """Seconds from start to end."""
        return self.end - self.start

    @property
    def name(self) -> str:
        """What messages call it: its file, and in a shard, which holds many, also its key."""
        return self.path if self.member is None else f"{self.path}, {self.key}"


def sample_id(key: str) -> int:
    """A stable non-negative int64 for a dataset's own name of a recording: blake2b, 8 bytes, sign bit dropped."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little") & (2**63 - 1)


def table_of(
    recordings: Iterable[Recording], labels: Sequence[str], weights: Sequence[float] = ()
) -> pa.Table:
    """Rows of a catalog, in the order given, ready for `table.write`; `weights` default to 1."""
    iterator, chunks = iter(recordings), []
    while rows := [_row(recording) for recording in islice(iterator, 1 << 16)]:
        chunks.append(pa.RecordBatch.from_pylist(rows, files.SCHEMA))
    table = pa.Table.from_batches(chunks, files.SCHEMA)
    if len(weights):
        where = files.SCHEMA.get_field_index("weight")
        table = table.set_column(where, files.SCHEMA.field(where), pa.array(weights, pa.float64()))
    return files.with_labels(table, tuple(labels))


def _row(recording: Recording) -> dict[str, Any]:
    row = {**vars(recording), "weight": 1.0}
    for side in ("video", "audio"):
        stream = row.pop(side)
        row |= {f"{side}_{name}": value for name, value in (asdict(stream) if stream else {}).items()}
    return row
