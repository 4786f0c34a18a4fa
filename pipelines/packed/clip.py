"""Pictures and sound out of a shard."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from ..media import MediaError, reason
from ..slices import Slice, ivf_header, resets, sliced
from .audio import FULL_SCALE
from .bitstreams import FOURCC, PLAIN
from .jpegs import Images, joined
from .near import cheapest
from .stored import Stored, packet_of

DEMUXERS = {"mpeg1video": "mpegvideo", "mpeg2video": "mpegvideo"}  # others' names are their suffixes
SCALE = np.float32(1 / FULL_SCALE)


class PackedMedia(Stored):
    """A sample of a shard, read like a file (`Media`)."""

    def near(self, instants: NDArray[np.float64], slack: NDArray[np.float64]) -> NDArray[np.float64]:
        """See `Media`."""
        return cheapest(self.sample.pictures, self.sample.lists["video_level"], instants, slack)

    def cut(self, instants: NDArray[np.float64]) -> Slice:
        """As `slices.cut`."""
        codec, wanted = self.decoder("video"), np.unique(instants)
        runs = list(self.runs(wanted))
        if not all(resets(run, codec) for run in runs[1:]):  # nobody flushes the decoder between runs
            runs = list(self.runs(wanted, whole=True))
        packets = [packet for run in runs for packet in run.packets]
        return sliced(
            packets, codec, self.sample.pictures.tick, instants, lambda: _template(codec, packets[0])
        )

    def images(self, instants: NDArray[np.float64]) -> Images | None:
        """See `Media`."""
        lists, table = self.sample.lists, self.sample.pictures
        seen = table.on_screen(instants)
        places, index = np.unique(seen, return_inverse=True)
        data = self.parts(lists["video_at"][places], lists["video_size"][places])
        if (found := joined([bytes(part) for part in data])) is None:
            return None
        jpeg, size = found
        pts = np.asarray(table.pts[seen] * table.tick, np.float64)
        shape = np.array([*size, 3], np.int32)
        return Images(np.frombuffer(jpeg, np.uint8), shape, index.astype(np.int32), pts)

    def sound(self, first: int, last: int) -> NDArray[np.float32]:
        """As `read_audio`."""
        self.deadline.at("audio")
        out = np.zeros(last - first, np.float32)
        position, data = self._heard(first, last)
        low, high = max(position, first), min(position + len(data), last)
        if high > low:
            np.multiply(data[low - position : high - position], SCALE, out=out[low - first : high - first])
        return out

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
            with self.decoding("audio") as codec:
                for data in self.parts(lists["audio_at"][low:high], lists["audio_size"][low:high]):
                    self.deadline.check()
                    for frame in codec.decode(packet_of(data)):
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
