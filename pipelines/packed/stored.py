"""Pictures out of the bytes that a list of packets names, and a decoder; no container is parsed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from itertools import islice
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from ..disposable import referred
from ..groups import Run
from ..media import Convert, Deadline, Frames, MediaError, Pictures, reason
from ..packets import Places
from .decoders import Decoders
from .index import Sample

DECODERS = {"av1": "libdav1d"}  # FFmpeg's own AV1 decoder needs a GPU
APART = 1 << 15  # bytes between two packets that are read rather than left out


class Stored:
    """A sample whose packets are known.

    Args:
        read: (first byte from the sample's beginning, count) -> bytes; raises MediaError.
    """

    def __init__(
        self,
        sample: Sample,
        read: Callable[[int, int], bytes],
        deadline: Deadline,
        decoders: Decoders | None = None,
    ) -> None:
        self.sample, self.read, self.deadline = sample, read, deadline
        self.decoders = decoders or Decoders()

    def frames(self, instants: NDArray[np.float64], convert: Convert) -> Frames:
        """As `read_frames`."""
        self.deadline.at("demux")
        table = self.sample.pictures
        seen = table.on_screen(instants)
        places, index = np.unique(seen, return_inverse=True)
        numbers = {pts: number for number, pts in enumerate(table.pts[places].tolist())}
        runs, pictures, found = list(self.runs(np.unique(instants))), Pictures(len(places)), set[int]()
        for frame in self._pictures(runs):
            if (number := numbers.get(frame.pts)) is not None:
                self.deadline.at("convert")
                pictures.place = number
                convert(frame, pictures.room)
                found.add(number)
        if pictures.pixels is None or len(found) < len(places):
            missing = min(set(range(len(places))) - found)
            raise MediaError(
                f"no picture could be decoded at {table.pts[places[missing]] * table.tick:.3f} s"
            )
        decoded = sum(len(run.packets) for run in runs)
        return Frames(
            pictures.pixels, index.astype(np.int32), np.asarray(table.pts[seen] * table.tick), decoded
        )

    @property
    def rate(self) -> int:
        """Samples of sound a second."""
        if not self.sample.row["audio_codec"]:
            raise MediaError("the sound that was catalogued is gone: pack again")
        return int(self.sample.row["audio_rate"])

    def decoding(self, side: str) -> AbstractContextManager[Any]:
        """A codec context for the "video" or the "audio" that knows of nothing it decoded before."""
        row = self.sample.row
        key = (row[f"{side}_codec"], row[f"{side}_extradata"], row["video_width"], row["video_height"])
        return self.decoders.borrow(key, lambda: self.decoder(side))

    def decoder(self, side: str) -> Any:
        """A new codec context for the "video" or the "audio"."""
        row = self.sample.row
        if not row[f"{side}_codec"]:
            raise MediaError("the picture that was catalogued is gone: pack again")
        codec: Any = av.CodecContext.create(DECODERS.get(row[f"{side}_codec"], row[f"{side}_codec"]), "r")
        codec.thread_count = 1
        if row[f"{side}_extradata"]:
            codec.extradata = row[f"{side}_extradata"]
        if side == "video":
            codec.width, codec.height = row["video_width"], row["video_height"]
        return codec

    def runs(self, wanted: NDArray[np.float64], *, whole: bool = False) -> Iterator[Run]:
        """Those that show `wanted`, ascending; `whole`: one run, from the key frame of the first one on."""
        table = self.sample.pictures
        seen = table.on_screen(wanted)
        if table.key.all():  # each picture stands alone: nothing to leave out, nothing to flush
            yield Run(self.packets(np.unique(seen)), float(wanted[0]), True)
            return
        spans = table.spans(seen, wanted, opening=True)
        if whole:
            spans = table.spans(seen, wanted, opening=True, since=int(spans[0].places[0]))
        shows = np.zeros(len(table), bool)
        shows[seen] = True
        left = [self._left(span.places, shows) for span in spans]
        packets = iter(self.packets(np.concatenate(left)))
        for span, places in zip(spans, left, strict=True):
            yield Run(list(islice(packets, len(places))), span.first, span.opening)

    def packets(self, places: Places) -> list[Any]:
        """The packets of the pictures at `places`, ascending."""
        lists = self.sample.lists
        packets = list(map(packet_of, self.parts(lists["video_at"][places], lists["video_size"][places])))
        times, keys = lists["video_pts"][places].tolist(), self.sample.pictures.key[places].tolist()
        for packet, time, key in zip(packets, times, keys, strict=True):
            packet.pts, packet.is_keyframe = time, key
        return packets

    def parts(self, at: NDArray[np.int32], size: NDArray[np.int32]) -> Iterator[memoryview]:
        """The parts of the sample that begin `at` (n,), ascending; neighbours are read together."""
        begins, ends = at.tolist(), (at + size).tolist()
        apart = (np.flatnonzero(at[1:] - (at + size)[:-1] > APART) + 1).tolist()
        for first, last in zip([0, *apart], [*apart, len(begins)], strict=True):
            begin = begins[first]
            data = memoryview(self.read(begin, ends[last - 1] - begin))
            for low, high in zip(begins[first:last], ends[first:last], strict=True):
                yield data[low - begin : high - begin]

    def _pictures(self, runs: Iterable[Run]) -> Iterator[Any]:
        """The frames of all packets, run after run."""
        try:
            with self.decoding("video") as codec:
                for run in runs:
                    for packet in run.packets:
                        self.deadline.at("video")
                        yield from codec.decode(packet)
                    self.deadline.at("video")
                    yield from codec.decode(None)
                    codec.flush_buffers()  # nothing of this run may be referred to
        except (av.FFmpegError, OSError, ValueError) as error:
            raise MediaError(f"video does not decode: {reason(error)}") from None

    def _left(self, places: Places, shows: NDArray[np.bool_]) -> Places:
        """Those of `places` that a decoder needs, see `referred`."""
        needed = shows[places] | (self.sample.lists["video_fills"][places] & 1 > 0)
        if not self.sample.simple:
            keys = self.sample.pictures.key[places].tolist()
            needed = np.array(referred(self.sample.uses(places), shows[places].tolist(), keys))
        return np.asarray(places[needed])


def packet_of(data: memoryview) -> Any:
    """In memory of its own: decoders read on beyond a packet's end, where FFmpeg wants zeros."""
    packet: Any = av.Packet(len(data))
    packet.update(data)
    return packet
