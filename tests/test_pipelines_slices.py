"""A slice decodes to exactly the frames of a full decode: by PyAV for every codec, by DALI for those of the CPU."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from media import burn, read_frames, write_clip
from nvidia.dali import fn, pipeline_def, types

from coaug.pipelines.media import Deadline, MediaError, open_media
from coaug.pipelines.slices import Slice, cut

LAG = {"auto-alt-ref": "1", "lag-in-frames": "16", "deadline": "good", "cpu-used": "4"}
KINDS: dict[str, dict[str, Any]] = {
    "vp8.webm": {"codec": "libvpx"},
    "vp8-hidden.webm": {"codec": "libvpx", "gop": 23},  # made so by `hide`
    "vp8-vfr.mkv": {"codec": "libvpx", "vfr": True, "start": 0.8},
    "vp9.webm": {},
    "vp9-lag.webm": {"options": LAG, "gop": 60},
    "vp9-odd.webm": {"size": (101, 67), "start": 1.5},
    "mjpeg.mkv": {"codec": "mjpeg"},
    "mjpeg.avi": {"codec": "mjpeg", "fps": 25},
    "h264.mp4": {"b_frames": 3, "gop": 30},
    "h264.mkv": {"b_frames": 3, "gop": 30, "start": 0.5},
    "h264-open.mkv": {"b_frames": 3, "gop": 20, "options": {"x264-params": "open-gop=1:scenecut=0"}},
    "hevc.mp4": {"codec": "libx265", "b_frames": 3, "options": {"x265-params": "log-level=none"}, "gop": 20},
    "mpeg4.mp4": {"codec": "mpeg4", "b_frames": 2, "gop": 24},
    "mpeg4.avi": {"fps": 25, "gop": 24},
}
ON_CPU = [name for name in KINDS if name.startswith(("vp", "mjpeg"))]


def moving(index: int, _: float) -> np.ndarray:
    """A textured picture that moves, so that alternate reference frames pay."""
    y, x = np.mgrid[0:64, 0:96]
    wave = 128 + 100 * np.sin(0.3 * (x + 0.7 * index)) * np.cos(0.2 * y)
    return np.where(burn(index % 4096) > 128, wave[..., None], 255 - wave[..., None]).astype(np.uint8)


def hide(path: Path) -> None:
    """Makes every seventh VP8 frame one that is decoded but not shown, as encoders' alternate references are."""
    plain = path.rename(path.with_name(f"plain-{path.name}"))
    with av.open(str(plain)) as source, av.open(str(path), "w") as out:
        target = out.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(source.demux(video=0)):
            if packet.size:
                data = bytearray(bytes(packet))
                data[0] &= 0xFF if packet.is_keyframe or number % 7 != 3 else 0xEF
                copy = av.Packet(bytes(data))
                copy.pts, copy.dts, copy.time_base = packet.pts, packet.dts, packet.time_base
                copy.stream, copy.is_keyframe = target, packet.is_keyframe
                out.mux(copy)


@pytest.fixture(scope="session")
def sliced(media_dir: Path) -> dict[str, Path]:
    folder = media_dir / "slices"
    folder.mkdir()
    for name, kind in KINDS.items():
        picture = None if "odd" in name else moving
        write_clip(folder / name, frames=70, audio_codec=None, picture=picture, **kind)
    hide(folder / "vp8-hidden.webm")
    return {name: folder / name for name in KINDS}


def requests(pts: np.ndarray) -> list[np.ndarray]:
    """Instants deep in the file, in several groups of pictures, around its ends, backwards and repeated."""
    rng = np.random.default_rng(len(pts))
    spans = [np.sort(rng.uniform(pts[0], pts[-1], 2)) for _ in range(3)]
    inside = [np.linspace(low, high, 6) for low, high in spans]
    apart = [pts[[-6, 3]], rng.uniform(pts[0], pts[-1], 3), pts[2::17]]
    return [
        *inside,
        *apart,
        inside[0][::-1],
        np.array([pts[0] - 1.0, pts[5], pts[5]]),
        np.array([pts[-1] + 1.0]),
    ]


