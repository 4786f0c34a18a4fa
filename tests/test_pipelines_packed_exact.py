"""What comes out of a shard is, bit for bit, a plain full decode of the shard's own members, at the source's times.

The members are found by tarfile and decoded by FFmpeg (through PyAV) and libsndfile, as files that know nothing of us.
"""

from __future__ import annotations

import io
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from catalogs import recording
from media import copy_packets, write_clip
from packs import members, opened, told, write
from test_pipelines_exact_video import AV1, HEVC, OPEN, hide, moving, planes, shown, whole

from coaug.pipelines.media import Deadline, converting
from coaug.pipelines.packed import extract
from coaug.pipelines.packed.sample import packed
from coaug.pipelines.packed.settings import Packing

WINDOWS, FRAMES, SIZE = 24, 8, (64, 48)
PART = (0.61, 1.37)  # seconds: within a film, between key frames
MADE: dict[str, dict[str, Any]] = {
    "h264.mp4": {"b_frames": 3, "gop": 20, "start": 0.3},
    "h264-vfr.mkv": {"gop": 16, "vfr": True, "start": 0.5},
    "h264-open.mp4": {"b_frames": 3, "gop": 12, "options": OPEN},
    "hevc.mp4": HEVC | {"b_frames": 3, "gop": 20},
    "hevc-open.mkv": HEVC | {"b_frames": 3, "gop": 14, "options": {"x265-params": "log-level=none"}},
    "vp8.webm": {"codec": "libvpx", "gop": 13},
    "vp8-hidden.webm": {"codec": "libvpx", "gop": 20},  # made so by `hide`
    "vp9-odd.webm": {"size": (71, 49), "gop": 20, "start": 0.2},
    "av1.mp4": AV1 | {"gop": 24, "size": (96, 64)},
    "mpeg4.avi": {"fps": 25, "gop": 12},
    "mpeg4-b.mp4": {"codec": "mpeg4", "b_frames": 2, "gop": 12},
    "mjpeg.mov": {"codec": "mjpeg", "start": 1.1},
    "mpeg2.mkv": {"codec": "mpeg2video", "fps": 25, "b_frames": 2, "gop": 12},
}
COPIED: dict[str, tuple[str, dict[str, Any]]] = {  # the same packets elsewhere
    "h264-open.ts": ("h264-open.mp4", {"later": 1.4}),
    "h264-edit.mp4": ("h264.mp4", {"later": -0.81}),  # hidden by an edit list up to the middle of a group
    "mpeg2.ts": ("mpeg2.mkv", {"later": 1.4}),
}
SETTINGS = {
    "h264": Packing("h264", 32),
    "layered": Packing("layered", 32, keyint=24),
    "mjpeg": Packing("mjpeg", 32),
    "copy": Packing("copy"),
}
ENCODED = ("h264.mp4", "h264-vfr.mkv", "vp9-odd.webm")
CASES = [(how, name) for how in SETTINGS for name in ([*MADE, *COPIED] if how == "copy" else ENCODED)]


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("films")
    for name, how in MADE.items():
        size = how.get("size", SIZE)
        picture = lambda i, _, s=size: moving(i, s)  # noqa: E731
        write_clip(
            folder / name, **({"size": size, "frames": 60, "audio_codec": None, "picture": picture} | how)
        )
    hide(folder / "vp8-hidden.webm")
    for name, (source, how) in COPIED.items():
        copy_packets(folder / source, folder / name, **how)
    return {name: folder / name for name in [*MADE, *COPIED]}


def decoded(member: bytes) -> np.ndarray:
    """All pictures of a file in memory, in order."""
    with av.open(io.BytesIO(member)) as container:
        return np.stack([planes(frame) for frame in container.decode(video=0)])


class Pack:
    """A recording in a shard of its own, and all that FFmpeg makes of the member and of the source."""

    def __init__(self, shard: Path, path: Path, how: str, part: tuple[float, float] | None) -> None:
        self.recording, (times, self.source) = recording(path), whole(str(path))
        if part is not None:
            begin = self.recording.start
            self.recording = replace(self.recording, start=begin + part[0], end=begin + part[1])
        self.shard = write(shard, [self.recording], SETTINGS[how])
        (self.members,) = members(self.shard).values()
        self.pts = np.array(told(self.members)["video"]["pts"])
        self.pictures = decoded(self.members[told(self.members)["video"]["member"]])
        first = shown(times, np.array([self.recording.start]))[0]
        inside = slice(first, int(np.searchsorted(times, self.recording.end - 1e-6)))
        self.times, self.source = times[inside], self.source[inside]

    def windows(self) -> list[np.ndarray]:
        """Eight instants each, at speeds 1/2 to 4, either way, now and then of two views, and about the end."""
        rng, (start, end) = np.random.default_rng(3), (self.recording.start, self.recording.end)
        asked = []
        for number in range(WINDOWS):
            views = 1 + (number % 4 == 0)
            begins = rng.uniform(start, end, views) if number % 3 else rng.choice(self.times, views)
            steps = np.arange(FRAMES) * rng.choice([0.5, 1, 2, 4, -1]) / 30
            asked.append(np.clip((begins[:, None] + steps).ravel(), start, end + 0.1))
        return asked


