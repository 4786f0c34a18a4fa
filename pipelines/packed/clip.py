"""Pictures and sound out of a shard: the bytes that the index names, and a decoder; no container is parsed."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from ..decode import Decoder
from ..disposable import referred
from ..groups import Run
from ..media import Convert, Deadline, Frames, MediaError, decode_frames, reason
from ..packets import Places
from ..pcm import mono
from ..slices import Slice, ivf_header, resets, sliced
from .audio import FULL_SCALE
from .bitstreams import FOURCC, PLAIN
from .index import Sample
from .jpegs import Images, joined
from .near import cheapest

DECODERS = {"av1": "libdav1d"}  # FFmpeg's own AV1 decoder needs a GPU
DEMUXERS = {"mpeg1video": "mpegvideo", "mpeg2video": "mpegvideo"}  # others' names are their suffixes
APART = 1 << 15  # bytes between two packets that are read rather than left out


class PackedMedia:
    """A sample of a shard, read like a file (`Media`).

    Args:
        read: (first byte from the sample's beginning, count) -> bytes; raises MediaError.
    """

    def __init__(self, sample: Sample, read: Callable[[int, int], bytes], deadline: Deadline) -> None:
        self.sample, self.read, self.deadline = sample, read, deadline

    def frames(self, instants: NDArray[np.float64], convert: Convert) -> Frames:
        """As `read_frames`."""
        decoder = Decoder(self.decoder("video"), self.sample.pictures.tick, self.deadline)
        return decode_frames(decoder, lambda wanted, _: self._runs(wanted), (None,), instants, convert)

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
        out = np.zeros(last - first, np.float32)
        for position, data in self._heard(first, last):
            low, high = max(position, first), min(position + len(data), last)
            if high > low:
                out[low - first : high - first] = data[low - position : high - position]
        return out

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
        data = self._bytes(lists["video_at"][places], lists["video_size"][places])
        times, keys = lists["video_pts"][places].tolist(), self.sample.pictures.key[places].tolist()
        packets = []
        for each, time, key in zip(data, times, keys, strict=True):
            packet = _packet(each)
            packet.pts, packet.is_keyframe = time, key
            packets.append(packet)
        return packets

    def _bytes(self, at: NDArray[np.int32], size: NDArray[np.int32]) -> Iterator[memoryview]:
        """The parts of the sample that begin `at` (n,), ascending; neighbours are read together."""
        ends = at + size
        apart = np.flatnonzero(at[1:] - ends[:-1] > APART) + 1
        for first, last in zip([0, *apart], [*apart, len(at)], strict=True):
            begin = int(at[first])
            data = memoryview(self.read(begin, int(ends[last - 1]) - begin))
            for low, high in zip(
                (at[first:last] - begin).tolist(), (ends[first:last] - begin).tolist(), strict=True
            ):
                yield data[low:high]

    def _heard(self, first: int, last: int) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """(number of its first sample, (n,) mono) of every packet that samples [first, last) need."""
        row, lists = self.sample.row, self.sample.lists
        if row["audio_codec"] == "pcm_s16le":
            yield self._pcm(first, last)
            return
        begins = row["audio_first"] + np.cumsum(lists["audio_samples"]) - lists["audio_samples"]
        low = max(int(np.searchsorted(begins, first, "right")) - 1, 0)
        high = max(int(np.searchsorted(begins, last, "left")), low)
        codec, at = self.decoder("audio"), begins[low:high].tolist()
        parts = self._bytes(lists["audio_at"][low:high], lists["audio_size"][low:high]) if high > low else ()
        try:
            for position, data in zip(at, parts, strict=True):
                self.deadline.check()
                for frame in codec.decode(_packet(data)):
                    yield position, mono(frame)
        except (av.FFmpegError, ValueError) as error:
            raise MediaError(f"audio does not decode: {reason(error)}") from None

    def _pcm(self, first: int, last: int) -> tuple[int, NDArray[np.float32]]:
        start, lists = self.sample.row["audio_first"], self.sample.lists
        low, high = max(first, start), min(last, start + int(lists["audio_samples"][0]))
        if high <= low:
            return first, np.zeros(0, np.float32)
        data = self.read(int(lists["audio_at"][0]) + 2 * (low - start), 2 * (high - low))
        return low, np.frombuffer(data, "<i2") * np.float32(1 / FULL_SCALE)


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