def sliced_at(path: Path, instants: np.ndarray) -> Slice:
    with open_media(path, Deadline(10.0)) as container:
        return cut(container, instants, Deadline(10.0))


def by_pyav(data: np.ndarray) -> list[np.ndarray]:
    with av.open(io.BytesIO(data.tobytes())) as container:
        return [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]


def by_dali(items: list[Slice]) -> list[np.ndarray]:
    @pipeline_def(batch_size=len(items), num_threads=2, device_id=None, prefetch_queue_depth=1)
    def decode() -> Any:
        data = fn.external_source(lambda: [s.data for s in items], dtype=types.UINT8, ndim=1)
        wanted = fn.external_source(lambda: [s.wanted for s in items], dtype=types.INT32, ndim=1)
        return fn.decoders.video(data, frames=wanted)

    pipeline = decode()
    pipeline.build()
    (shown,) = pipeline.run()
    return [np.array(shown[i])[s.index] for i, s in enumerate(items)]


def numbers(pts: np.ndarray, instants: np.ndarray) -> list[int]:
    return [max(int((pts <= t + 1e-6).sum()) - 1, 0) for t in instants]


@pytest.mark.parametrize("name", KINDS)
def test_slices_decode_to_the_frames_of_a_full_decode(sliced: dict[str, Path], name: str) -> None:
    frames = read_frames(sliced[name])
    pts = np.array([float(t) for t, _ in frames])
    for instants in requests(pts):
        part = sliced_at(sliced[name], instants)
        expected = numbers(pts, instants)
        np.testing.assert_allclose(part.pts, pts[expected], atol=1e-9)
        assert (np.diff(part.wanted) > 0).all()
        decoded = by_pyav(part.data)
        for n, i in zip(expected, part.wanted[part.index], strict=True):
            assert np.array_equal(decoded[i], frames[n][1]), (instants, n)


@pytest.mark.parametrize("name", ON_CPU)
def test_dali_decodes_slices_to_the_same_frames_as_whole_files(sliced: dict[str, Path], name: str) -> None:
    frames = read_frames(sliced[name])
    pts = np.array([float(t) for t, _ in frames])
    asked = requests(pts)
    every = sliced_at(sliced[name], pts)  # the whole file: what DALI makes of it without any cutting
    whole, *parts = by_dali([every, *(sliced_at(sliced[name], instants) for instants in asked)])
    assert len(whole) == len(pts)
    for instants, part in zip(asked, parts, strict=True):
        assert np.array_equal(part, whole[numbers(pts, instants)])
    full = np.stack([picture for _, picture in frames])
    assert np.abs(whole.astype(int) - full).max() <= 4  # colour conversion rounds differently


def test_hidden_frames_are_there(sliced: dict[str, Path]) -> None:
    """The file does hold what it is meant to test."""
    assert 50 < len(read_frames(sliced["vp8-hidden.webm"])) < 70


def test_a_slice_costs_what_it_shows(sliced: dict[str, Path]) -> None:
    for name in ("vp9.webm", "vp8.webm", "mjpeg.mkv"):
        part = sliced_at(sliced[name], np.array([62 / 30]))
        assert len(part.data) < sliced[name].stat().st_size / 3
        assert part.index.tolist() == [0]


def test_two_moments_cost_two_groups(sliced: dict[str, Path]) -> None:
    """Key frames at 0, 12, 24 ...: frames 14 and 62 need 12-14 and 60-62, shown as the third and sixth."""
    part = sliced_at(sliced["vp9.webm"], np.array([14, 62, 14]) / 30 + 0.01)
    assert part.decoded == 6
    assert part.wanted.tolist() == [2, 5]
    assert part.index.tolist() == [0, 1, 0]


def test_a_deadline_ends_the_cutting(sliced: dict[str, Path]) -> None:
    deadline = Deadline(10.0)
    with open_media(sliced["vp9.webm"], deadline) as container:
        deadline.end = 0.0
        with pytest.raises(MediaError, match="deadline"):
            cut(container, np.array([1.0]), deadline)
