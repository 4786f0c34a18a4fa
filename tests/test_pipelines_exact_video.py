"""Pictures of random windows are a full decode's, bit for bit: every codec and container, whatever their order.

The reference decodes the whole file once with PyAV and picks by presentation time. The windows are read in four ways:
decoded here, through the container or by the list of packets, cut out as slices and decoded by PyAV, and cut out as
slices and decoded by DALI on the CPU.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from lists import listed, reading
from media import burn, copy_packets, write_clip
from nvidia.dali import fn, pipeline_def, types

from coaug.pipelines.media import Deadline, converting, open_media, read_frames
from coaug.pipelines.slices import Slice, cut

WINDOWS, FRAMES = 200, 8  # windows of every kind of stream, at least; pictures a window
OPEN = {"x264-params": "open-gop=1:scenecut=0"}
HEVC: dict[str, Any] = {"codec": "libx265", "options": {"x265-params": "log-level=none:open-gop=0"}}
AV1: dict[str, Any] = {"codec": "libsvtav1", "options": {"preset": "12", "svtav1-params": "lookahead=16"}}
MADE: dict[str, dict[str, Any]] = {
    "h264.mp4": {"gop": 24},
    "h264-late.mp4": {"gop": 17, "start": 1.4},
    "h264-vfr.mkv": {"gop": 20, "vfr": True, "start": 0.5},
    "h264b.mp4": {"b_frames": 3, "gop": 30},
    "h264b.mkv": {"b_frames": 3, "gop": 250},
    "h264b-vfr.mp4": {"b_frames": 2, "gop": 25, "vfr": True, "start": 2.2},
    "h264open.mp4": {"b_frames": 3, "gop": 20, "options": OPEN},
    "h264open.mkv": {"b_frames": 3, "gop": 20, "options": OPEN, "start": 0.7},
    "hevc.mp4": HEVC | {"b_frames": 3, "gop": 20},
    "hevc-open.mkv": HEVC | {"b_frames": 3, "gop": 25, "options": {"x265-params": "log-level=none"}},
    "vp8.webm": {"codec": "libvpx", "gop": 23},
    "vp8-vfr.mkv": {"codec": "libvpx", "vfr": True, "start": 0.8},
    "vp8-hidden.webm": {"codec": "libvpx", "gop": 40},  # made so by `hide`
    "vp9.webm": {},
    "vp9-long.webm": {"gop": 250, "options": {"deadline": "good", "cpu-used": "4", "lag-in-frames": "16"}},
    "vp9-odd.webm": {"size": (101, 67), "gop": 20},
    "vp9-late.mkv": {"codec": "libvpx-vp9", "start": 1.5, "gop": 20},
    "av1.mp4": AV1 | {"gop": 24},
    "av1.webm": AV1 | {"gop": 70, "start": 0.9},
    "mpeg4.avi": {"fps": 25, "gop": 24},
    "mpeg4-b.mp4": {"codec": "mpeg4", "b_frames": 2, "gop": 24},
    "mpeg4-b.avi": {"fps": 25, "b_frames": 2, "gop": 24},
    "mjpeg.mkv": {"codec": "mjpeg", "vfr": True},
    "mjpeg.avi": {"codec": "mjpeg", "fps": 25},
    "mjpeg.mov": {"codec": "mjpeg", "start": 1.1},
}
COPIED: dict[str, tuple[str, dict[str, Any]]] = {  # the same packets elsewhere
    "h264-edit.mp4": ("h264.mp4", {"later": -0.91}),  # hidden by an edit list up to the middle of a group
    "h264b-edit.mp4": ("h264b.mp4", {"later": -0.91}),
    "h264b.ts": ("h264b.mp4", {"later": 1.4}),
    "h264b-pieces.mp4": ("h264b.mp4", {"options": {"movflags": "frag_keyframe+empty_moov"}}),
    "h264open-edit.mp4": ("h264open.mp4", {"later": -0.91}),
    "h264open.ts": ("h264open.mp4", {}),
    "hevc.ts": ("hevc.mp4", {}),
    "hevc-edit.mp4": ("hevc.mp4", {"later": -0.91}),
    "vp9-live.webm": ("vp9.webm", {"options": {"live": "1"}}),  # no index
    "vp9.mp4": ("vp9-long.webm", {}),
    "av1-edit.mp4": ("av1.mp4", {"later": -0.91}),
}
FILES = [*MADE, *COPIED]
LISTED = {  # the others' packets do not lie in the file as they are decoded, or their decoder keeps more than a group
    name for name in FILES if name.partition(".")[0].partition("-")[0] != "mpeg4" and not name.endswith(".ts")
}


def kind(name: str) -> str:
    return name.partition(".")[0].partition("-")[0]


def moving(index: int, size: tuple[int, int] = (96, 64)) -> np.ndarray:
    """A textured picture that moves, so that references to other pictures pay, and no two are alike."""
    y, x = np.mgrid[0 : size[1], 0 : size[0]]
    wave = 128 + 100 * np.sin(0.3 * (x + 0.7 * index)) * np.cos(0.2 * y)
    return np.where(burn(index, size) > 128, wave[..., None], 255 - wave[..., None]).astype(np.uint8)


def hide(path: Path) -> None:
    """Makes every seventh VP8 frame one that is decoded but not shown, as encoders' alternate references are."""
    plain = path.rename(path.with_name(f"plain-{path.name}"))
    with av.open(str(plain)) as source, av.open(str(path), "w") as out:
        target = out.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(p for p in source.demux(video=0) if p.size):
            data = bytearray(bytes(packet))
            data[0] &= 0xFF if packet.is_keyframe or number % 7 != 3 else 0xEF
            copy = av.Packet(bytes(data))
            copy.pts, copy.dts, copy.time_base = packet.pts, packet.dts, packet.time_base
            copy.stream, copy.is_keyframe = target, packet.is_keyframe
            out.mux(copy)


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("films")
    for name, how in MADE.items():
        size = how.get("size", (96, 64))
        write_clip(
            folder / name, frames=90, audio_codec=None, picture=lambda i, _, s=size: moving(i, s), **how
        )
    hide(folder / "vp8-hidden.webm")
    for name, (source, how) in COPIED.items():
        copy_packets(folder / source, folder / name, **how)
    return {name: folder / name for name in FILES}


