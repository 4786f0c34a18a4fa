"""Which of a file's streams its header describes in full, so that opening the file need not probe them.

FFmpeg decodes the beginning of every stream on opening, three quarters of the time that takes: headers may leave out a
picture's reordering or a sound's real rate, and some containers the order of decoding. Once, when a file is
catalogued, it is opened both ways; what says the same either way need never be probed again.
"""

from __future__ import annotations

from itertools import islice
from typing import Any

import av

from .demux import packets_of
from .media import Deadline, MediaError, open_media, stream_of

CONTAINERS = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")  # others' time stamps depend on probing throughout
PACKETS = 128  # of all streams, that must have the same times
SECONDS = 30.0


def declared(path: str) -> set[str]:
    """Those of "video" and "audio" that FFmpeg knows as well without probing."""
    try:
        probed, unprobed = (_told(path, probe) for probe in (True, False))
    except (MediaError, av.FFmpegError, OSError, ValueError):
        return set()
    return {kind for kind, told in probed.items() if unprobed.get(kind) == told}


def _told(path: str, probe: bool) -> dict[str, Any]:
    """For each stream what decoding depends on, and its first packets' times."""
    with open_media(path, Deadline(SECONDS), probe=probe) as container:
        if container.format.name not in CONTAINERS:
            return {}
        streams = {kind: s for kind in ("video", "audio") if (s := stream_of(container, kind)) is not None}
        told = {kind: _parameters(stream) for kind, stream in streams.items()}
        packets = list(islice(packets_of(container, *streams.values()), PACKETS))
        times = [(p.stream_index, p.pts, p.dts, p.size, p.is_keyframe) for p in packets]
        return {kind: (*told[kind], [t for t in times if t[0] == s.index]) for kind, s in streams.items()}


def _parameters(stream: Any) -> tuple[Any, ...]:
    codec = stream.codec_context
    codec.open(strict=False)  # decoders read the headers that came with the stream
    common = (
        stream.index,
        codec.name,
        stream.time_base,
        stream.start_time or 0,
        bytes(codec.extradata or b""),
    )
    if stream.type == "video":
        return (*common, codec.width, codec.height, codec.has_b_frames)
    return (*common, codec.sample_rate, codec.layout.name, getattr(codec.format, "name", None))