@pytest.fixture(scope="module")
def pack_of(films: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Any:
    made: dict[Any, Pack] = {}

    def pack(how: str, name: str, part: tuple[float, float] | None = None) -> Pack:
        if (key := (how, name, part)) not in made:
            made[key] = Pack(tmp_path_factory.mktemp("shard") / "00000.tar", films[name], how, part)
        return made[key]

    return pack


@pytest.mark.parametrize("part", [None, PART], ids=["whole", "part"])
@pytest.mark.parametrize(("how", "name"), CASES)
def test_windows_are_those_of_a_full_decode(pack_of: Any, how: str, name: str, part: Any) -> None:
    one = pack_of(how, name, part)
    media = opened(one.shard)
    for instants in one.windows():
        found, wanted = media.frames(instants, converting(planes)), shown(one.pts, instants)
        assert np.array_equal(found.pixels[found.index], one.pictures[wanted]), instants
        np.testing.assert_allclose(found.pts, one.pts[wanted], atol=1e-9)
        assert len(found.pixels) == len(np.unique(wanted))  # each is converted once


@pytest.mark.parametrize("part", [None, PART], ids=["whole", "part"])
@pytest.mark.parametrize(("how", "name"), CASES)
def test_slices_decode_to_the_windows_of_a_full_decode(pack_of: Any, how: str, name: str, part: Any) -> None:
    one = pack_of(how, name, part)
    media = opened(one.shard)
    for instants in one.windows()[::3]:
        cut, wanted = media.cut(instants), shown(one.pts, instants)
        pictures = decoded(cut.data.tobytes())
        assert np.array_equal(pictures[cut.wanted[cut.index]], one.pictures[wanted]), instants
        np.testing.assert_allclose(cut.pts, one.pts[wanted], atol=1e-9)


@pytest.mark.parametrize("part", [None, PART], ids=["whole", "part"])
@pytest.mark.parametrize(("how", "name"), CASES)
def test_presentation_times_are_the_sources(pack_of: Any, how: str, name: str, part: Any) -> None:
    """A copy has what its pictures refer to as well, before its start and, of B-frames, after its end."""
    one = pack_of(how, name, part)
    assert len(one.pts) == len(one.pictures)
    first = int(np.searchsorted(one.pts, one.times[0] - 1e-6)) if how == "copy" else 0
    seen = slice(first, first + len(one.times) if how == "copy" else None)
    np.testing.assert_allclose(one.pts[seen], one.times, atol=1e-9)
    assert how != "copy" or np.array_equal(one.pictures[seen], one.source)


def test_the_films_hold_what_they_are_to_test(films: dict[str, Path], pack_of: Any) -> None:
    def packets(name: str) -> list[Any]:
        with av.open(str(films[name])) as container:
            return [p for p in container.demux(video=0) if p.size]

    for name in ("h264-open.mp4", "h264-open.ts", "hevc-open.mkv", "mpeg2.mkv"):
        found = packets(name)
        assert any(b.pts < key.pts for key, b in pairwise(found[1:]) if key.is_keyframe)
        assert found[-1].pts < max(p.pts for p in found)  # decoded last, but not shown last
    assert packets("h264-edit.mp4")[0].pts < 0
    assert len(pack_of("copy", "vp8-hidden.webm").pictures) < len(packets("vp8-hidden.webm"))
    assert np.ptp(np.diff(pack_of("h264", "h264-vfr.mkv").pts)) > 0.04


def test_layers_leave_out_what_speed_4_does_not_show(pack_of: Any) -> None:
    layered, plain = (pack_of(how, "h264.mp4") for how in ("layered", "h264"))
    instants = layered.pts[:48:4] + 0.001
    assert opened(layered.shard).frames(instants, converting(planes)).decoded <= 1.2 * len(instants)
    assert opened(plain.shard).frames(instants, converting(planes)).decoded > 3 * len(instants)


# --- a film in pieces


@pytest.mark.parametrize("name", ["h264.mp4", "h264-open.mp4", "h264-vfr.mkv", "av1.mp4", "mpeg2.ts"])
def test_a_film_of_many_pieces_is_packed_like_one_of_one(
    films: dict[str, Path], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    film, packing = recording(films[name]), Packing("mjpeg", 32)
    whole_film = packed(film, "", packing, Deadline(60.0))
    for piece in (0.37, 0.5, film.duration - 1e-7):
        monkeypatch.setattr(extract, "PIECE", piece)
        assert packed(film, "", packing, Deadline(60.0)) == whole_film
