"""Where the packets of a file lie and what each is good for, noted while the file is read once from end to end.

With that list clips are read by their packets' places, and nobody opens the container again (see `listed`). It holds
for streams whose packets lie in the file as a demuxer hands them out: pictures of mp4, Matroska and AVI, and sound
whose time stamps count samples, such as AAC in mp4.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from .disposable import ANYTHING, RULES, Use, uses
from .groups import invisible
from .packed.bitstreams import use_columns
from .packed.index import KEY, SHOWN

PICTURES = {*RULES, "vp9", "vp8", "mjpeg"}
SOUNDS = {"aac", "flac", "alac"}  # one frame a packet
AHEAD = 64  # bytes from where a demuxer says that a packet lies to where it does: a container's own header
LIMIT = 2**31 - 1  # places are counted in 32 bits
GROUP = 1024  # packets that are looked at together at most
Row = dict[str, Any]


class Listing:
    """Collects the list of a file's tracks.

    Args:
        path: the file that `streams` are read from.
        streams: "video" or "audio" -> stream.
    """

    def __init__(self, path: str, streams: Mapping[str, Any]) -> None:
        kinds = {"video": _Pictures, "audio": _Sounds}
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115  # closed by `row`
        self._tracks = {s.index: kinds[side](s, self._file.fileno()) for side, s in streams.items()}

    def feed(self, packet: Any) -> None:
        """Notes the next packet."""
        self._tracks[packet.stream_index].feed(packet)

    def row(self, whole: bool) -> Row | None:
        """The list as columns of `packed.index`, JSON's types only; None where it would be of no use.

        Args:
            whole: every packet of the file was fed.
        """
        self._file.close()
        found: Row = {}
        for track in self._tracks.values() if whole else ():
            found |= track.columns()
        return found or None


class _Track:
    """Packets of one stream; given up at the first that a list cannot hold."""

    codecs: set[str]

    def __init__(self, stream: Any, file: int) -> None:
        self.stream, self.file, self.codec = stream, file, stream.codec_context
        self.at, self.size, self.pts = list[int](), list[int](), list[int]()
        self.fit = self.codec.codec.canonical_name in self.codecs

    def feed(self, packet: Any) -> None:
        self.fit = self.fit and packet.pts is not None and self._note(packet)
        if self.fit and (place := _found(self.file, packet)) is not None:
            self.at.append(place)
            self.size.append(packet.size)
            self.pts.append(packet.pts)
        else:
            self.fit = False

    def _note(self, packet: Any) -> bool:
        """Notes what else there is to know; whether the packet can be listed."""
        raise NotImplementedError

    def columns(self) -> Row:
        """The track's part of the list; empty where there is none."""
        return self._columns() if self.fit and self.at else {}

    def _columns(self) -> Row:
        raise NotImplementedError

    def _common(self, side: str) -> Row:
        name, extradata = self.codec.codec.canonical_name, bytes(self.codec.extradata or b"")
        return {
            f"{side}_codec": name,
            f"{side}_extradata": extradata.hex(),
            f"{side}_at": self.at,
            f"{side}_size": self.size,
        }


class _Pictures(_Track):
    codecs = PICTURES

    def __init__(self, stream: Any, file: int) -> None:
        super().__init__(stream, file)
        self.flags, self.uses = list[int](), list[Use]()
        self._group: list[Any] = []

    def _note(self, packet: Any) -> bool:
        if any(data.data_type == "new_extradata" for data in packet.iter_sidedata()):
            return False
        if packet.is_keyframe or len(self._group) == GROUP:
            self._end_group()
        self._group.append(packet)
        shown = not (packet.is_discard or invisible(packet, self.codec.codec.canonical_name))
        self.flags.append(KEY * packet.is_keyframe + SHOWN * shown)
        return True

    def _end_group(self) -> None:
        self.uses += uses(self._group, self.codec) or [ANYTHING] * len(self._group)
        self._group = []

    def _columns(self) -> Row:
        self._end_group()
        shown = [pts for pts, flags in zip(self.pts, self.flags, strict=True) if flags & SHOWN]
        if not self.flags[0] & KEY or len(set(shown)) < len(shown):  # frames are known by their times
            return {}
        return self._common("video") | {
            "pixel_format": str(self.codec.pix_fmt or ""),
            "video_width": self.codec.width,
            "video_height": self.codec.height,
            "video_num": self.stream.time_base.numerator,
            "video_den": self.stream.time_base.denominator,
            "video_pts": self.pts,
            "video_flags": self.flags,
            **use_columns(self.uses, [bool(flags & KEY) for flags in self.flags]),
        }


class _Sounds(_Track):
    codecs = SOUNDS

    def __init__(self, stream: Any, file: int) -> None:
        super().__init__(stream, file)
        self.lengths = list[int]()

    def _note(self, packet: Any) -> bool:
        """Stamps count samples, and leave none out; only at a track's beginning are some not meant to be heard."""
        cut = any(data.data_type == "skip_samples" for data in packet.iter_sidedata())
        due = self.pts[-1] + self.lengths[-1] if self.pts else packet.pts
        self.lengths.append(packet.duration or 0)
        return self.lengths[-1] > 0 and packet.pts == due and not (cut and self.pts)

    def _columns(self) -> Row:
        rate = int(self.codec.sample_rate)
        # lengths that differ are rounded ones of another time base
        if self.stream.time_base * rate != 1 or len(set(self.lengths[:-1])) > 1:
            return {}
        return self._common("audio") | {
            "audio_rate": rate,
            "audio_first": self.pts[0],
            "audio_origin": int(self.stream.start_time or 0),
            "audio_samples": self.lengths,
        }


def _found(file: int, packet: Any) -> int | None:
    """Where the packet's bytes lie in the file; None where they do not, or too far back."""
    if packet.pos is None or packet.pos < 0:
        return None
    near = os.pread(file, packet.size + AHEAD, packet.pos).find(bytes(packet))
    place = packet.pos + near
    return place if near >= 0 and place + packet.size <= LIMIT else None
