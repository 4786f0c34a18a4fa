"""Pictures as a stream of packets: one encoder a name, each on one thread, so that equal input gives equal bytes.

h264      a key frame every `keyint` frames, no B-frames, made to be decoded fast (no arithmetic coding, no
          deblocking): a picture costs half of what JPEG costs
layered   seven B-frames in a row that nothing refers to, in open groups: of every eight frames seven can be left
          out one by one, so that clips decode little besides what they show
mjpeg     every frame by itself, with tables that are the same for all, so that the graph decodes a clip's frames as
          one image, on a GPU by nvJPEG (`jpegs.py`); tables made for each frame would save a sixth of the bytes
copy      the recording's own packets
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import av
from av.video.frame import PictureType
from av.video.reformatter import ColorRange, Colorspace

RATE = 25  # of encoders' own clocks: presentation times stand in the index


@dataclass(frozen=True)
class VideoCodec:
    """An FFmpeg encoder and what it is told; `suffix` names the member of a shard, `scale` the option for quality."""

    encoder: str
    name: str
    suffix: str
    pixels: str
    quality: int
    scale: tuple[str, ...]
    options: dict[str, str] = field(default_factory=dict)

    @property
    def range(self) -> Any:
        """FFmpeg's name for what 8 bits mean."""
        return ColorRange.JPEG if self.pixels.startswith("yuvj") else ColorRange.MPEG

    @property
    def worst(self) -> int:
        """The end of the scale of quality; it begins at 1 (0 is lossless H.264, which hardware does not decode)."""
        return 31 if self.name == "mjpeg" else 51


FAST = {"preset": "veryfast", "tune": "fastdecode"}
EQUAL = "mbtree=0"  # x264's is not the same twice: with AVX-512 it reads what it has not written
H264 = VideoCodec(
    "libx264", "h264", "h264", "yuv420p", 21, ("crf",), {**FAST, "bf": "0", "x264-params": EQUAL}
)
# B-frames at fixed places, open groups: every eighth frame by display order is a P- or an I-frame
FIXED = f"{EQUAL}:b-adapt=0:b-pyramid=none:open-gop=1:weightp=0"
LAYERED = VideoCodec(
    "libx264", "h264", "h264", "yuv420p", 21, ("crf",), {**FAST, "bf": "7", "x264-params": FIXED}
)
MJPEG = VideoCodec("mjpeg", "mjpeg", "mjpeg", "yuvj420p", 4, ("qmin", "qmax"), {"huffman": "default"})
VIDEO: dict[str, VideoCodec | None] = {"h264": H264, "layered": LAYERED, "mjpeg": MJPEG, "copy": None}


@dataclass(frozen=True)
class Coded:
    """A packet in decoding order: its bytes, the number of its frame in display order, whether it is a key frame."""

    data: bytes
    number: int
    key: bool


def encoded(
    frames: Iterable[Any], codec: VideoCodec, size: tuple[int, int], keyint: int, quality: int | None
) -> Iterator[Coded]:
    """The packets of `frames`, which are of `size` (width, height) and `codec.pixels` already."""
    context = _encoder(codec, size, keyint, quality)
    for number, frame in enumerate(frames):
        frame.pts, frame.time_base, frame.pict_type = number, Fraction(1, RATE), PictureType.NONE
        yield from map(_coded, context.encode(frame))
    yield from map(_coded, context.encode(None))


def _encoder(codec: VideoCodec, size: tuple[int, int], keyint: int, quality: int | None) -> Any:
    context: Any = av.CodecContext.create(codec.encoder, "w")
    context.width, context.height = size
    context.pix_fmt, context.time_base, context.framerate = codec.pixels, Fraction(1, RATE), Fraction(RATE)
    context.thread_count, context.gop_size = 1, keyint
    context.color_range, context.colorspace = codec.range, Colorspace.ITU601
    value = str(codec.quality if quality is None else quality)
    # key frames at fixed places only, so that whoever reads knows what a clip costs
    fixed = {"sc_threshold": "0", "keyint_min": str(keyint)} if codec.name != "mjpeg" else {}
    context.options = {**codec.options, **fixed, **dict.fromkeys(codec.scale, value)}
    return context


def _coded(packet: Any) -> Coded:
    return Coded(bytes(packet), int(packet.pts), bool(packet.is_keyframe))