def planes(frame: Any) -> np.ndarray:
    """Every byte that the decoder made, unconverted."""
    rows = [np.frombuffer(p, np.uint8).reshape(p.height, p.line_size)[:, : p.width] for p in frame.planes]
    return np.concatenate([row.ravel() for row in rows])


def whole(path: str | Path | io.BytesIO) -> tuple[np.ndarray, np.ndarray]:
    """(presentation times in seconds, pictures) of everything that FFmpeg decodes, in order."""
    with av.open(path) as container:
        frames = list(container.decode(video=0))
    return np.array([float(f.pts * f.time_base) for f in frames]), np.stack([planes(f) for f in frames])


def shown(times: np.ndarray, instants: np.ndarray) -> np.ndarray:
    """Which picture is on screen: the last one that has begun, before all the first one."""
    return np.array([max(sum(times <= t + 1e-6) - 1, 0) for t in instants])


def windows(name: str, times: np.ndarray) -> list[np.ndarray]:
    """Eight pictures at speeds 1/2 to 4, either way: anywhere and about both ends, on a picture's time or between.

    Every fourth request is that of two views of a sample.
    """
    rng = np.random.default_rng(sum(name.encode()))
    count = WINDOWS // sum(kind(other) == kind(name) for other in FILES) + 1
    speed, place = rng.choice([0.5, 1, 2, 4], count), rng.choice(3, count, p=[0.7, 0.15, 0.15])
    starts = np.choose(
        place,
        [
            rng.choice(times, count),
            times[0] + rng.uniform(-0.3, 0.2, count),
            times[-1] - rng.uniform(0, 0.5, count),
        ],
    )
    starts += rng.choice([0, 1], count) * rng.uniform(0, 1 / 30, count)
    asked = [start + np.arange(FRAMES) * s / 30 for start, s in zip(starts, speed, strict=True)]
    asked = [instants[:: rng.choice([1, -1])] for instants in asked]
    return [np.concatenate(asked[i : i + 1 + (i % 4 == 0)]) for i in range(count)]


def sliced(path: Path, instants: np.ndarray) -> Slice:
    with open_media(path, Deadline(10.0)) as container:
        return cut(container, instants, Deadline(10.0))


@pytest.mark.parametrize("name", FILES)
def test_windows_are_those_of_a_full_decode(films: dict[str, Path], name: str) -> None:
    times, pictures = whole(films[name])
    for instants in windows(name, times):
        with open_media(films[name], Deadline(10.0)) as container:
            found = read_frames(container, instants, Deadline(10.0), converting(planes))
        expected = shown(times, instants)
        assert np.array_equal(found.pixels[found.index], pictures[expected]), instants
        np.testing.assert_allclose(found.pts, times[expected], atol=1e-9)
        assert len(found.pixels) == len(np.unique(expected))  # each is converted once


