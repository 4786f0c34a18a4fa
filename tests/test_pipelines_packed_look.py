"""Packed pictures look like their sources: colours, upright, sizes. Colours go by the formulas of ITU-T H.273."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from catalogs import recording
from media import burn, read_number, write_clip
from packs import members, opened, told, write

from coaug.pipelines.packed.settings import Packing, size_of
from coaug.pipelines.packed.video import VIDEO, encoded
from coaug.pipelines.recording import VideoStream
from coaug.pipelines.table import CatalogError

PATCH = 16  # pixels of a side of one colour
COLOURS = np.array(
    [
        [(255, 255, 255), (0, 0, 0), (128, 128, 128), (200, 30, 40)],
        [(20, 180, 60), (40, 50, 210), (230, 220, 30), (20, 200, 220)],
        [(180, 60, 200), (240, 140, 60), (90, 60, 30), (60, 90, 120)],
    ],
    np.float64,
)
KR_KB = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}  # H.273, table 4
LIMITED, FULL = 1, 2  # of FFmpeg's AVColorRange


def to_yuv(rgb: np.ndarray, matrix: int, spread: int) -> np.ndarray:
    """(..., 3) R'G'B' in [0, 255] -> (..., 3) 8-bit Y'CbCr (H.273, 8.3)."""
    kr, kb = KR_KB[matrix]
    red, green, blue = np.moveaxis(rgb / 255, -1, 0)
    y = kr * red + (1 - kr - kb) * green + kb * blue
    cb, cr = (blue - y) / (2 - 2 * kb), (red - y) / (2 - 2 * kr)
    scale = (255, 255, 0) if spread == FULL else (219, 224, 16)
    return np.stack([scale[2] + scale[0] * y, 128 + scale[1] * cb, 128 + scale[1] * cr], -1)


def to_rgb(yuv: np.ndarray, matrix: int, spread: int) -> np.ndarray:
    """The inverse."""
    kr, kb = KR_KB[matrix]
    scale = (255, 255, 0) if spread == FULL else (219, 224, 16)
    y, cb, cr = (
        (yuv[..., 0] - scale[2]) / scale[0],
        (yuv[..., 1] - 128) / scale[1],
        (yuv[..., 2] - 128) / scale[1],
    )
    red, blue = y + (2 - 2 * kr) * cr, y + (2 - 2 * kb) * cb
    return np.asarray(255 * np.stack([red, (y - kr * red - kb * blue) / (1 - kr - kb), blue], -1))


def write_colours(path: Path, matrix: int, spread: int, pixels: str) -> None:
    """Five frames of flat patches, tagged by the encoder."""
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream("libx264", rate=25, options={"crf": "1"})
        stream.height, stream.width = np.array(COLOURS.shape[:2]) * PATCH
        stream.pix_fmt = pixels
        stream.codec_context.colorspace, stream.codec_context.color_range = matrix, spread
        deep = pixels.endswith("10le")
        planes = [
            np.kron(p, np.ones((PATCH, PATCH))) for p in np.moveaxis(to_yuv(COLOURS, matrix, spread), -1, 0)
        ]
        if "420" in pixels:
            planes[1:] = [plane[::2, ::2] for plane in planes[1:]]
        shape = (-1, stream.width) if "420" in pixels else (3, stream.height, stream.width)
        data = np.concatenate([p.ravel() for p in planes]).reshape(shape)
        data = np.round(data * 4).astype(np.uint16) if deep else np.round(data).astype(np.uint8)
        for number in range(5):
            frame = av.VideoFrame.from_ndarray(data, pixels)
            frame.pts, frame.colorspace, frame.color_range = number, matrix, spread
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


def seen(frame: Any) -> np.ndarray:
    """R'G'B' (rows, columns, 3) of the patches' middles, by the frame's own tags: 8 bits, halved chroma."""
    assert frame.format.name in ("yuv420p", "yuvj420p")
    spread = FULL if frame.format.name == "yuvj420p" else int(frame.color_range)
    planes = []
    for plane, step in zip(frame.planes, (PATCH, PATCH // 2, PATCH // 2), strict=True):
        rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]
        planes.append(rows[step // 2 :: step, step // 2 :: step].astype(np.float64))
    return to_rgb(np.stack(planes, -1), int(frame.colorspace), spread)


def frames_of(member: bytes) -> list[Any]:
    with av.open(io.BytesIO(member)) as container:
        return list(container.decode(video=0))


@pytest.mark.parametrize("how", ["h264", "layered", "mjpeg"])
@pytest.mark.parametrize(
    ("matrix", "spread", "pixels"),
    [
        (1, LIMITED, "yuv420p"),
        (1, FULL, "yuv420p"),
        (6, LIMITED, "yuv420p"),
        (5, FULL, "yuvj420p"),
        (9, LIMITED, "yuv420p"),
        (1, LIMITED, "yuv444p"),
        (1, LIMITED, "yuv420p10le"),
    ],
)
def test_colours_stay(tmp_path: Path, how: str, matrix: int, spread: int, pixels: str) -> None:
    write_colours(tmp_path / "x.mp4", matrix, spread, pixels)
    with av.open(str(tmp_path / "x.mp4")) as container:
        first = next(container.decode(video=0))
    assert (first.colorspace, first.format.name in (pixels, "yuvj420p")) == (matrix, True)
    shard = write(tmp_path / "00000.tar", [recording(tmp_path / "x.mp4")], Packing(how, 48, quality=1))
    (sample,) = members(shard).values()
    frames = frames_of(sample[told(sample)["video"]["member"]])
    as_read: list[np.ndarray] = []  # that decoder knows the tags as well
    opened(shard).frames(np.array([0.1]), lambda frame, room: (room((1,)), as_read.append(seen(frame))))
    for colours in (*map(seen, frames), *as_read):
        off = colours - COLOURS
        assert np.abs(off).max() <= (4 if how == "mjpeg" else 3)
        assert np.abs(off.mean((0, 1))).max() <= 1  # no tint
    assert as_read


@pytest.mark.parametrize("rotation", [90, 180, 270])
@pytest.mark.parametrize("how", ["h264", "mjpeg", "copy"])
def test_rotation_is_baked_in_or_kept(tmp_path: Path, how: str, rotation: int) -> None:
    source = recording(write_clip(tmp_path / "x.mp4", rotation=rotation, frames=12, audio_codec=None).path)
    assert source.video is not None and source.video.rotation == rotation
    shard = write(tmp_path / "00000.tar", [source], Packing(how, 48))
    (sample,) = members(shard).values()
    frames = frames_of(sample[told(sample)["video"]["member"]])
    left = opened(shard).sample.row["video_rotation"]
    assert left == (rotation if how == "copy" else 0)
    grey = [np.rot90(frame.to_ndarray(format="gray"), -left // 90) for frame in frames]
    assert [read_number(picture) for picture in grey] == list(range(12))
    width, height = {"copy": (96, 64)}.get(how, (80, 48) if rotation == 180 else (48, 80))
    assert (told(sample)["video"]["width"], told(sample)["video"]["height"]) == (width, height)
    assert {(frame.width, frame.height) for frame in frames} == {(width, height)}


@pytest.mark.parametrize("size", [(32, 48), (176, 128)])
@pytest.mark.parametrize("how", ["h264", "layered", "mjpeg"])
def test_equal_pictures_give_equal_bytes(how: str, size: tuple[int, int]) -> None:
    """Whatever was in the memory before: x264's macroblock tree reads what it has not written, with AVX-512."""
    codec, rng = VIDEO[how], np.random.default_rng(0)
    assert codec is not None
    frames = [
        av.VideoFrame.from_ndarray(burn(i, size), "rgb24").reformat(format=codec.pixels) for i in range(14)
    ]
    made = set()
    for _ in range(12):
        used = [rng.bytes(int(count)) for count in rng.integers(1000, 1000000, 12)]
        del used
        made.add(b"".join(packet.data for packet in encoded(frames, codec, size, 4, None)))
    assert len(made) == 1


@pytest.mark.parametrize(
    ("coded", "rotation", "size", "packed"),
    [
        ((1920, 1080), 0, 128, (224, 128)),  # 227.6
        ((1080, 1920), 0, 128, (128, 224)),
        ((1920, 1080), 90, 128, (128, 224)),
        ((640, 480), 0, 128, (176, 128)),  # 170.7
        ((300, 300), 270, 128, (128, 128)),
        ((104, 72), 0, 128, (96, 64)),  # never larger
        ((128, 128), 0, 128, (128, 128)),
        ((2000, 20), 0, 128, (2000, 16)),
        ((9, 7), 0, 128, (16, 16)),  # there is nothing smaller
        ((1920, 1080), 90, (176, 128), (176, 128)),
    ],
)
def test_sizes_are_multiples_of_16(
    coded: tuple[int, int], rotation: int, size: Any, packed: tuple[int, int]
) -> None:
    video = VideoStream("h264", *coded, rotation, 25.0, False, 0.0, 1.0)
    assert Packing(size=size).stored(video) == packed
    assert Packing("copy", size).stored(video) == coded


@pytest.mark.parametrize(("text", "size"), [("128", 128), ("176x128", (176, 128)), ("176X128", (176, 128))])
def test_sizes_are_typed(text: str, size: Any) -> None:
    assert size_of(text) == size
    assert Packing(size=size).text == text.lower()


@pytest.mark.parametrize("text", ["", "x", "128x", "1x2x3", "large", "12.8"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(CatalogError, match="--size"):
        size_of(text)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"size": 100}, "--size 100: .* multiples of 16"),
        ({"size": (128, 120)}, "--size 128x120"),
        ({"size": 0}, "--size 0"),
        ({"size": -16}, "--size -16"),
        ({"video": "vp9"}, "--video vp9: one of h264, layered, mjpeg, copy"),
        ({"audio": "mp3"}, "--audio mp3: one of flac, pcm"),
        ({"keyint": 0}, "--keyint"),
        ({"samples": 0}, "--samples"),
        ({"quality": 0, "video": "h264"}, "--quality 0: 1 to 51 for h264"),
        ({"quality": 52, "video": "layered"}, "--quality 52"),
        ({"quality": 32, "video": "mjpeg"}, "--quality 32: 1 to 31 for mjpeg"),
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(CatalogError, match=message):
        Packing(**wrong)
