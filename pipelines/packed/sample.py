"""One recording -> its entries of a shard and its row of the index."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..disposable import REFERENCE, RULES
from ..media import Deadline, MediaError, audio_rate, open_media, stream_of
from ..recording import Recording
from . import bitstreams, extract
from .audio import AUDIO, SUFFIX, pcm16
from .index import KEY, SCHEMA, SHOWN
from .members import archived
from .settings import Packing
from .verify import verify
from .video import VIDEO, Coded, VideoCodec, encoded

MISSING = 1.0  # seconds without pictures at the end of a recording: its file was cut off since it was indexed
LIMIT = 2**31 - 1  # bytes of a sample: the index counts in 32 bits


@dataclass
class Parts:
    """What a sample is put together of: `members` (suffix -> content), columns of the index, what its JSON tells, and
    the CRC-32 of its samples of sound."""

    members: dict[str, bytes] = field(default_factory=dict)
    row: dict[str, Any] = field(default_factory=dict)
    told: dict[str, Any] = field(default_factory=dict)
    sound: int = 0


def packed(
    recording: Recording, label: str, packing: Packing, deadline: Deadline
) -> tuple[bytes, dict[str, Any]]:
    """(entries of a tar archive, row of the index), which decode to what went in.

    Args:
        label: the name of the recording's label, "" if it has none.

    Raises:
        MediaError: the recording cannot be read.
    """
    parts = Parts(row=_blank() | {"id": recording.id})
    with open_media(recording.path, deadline) as container:
        if recording.video is not None:
            _picture(container, recording, packing, deadline, parts)
        if recording.audio is not None:
            _sound(container, recording, packing, deadline, parts)
    told = {name: getattr(recording, name) for name in ("id", "key", "label", "split", "start", "end")}
    parts.members = {"json": _json(told | {"label_name": label} | parts.told), **parts.members}
    if sum(map(len, parts.members.values())) > LIMIT:
        raise MediaError("too long for one sample of a shard: index with --segment-seconds")
    data, places = archived(f"{recording.id:019d}", parts.members)
    for side in ("video", "audio"):
        if (member := parts.told.get(side, {}).get("member")) is not None:
            parts.row[f"{side}_at"] = [places[member] + at for at in parts.row[f"{side}_at"]]
    row = parts.row | {"size": len(data), "check": zlib.crc32(data)}
    verify(data, row, parts.sound, deadline)
    return data, row


def _blank() -> dict[str, Any]:
    kinds = {"list": list, "string": str, "binary": bytes, "int": int}
    return {f.name: next(make() for kind, make in kinds.items() if kind in str(f.type)) for f in SCHEMA}


def _json(told: dict[str, Any]) -> bytes:
    return json.dumps(told, indent=1).encode() + b"\n"


def _picture(
    container: Any, recording: Recording, packing: Packing, deadline: Deadline, parts: Parts
) -> None:
    assert recording.video is not None
    stream, size = stream_of(container, "video"), packing.stored(recording.video)
    if (codec := VIDEO[packing.video]) is None:
        copy = bitstreams.copied(extract.packets(container, recording, deadline), stream)
    else:
        copy = _encoded(container, recording, packing, codec, deadline)
    suffix, parts.members[copy[0]], columns = copy
    base = Fraction(stream.time_base)
    turned = recording.video.rotation if codec is None else 0
    parts.row |= columns | {"video_width": size[0], "video_height": size[1], "video_rotation": turned}
    parts.row |= {"video_num": base.numerator, "video_den": base.denominator}
    shown = np.array(columns["video_flags"]) & SHOWN > 0
    pts = np.sort(np.array(columns["video_pts"])[shown]) * float(base)
    if not recording.video.vfr and pts[-1] < recording.end - MISSING:
        raise MediaError(
            f"pictures end at {pts[-1]:.1f} s, the recording at {recording.end:.1f} s: index again"
        )
    named = {"codec": columns["video_codec"], "width": size[0], "height": size[1]}
    parts.told["video"] = {"member": suffix, **named, "pts": pts.tolist()}


def _encoded(
    container: Any, recording: Recording, packing: Packing, codec: VideoCodec, deadline: Deadline
) -> tuple[str, bytes, dict[str, Any]]:
    """As `bitstreams.copied`, of pictures encoded anew."""
    assert recording.video is not None
    size, times = packing.stored(recording.video), list[int]()
    shape = extract.Shaper(recording.video.rotation // 90, size, codec)

    def shaped() -> Iterator[Any]:
        for frame in extract.frames(container, recording, deadline):
            times.append(int(frame.pts))
            yield shape(frame)

    coded = list(encoded(shaped(), codec, size, packing.keyint, packing.quality))
    if not coded:
        raise MediaError(f"no picture could be decoded at {recording.start:.3f} s")
    sizes = [len(packet.data) for packet in coded]
    columns = {
        "video_codec": codec.name,
        "pixel_format": codec.pixels,
        "video_at": np.cumsum([0, *sizes])[:-1].tolist(),
        "video_size": sizes,
        "video_pts": [times[packet.number] for packet in coded],
        "video_flags": [SHOWN + KEY * packet.key for packet in coded],
        **_use_columns(coded, codec),
    }
    return codec.suffix, b"".join(packet.data for packet in coded), columns


def _use_columns(coded: list[Coded], codec: VideoCodec) -> dict[str, list[int]]:
    rule, used = RULES.get(codec.name), [REFERENCE] * len(coded)
    if rule is not None:
        used = rule([memoryview(packet.data) for packet in coded], b"")
    return bitstreams.use_columns(used, [packet.key for packet in coded])


def _sound(container: Any, recording: Recording, packing: Packing, deadline: Deadline, parts: Parts) -> None:
    if stream_of(container, "audio") is None:
        raise MediaError("the sound that was catalogued is gone")
    rate = audio_rate(container)
    first, pieces = extract.sound(container, recording, deadline)

    def pieces16() -> Iterator[NDArray[np.int16]]:
        for piece in map(pcm16, pieces):
            parts.sound = zlib.crc32(piece.tobytes(), parts.sound)
            yield piece

    stored = AUDIO[packing.audio](pieces16(), rate)
    suffix = SUFFIX[stored.codec]
    parts.members[suffix] = stored.data
    parts.row |= {"audio_codec": stored.codec, "audio_rate": rate, "audio_first": first}
    parts.row |= {"audio_extradata": stored.extradata, "audio_at": stored.at}
    parts.row |= {"audio_size": stored.size, "audio_samples": stored.samples}
    parts.told["audio"] = {"member": suffix, "rate": rate, "start": first / rate}
