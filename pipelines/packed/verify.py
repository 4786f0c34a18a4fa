"""Whether a packed sample decodes to what went in."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

from ..decode import Decoder, Late
from ..groups import Run
from ..media import Deadline, MediaError
from .audio import pcm16
from .clip import PackedMedia
from .index import LISTS, Sample


def verify(data: bytes, row: dict[str, Any], sound: int, deadline: Deadline) -> None:
    """Decodes all of a sample: every picture comes out, at its time, and the sound is the one that was stored.

    Args:
        data: its entries of the archive.  row: of the index.
        sound: CRC-32 of the 16-bit samples that were stored.

    Raises:
        MediaError: it does not.
    """
    lists = {name: np.array(row[name], kind) for name, kind in LISTS.items()}
    media = PackedMedia(Sample(row, lists), lambda at, size: data[at : at + size], deadline)
    if row["video_codec"]:
        _pictures(media)
    if row["audio_codec"]:
        first, count = row["audio_first"], int(lists["audio_samples"].sum())
        if zlib.crc32(pcm16(media.sound(first, first + count)).tobytes()) != sound:
            raise MediaError("the packed sound is not what was stored")


def _pictures(media: PackedMedia) -> None:
    table, codec = media.sample.pictures, media.decoder("video")
    decoder = Decoder(codec, table.tick, media.deadline)
    run = Run(media.packets(np.arange(len(table))), -np.inf, True)
    try:
        times = [frame.pts for frame in decoder.frames([run])]
    except (Late, OSError, ValueError) as error:
        raise MediaError(f"the packed pictures do not decode: {error}") from None
    if times != np.sort(table.pts[table.shown]).tolist():
        raise MediaError("the packed pictures are not those of the file")
    size = (media.sample.row["video_width"], media.sample.row["video_height"])
    if (codec.width, codec.height) != size:
        raise MediaError(f"the packed pictures have {codec.width}x{codec.height} pixels instead of {size}")
