"""What is known of a sample besides its pictures and sound: one record, which passes the graph as bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .config import DataConfig
from .deadline import STAGES

LONGEST = 1024  # bytes of an error


def facts(config: DataConfig) -> np.dtype[np.void]:
    """The record's fields, for V views of T frames.

    sample_id, label, valid, speed, direction, video_pts and audio_pts are those of `Batch`; `error` says why a sample
    is not valid, `timing` seconds by stage (`deadline.STAGES`), `cost` how many frames were decoded and shown.
    """
    views, t = len(config.views), config.video.frames
    return np.dtype(
        [
            ("sample_id", np.int64),
            ("label", np.int64),
            ("video_pts", np.float64, (views, t)),
            ("audio_pts", np.float64, (views, 2)),
            ("speed", np.float32, (views, 2)),
            ("direction", np.float32, (views, 2)),
            ("timing", np.float32, (len(STAGES),)),
            ("cost", np.int32, (2,)),
            ("valid", np.bool_),
            ("error", f"S{LONGEST}"),
        ]
    )


def packed(values: Mapping[str, Any], kind: np.dtype[np.void]) -> NDArray[np.uint8]:
    """One record's bytes, (n,) uint8."""
    record = np.zeros(1, kind)
    for name in kind.names or ():
        record[name] = values[name]
    return record.view(np.uint8)


def unpacked(rows: NDArray[np.uint8], kind: np.dtype[np.void]) -> dict[str, NDArray[Any]]:
    """The fields of many records' bytes (B, n), each (B, …)."""
    records = rows.view(kind)[:, 0]
    return {name: records[name].copy() for name in kind.names or ()}
