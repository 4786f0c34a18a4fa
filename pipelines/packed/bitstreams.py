"""A recording's own packets, one after the other as a member of a shard that FFmpeg plays as a file of its own."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from av.bitstream import BitStreamFilterContext

from ..bitstream import avc_sequences
from ..disposable import ANYTHING, Use, uses
from ..groups import invisible
from ..media import MediaError
from ..slices import IVF, ivf_header
from .index import KEY, SHOWN

ANNEX_B = {
    "h264": "h264_mp4toannexb",
    "hevc": "hevc_mp4toannexb",
}  # start codes, headers in the stream itself
KEYED, REFERRED, TOP = range(3)  # levels: key frames, what else is referred to, and the rest
FOURCC = {**IVF, "av1": b"AV01"}
PLAIN = {
    "h264": "h264",
    "hevc": "hevc",
    "mjpeg": "mjpeg",
    "mpeg4": "m4v",
    "mpeg1video": "m1v",
    "mpeg2video": "m2v",
}


def copied(packets: list[Any], stream: Any) -> tuple[str, bytes, dict[str, Any]]:
    """(suffix, content, columns of the index) of packets in decoding order, which all have a time.

    Raises:
        MediaError: a codec that needs its container.
    """
    context = stream.codec_context
    codec, extradata = str(context.codec.canonical_name), bytes(context.extradata or b"")
    used = uses(packets, context) or [ANYTHING] * len(packets)
    # what an edit list hides lies before the recording's start
    flags = [KEY * p.is_keyframe + SHOWN * (not invisible(p, codec)) for p in packets]
    pts = [p.pts for p in packets]
    contents = [bytes(p) for p in packets]
    if codec in ANNEX_B:
        contents, extradata = _annex_b(packets, stream, codec), b""
    suffix, data, at = _laid_out(contents, codec, context, extradata)
    columns = {
        "video_codec": codec,
        "pixel_format": str(context.pix_fmt or ""),
        "video_extradata": extradata,
        "video_at": at,
        "video_size": [len(content) for content in contents],
        "video_pts": pts,
        "video_flags": flags,
    }
    return suffix, data, columns | use_columns(used, [p.is_keyframe for p in packets])


def use_columns(used: Sequence[Use], keys: Sequence[bool]) -> dict[str, list[int]]:
    """The index's columns of what each packet is good for."""
    columns = {f"video_{name}": [getattr(use, name) for use in used] for name in Use._fields}
    levels = [KEYED if key else REFERRED if use.fills else TOP for use, key in zip(used, keys, strict=True)]
    return {**columns, "video_level": levels}


def _annex_b(packets: list[Any], stream: Any, codec: str) -> list[bytes]:
    """Key frames bring their headers: those of open groups often come without."""
    extradata, contents = bytes(stream.codec_context.extradata or b""), [bytes(p) for p in packets]
    keys = [i for i, packet in enumerate(packets) if packet.is_keyframe]
    if extradata[:1] == b"\1":  # takes what is in the packets
        change = BitStreamFilterContext(ANNEX_B[codec], stream)
        contents = [bytes(new) for packet in packets for new in change.filter(packet)]
    if len(contents) != len(packets):
        raise MediaError("packets cannot be copied one by one")
    if codec == "h264":
        head = _avc_headers(extradata)
        for i in keys:
            if not avc_sequences(contents[i]):
                contents[i] = head + contents[i]
    return contents


def _avc_headers(extradata: bytes) -> bytes:
    """Parameter sets with start codes, from either form of extradata (ISO/IEC 14496-15, 5.3.3.1.2)."""
    if extradata[:1] != b"\1":
        return extradata
    sets, at = list[bytes](), 5
    for mask in (31, 255):  # of sequences, of pictures
        count, at = extradata[at] & mask, at + 1
        for _ in range(count):
            size = int.from_bytes(extradata[at : at + 2], "big")
            sets.append(extradata[at + 2 : at + 2 + size])
            at += 2 + size
    return b"".join(b"\0\0\0\1" + each for each in sets)


def _laid_out(
    packets: list[bytes], codec: str, context: Any, extradata: bytes
) -> tuple[str, bytes, list[int]]:
    """(suffix, content, where each packet begins in it)."""
    if codec in FOURCC and codec != "mjpeg":
        head = ivf_header(FOURCC[codec], context.width, context.height, len(packets))
        sizes = [len(head), *(12 + len(packet) for packet in packets)]
        frames = (struct.pack("<IQ", len(packet), i) + packet for i, packet in enumerate(packets))
        at = np.cumsum(sizes)[:-1] + 12
        return "ivf", head + b"".join(frames), at.tolist()
    if codec not in PLAIN:
        raise MediaError(f"{codec} cannot be copied: pack it as h264 or mjpeg")
    # MPEG-4's header often stands outside of the stream
    head = extradata if codec == "mpeg4" and not packets[0].startswith(extradata) else b""
    at = np.cumsum([len(head), *map(len, packets)])[:-1]
    return PLAIN[codec], head + b"".join(packets), at.tolist()
