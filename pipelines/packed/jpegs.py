"""JPEGs of one size and with the same tables, joined to one: the frames of a clip, one below the other.

DALI's image decoder takes one image a sample; an input for each frame would be a decoder for each. A restart marker
ends what a JPEG's entropy decoder remembers (ITU-T T.81, F.1.1.5 and B.2.1), so the frames' own bits become the
restart intervals of a tall picture: nothing is decoded or encoded for it, and what comes out is frame after frame.

    SOI tables SOF(U·h, w) DRI(blocks of a frame) SOS | frame 0 | RST0 | frame 1 | RST1 | … | frame U-1 | EOI

Luma is that of the frames, bit for bit; so is chroma, but where a decoder interpolates it (libjpeg does, nvJPEG does
not as we use it) the first and the last row of a frame take a quarter of theirs from the neighbouring frame.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

IMAGES = "mjpeg images"  # among the codecs of a graph: packed MJPEG goes to it as images
MJPEG = "mjpeg"
TALLEST = 65500  # rows that libjpeg takes
BLOCK = 16  # pixels of a side of what is coded together, with halved chroma
SOF0, SOS, DRI, RST0 = 0xC0, 0xDA, 0xDD, 0xD0
EOI = b"\xff\xd9"
MARKER = re.compile(rb"\xff[^\0]")  # among the bits, 0xFF is followed by 0
HALVED = (0x22, 0x11, 0x11)  # sampling factors of 4:2:0


@dataclass(frozen=True)
class Images:
    """`data` (bytes,) uint8, a JPEG of U frames one below the other; `shape` (4,) int32 is (U, h, w, 3); `index` (n,)
    int32 says which of them is on screen at each instant asked for, `pts` (n,) float64 since when, in seconds."""

    data: NDArray[np.uint8]
    shape: NDArray[np.int32]
    index: NDArray[np.int32]
    pts: NDArray[np.float64]

    @property
    def decoded(self) -> int:
        """How many frames are in it."""
        return int(self.shape[0])


@dataclass(frozen=True)
class _Head:
    """What comes before a frame's bits; `sof` and `sos` are where these segments begin in it."""

    data: bytes
    sof: int
    sos: int


def joined(jpegs: Sequence[bytes]) -> tuple[bytes, tuple[int, int, int]] | None:
    """(the JPEG of all `jpegs`, (how many, height, width)), or None where they are not alike enough for that.

    Alike: baseline, 4:2:0, of equal tables and size, in whole blocks, without restart markers of their own.
    """
    head, count = _head(jpegs[0]), len(jpegs)
    if head is None or not all(_alike(jpeg, head.data) for jpeg in jpegs):
        return None
    height, width = (int.from_bytes(head.data[head.sof + n :][:2], "big") for n in (5, 7))
    blocks = height // BLOCK * -(-width // BLOCK)
    if height % BLOCK or not 0 < blocks < 1 << 16 or count * height > TALLEST:
        return None
    parts = [_tall(head, count * height, blocks)]
    for number, jpeg in enumerate(jpegs):
        parts += [jpeg[len(head.data) : -len(EOI)], bytes([0xFF, RST0 + number % 8])]
    parts[-1] = EOI
    return b"".join(parts), (count, height, width)


def _head(jpeg: bytes) -> _Head | None:
    at, sof = 2, 0
    while len(jpeg) > at + 9 and jpeg[at] == 0xFF:
        marker, size = jpeg[at + 1], int.from_bytes(jpeg[at + 2 : at + 4], "big")
        if marker == SOF0 and jpeg[at + 4] == 8 and _sampling(jpeg[at:]) == HALVED:
            sof = at
        if marker == SOS:
            whole = sof and jpeg[at + 4] == len(HALVED)  # all of it in one scan
            return _Head(jpeg[: at + 2 + size], sof, at) if whole else None
        if marker == DRI:
            return None
        at += 2 + size
    return None


def _sampling(sof: bytes) -> tuple[int, ...]:
    """Of each component: its factors across and down, four bits each."""
    return tuple(sof[11 : 10 + 3 * sof[9] : 3])


def _alike(jpeg: bytes, head: bytes) -> bool:
    """Whether nothing but bits comes between `head` and the end."""
    whole = jpeg.startswith(head) and jpeg.endswith(EOI)
    return whole and not MARKER.search(jpeg, len(head), len(jpeg) - len(EOI))


def _tall(head: _Head, height: int, blocks: int) -> bytes:
    """`head` with another height and, before the scan, the interval between restart markers."""
    data, sof, sos = head.data, head.sof, head.sos
    interval = bytes([0xFF, DRI, 0, 4]) + blocks.to_bytes(2, "big")
    return data[: sof + 5] + height.to_bytes(2, "big") + data[sof + 7 : sos] + interval + data[sos:]