@pytest.mark.parametrize("name", FILES)
def test_windows_read_by_the_list_are_those_of_a_full_decode(
    films: dict[str, Path], tmp_path: Path, name: str
) -> None:
    sample = listed(films[name], tmp_path / "x.packets")
    assert (sample is not None) == (name in LISTED)
    if sample is None:
        return
    times, pictures = whole(films[name])
    for instants in windows(name, times):
        with reading(films[name], sample) as media:
            found = media.frames(instants, converting(planes))
        with open_media(films[name], Deadline(10.0)) as container:
            other = read_frames(container, instants, Deadline(10.0), converting(planes))
        expected = shown(times, instants)
        assert np.array_equal(found.pixels[found.index], pictures[expected]), instants
        np.testing.assert_allclose(found.pts, times[expected], atol=1e-9)
        assert found.decoded <= other.decoded + 2  # a group's first pictures may be known to be of no use


@pytest.mark.parametrize("name", FILES)
def test_slices_decode_to_the_windows_of_a_full_decode(films: dict[str, Path], name: str) -> None:
    times, pictures = whole(films[name])
    for instants in windows(name, times)[::2]:
        part = sliced(films[name], instants)
        expected = shown(times, instants)
        _, decoded = whole(io.BytesIO(part.data.tobytes()))
        assert np.array_equal(decoded[part.wanted[part.index]], pictures[expected]), instants
        np.testing.assert_allclose(part.pts, times[expected], atol=1e-9)


@pytest.mark.parametrize("name", [name for name in FILES if kind(name) in ("vp8", "vp9", "mjpeg")])
def test_dali_decodes_slices_to_the_windows_of_the_whole_file(films: dict[str, Path], name: str) -> None:
    with av.open(str(films[name])) as container:
        rgb = np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])
    times, _ = whole(films[name])
    asked = windows(name, times)
    parts = [sliced(films[name], instants) for instants in asked]
    every = np.frombuffer(films[name].read_bytes(), np.uint8)
    pictures, *found = by_dali(
        [every, *(p.data for p in parts)], [np.arange(len(times)), *(p.wanted for p in parts)]
    )
    assert np.abs(pictures.astype(int) - rgb).max() <= 4  # FFmpeg's, but for how colour conversion rounds
    for instants, part, decoded in zip(asked, parts, found, strict=True):
        assert np.array_equal(decoded[part.index], pictures[shown(times, instants)]), instants


def by_dali(files: list[np.ndarray], wanted: list[np.ndarray]) -> list[np.ndarray]:
    """The wanted frames of each file in memory, RGB."""

    @pipeline_def(batch_size=len(files), num_threads=1, device_id=None, prefetch_queue_depth=1)
    def decode() -> Any:
        data = fn.external_source(lambda: files, dtype=types.UINT8, ndim=1)
        frames = fn.external_source(lambda: [w.astype(np.int32) for w in wanted], dtype=types.INT32, ndim=1)
        return fn.decoders.video(data, frames=frames)

    pipeline = decode()
    pipeline.build()
    (decoded,) = pipeline.run()
    return [np.array(decoded[i]) for i in range(len(files))]


def test_the_files_hold_what_they_are_to_test(films: dict[str, Path]) -> None:
    def packets(name: str) -> list[Any]:
        with av.open(str(films[name])) as container:
            return [p for p in container.demux(video=0) if p.size]

    for name in ("h264open.mp4", "h264open.mkv", "h264open-edit.mp4", "hevc-open.mkv"):
        keys = [(p.pts, packets(name)[i + 1].pts) for i, p in enumerate(packets(name)) if p.is_keyframe]
        assert any(after < key for key, after in keys[1:])  # shown before the key frame that they follow
    for name in (name for name in FILES if "-edit" in name):
        assert min(p.pts for p in packets(name)) < 0 <= whole(films[name])[0][0]
    for name in (name for name in FILES if "-vfr" in name):
        assert np.ptp(np.diff(whole(films[name])[0])) > 0.04
    assert 50 < len(whole(films["vp8-hidden.webm"])[0]) < 90 == len(packets("vp8-hidden.webm"))
    assert min(p.size for p in packets("av1.mp4")) < 10  # shows a picture that was decoded before
