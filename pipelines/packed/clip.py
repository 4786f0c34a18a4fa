"""Pictures and sound out of a shard: the bytes that the index names, and a decoder; no container is parsed."""

from __future__ import annotations

import io
import struct
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
from ..slices import Slice, ivf_header, resets, sliced
from .audio import FULL_SCALE
from .bitstreams import FOURCC, PLAIN
from .decoders import Decoders
from .index import Sample
from .jpegs import Images, joined
from .near import cheapest

DECODERS = {"av1": "libdav1d"}  # FFmpeg's own AV1 decoder needs a GPU
DEMUXERS = {"mpeg1video": "mpegvideo", "mpeg2video": "mpegvideo"}  # others' names are their suffixes
SCALE = np.float32(1 / FULL_SCALE)
APART = 1 << 15  # bytes between two packets that are read rather than left out


class PackedMedia:
    """A sample of a shard, read like a file (`Media`).

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
        runs, pictures, found = list(self._runs(np.unique(instants))), Pictures(len(places)), set[int]()
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

    def near(self, instants: NDArray[np.float64], slack: NDArray[np.float64]) -> NDArray[np.float64]:
        """See `Media`."""
        return cheapest(self.sample.pictures, self.sample.lists["video_level"], instants, slack)

    def cut(self, instants: NDArray[np.float64]) -> Slice:
        """As `slices.cut`."""
        codec, wanted = self.decoder("video"), np.unique(instants)
        runs = list(self._runs(wanted))
        if not all(resets(run, codec) for run in runs[1:]):  # nobody flushes the decoder between runs
            runs = list(self._runs(wanted, whole=True))
        packets = [packet for run in runs for packet in run.packets]
        return sliced(
            packets, codec, self.sample.pictures.tick, instants, lambda: _template(codec, packets[0])
        )

    def images(self, instants: NDArray[np.float64]) -> Images | None:
        """See `Media`."""
        lists, table = self.sample.lists, self.sample.pictures
        seen = table.on_screen(instants)
        places, index = np.unique(seen, return_inverse=True)
        data = self._bytes(lists["video_at"][places], lists["video_size"][places])
        if (found := joined([bytes(part) for part in data])) is None:
            return None
        jpeg, size = found
        pts = np.asarray(table.pts[seen] * table.tick, np.float64)
        shape = np.array([*size, 3], np.int32)
        return Images(np.frombuffer(jpeg, np.uint8), shape, index.astype(np.int32), pts)

    @property
    def rate(self) -> int:
        """Samples of sound a second."""
        if not self.sample.row["audio_codec"]:
            raise MediaError("the sound that was catalogued is gone: pack again")
        return int(self.sample.row["audio_rate"])

    def sound(self, first: int, last: int) -> NDArray[np.float32]:
        """As `read_audio`."""
        self.deadline.at("audio")
        out = np.zeros(last - first, np.float32)
        position, data = self._heard(first, last)
        low, high = max(position, first), min(position + len(data), last)
        if high > low:
            np.multiply(data[low - position : high - position], SCALE, out=out[low - first : high - first])
        return out

    def _pictures(self, runs: Iterable[Run]) -> Iterator[Any]:
        """The frames of all packets, run after run."""
        try:
            with self._decoding("video") as codec:
                for run in runs:
                    for packet in run.packets:
                        self.deadline.at("video")
                        yield from codec.decode(packet)
                    self.deadline.at("video")
                    yield from codec.decode(None)
                    codec.flush_buffers()  # nothing of this run may be referred to
        except (av.FFmpegError, OSError, ValueError) as error:
            raise MediaError(f"video does not decode: {reason(error)}") from None

    def _decoding(self, side: str) -> AbstractContextManager[Any]:
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

    def _runs(self, wanted: NDArray[np.float64], *, whole: bool = False) -> Iterator[Run]:
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

    def _left(self, places: Places, shows: NDArray[np.bool_]) -> Places:
        """Those of `places` that a decoder needs, see `referred`."""
        needed = shows[places] | (self.sample.lists["video_fills"][places] > 0)
        if not self.sample.simple:
            keys = self.sample.pictures.key[places].tolist()
            needed = np.array(referred(self.sample.uses(places), shows[places].tolist(), keys))
        return np.asarray(places[needed])

    def packets(self, places: Places) -> list[Any]:
        """The packets of the pictures at `places`, ascending."""
        lists = self.sample.lists
        packets = list(map(_packet, self._bytes(lists["video_at"][places], lists["video_size"][places])))
        times, keys = lists["video_pts"][places].tolist(), self.sample.pictures.key[places].tolist()
        for packet, time, key in zip(packets, times, keys, strict=True):
            packet.pts, packet.is_keyframe = time, key
        return packets

    def _bytes(self, at: NDArray[np.int32], size: NDArray[np.int32]) -> Iterator[memoryview]:
        """The parts of the sample that begin `at` (n,), ascending; neighbours are read together."""
        begins, ends = at.tolist(), (at + size).tolist()
        apart = (np.flatnonzero(at[1:] - (at + size)[:-1] > APART) + 1).tolist()
        for first, last in zip([0, *apart], [*apart, len(begins)], strict=True):
            begin = begins[first]
            data = memoryview(self.read(begin, ends[last - 1] - begin))
            for low, high in zip(begins[first:last], ends[first:last], strict=True):
                yield data[low - begin : high - begin]

    def _heard(self, first: int, last: int) -> tuple[int, NDArray[np.int16]]:
        """Number of the first one, and (n,) samples that hold those of [first, last) that are stored."""
        row, lists = self.sample.row, self.sample.lists
        if row["audio_codec"] == "pcm_s16le":
            return self._pcm(first, last)
        ends = row["audio_first"] + np.cumsum(lists["audio_samples"])
        low = min(int(np.searchsorted(ends, first, "right")), len(ends) - 1)
        begins = ends - lists["audio_samples"]
        high = max(int(np.searchsorted(begins, last, "left")), low + 1)
        sound = np.concatenate(list(self._sounds(low, high)))
        if len(sound) != ends[high - 1] - begins[low]:
            raise MediaError("audio does not decode: samples are missing")
        return int(begins[low]), sound

    def _sounds(self, low: int, high: int) -> Iterator[NDArray[np.int16]]:
        """The samples of packets [low, high), mono."""
        lists = self.sample.lists
        try:
            with self._decoding("audio") as codec:
                for data in self._bytes(lists["audio_at"][low:high], lists["audio_size"][low:high]):
                    self.deadline.check()
                    for frame in codec.decode(_packet(data)):
                        yield np.frombuffer(frame.planes[0], np.int16, frame.samples)
        except (av.FFmpegError, ValueError) as error:
            raise MediaError(f"audio does not decode: {reason(error)}") from None

    def _pcm(self, first: int, last: int) -> tuple[int, NDArray[np.int16]]:
        start, lists = self.sample.row["audio_first"], self.sample.lists
        low, high = max(first, start), min(last, start + int(lists["audio_samples"][0]))
        if high <= low:
            return first, np.zeros(0, np.int16)
        data = self.read(int(lists["audio_at"][0]) + 2 * (low - start), 2 * (high - low))
        return low, np.frombuffer(data, "<i2")


def _packet(data: memoryview) -> Any:
    """In memory of its own: decoders read on beyond a packet's end, where FFmpeg wants zeros."""
    packet: Any = av.Packet(len(data))
    packet.update(data)
    return packet


def _template(codec: Any, packet: Any) -> Any:
    """A stream with the headers that its first key frame carries."""
    name, head = codec.codec.canonical_name, b""
    if name == "mpeg4":
        head = bytes(codec.extradata or b"")
    if name in FOURCC:
        head = ivf_header(FOURCC[name], codec.width, codec.height, 1) + struct.pack("<IQ", packet.size, 0)
    demuxer = "ivf" if name in FOURCC else DEMUXERS.get(name, PLAIN[name])
    container = av.open(io.BytesIO(head + bytes(packet)), format=demuxer)
    return container.streams.video[0]
