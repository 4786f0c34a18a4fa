"""What pictures far apart cost: exactly the frames of a full decode, for no more packets than their groups hold.

The reference is a plain demux of the whole file: which packets are key frames, which pictures are wanted; and, for the
codecs that tell, which pictures FFmpeg's decoder leaves out when told to leave out those that nothing refers to.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from media import read_frames as whole_frames
from media import write_clip

from coaug.pipelines.media import Deadline, open_media, read_frames
from coaug.pipelines.slices import cut

FRAMES = 150
X264: dict[str, Any] = {"codec": "libx264", "b_frames": 3}
FILES: dict[str, dict[str, Any]] = {  # name -> how it is encoded
    "h264.mp4": X264 | {"gop": 24},
    "h264.mkv": X264 | {"gop": 24, "start": 0.5},
    "h264-short.mp4": X264 | {"gop": 2, "b_frames": 1},
    "h264-late.mp4": X264 | {"gop": 17, "start": 1.4, "vfr": True},
    "h264-intra.mp4": {"gop": 1},
    "h264-refresh.mp4": {"options": {"x264-params": "intra-refresh=1:keyint=30:scenecut=0"}},
    "h264-open.mp4": X264 | {"gop": 20, "options": {"x264-params": "open-gop=1:scenecut=0"}},
    "h264-open.mkv": X264 | {"gop": 20, "options": {"x264-params": "open-gop=1:scenecut=0"}},
    "hevc-open.mp4": {
        "codec": "libx265",
        "b_frames": 3,
        "gop": 20,
        "options": {"x265-params": "log-level=none"},
    },
    "mpeg2-open.mp4": {"codec": "mpeg2video", "fps": 25, "b_frames": 2, "gop": 15},
    "mpeg4.avi": {"fps": 25, "gop": 20},
    "mpeg4-b.avi": {"fps": 25, "gop": 20, "b_frames": 2},
    "mpeg4-b.mp4": {"codec": "mpeg4", "b_frames": 2, "gop": 20},
    "vp9.webm": {"gop": 20},
    "vp8.webm": {"codec": "libvpx", "gop": 20},
    "vp8-vfr.mkv": {"codec": "libvpx", "gop": 15, "vfr": True, "start": 0.8},
    "mjpeg.avi": {"codec": "mjpeg", "fps": 25},
    "mjpeg.mkv": {"codec": "mjpeg"},
}
COPIES: dict[
    str, tuple[str, str, dict[str, str], int]
] = {  # name -> copy of, format, its options, frames cut off
    "h264.ts": ("h264.mp4", "mpegts", {}, 0),
    "h264-edit.mp4": ("h264.mp4", "mp4", {}, 31),  # an edit list hides what stands before the cut
    "h264-fragments.mp4": ("h264.mp4", "mp4", {"movflags": "frag_keyframe+empty_moov"}, 0),
    "vp9-live.webm": ("vp9.webm", "webm", {"live": "1"}, 0),  # no Cues
}
UNINDEXED = ("h264.ts", "vp9-live.webm")
COUNTED_ON = (
    "h264-open.mp4",
    "h264-open.mkv",
    "hevc-open.mp4",
)  # I pictures that count on: nothing is left out
SHARED = (
    "h264-open.mkv",
    "vp8.webm",
    "vp8-vfr.mkv",
)  # groups so small that several stand in one Matroska cluster
REFRESHED = "h264-refresh.mp4"  # its key frames are no whole pictures: more than their groups is needed
NAMES = [*FILES, *COPIES]


@dataclass(frozen=True)
class Film:
    """A file, its pictures as a full decode shows them, its packets' (pts, key frame) in decoding order, and the pts of
    pictures that nothing refers to."""

    path: Path
    times: np.ndarray
    pictures: list[np.ndarray]
    packets: list[tuple[float, bool]]
    unreferenced: set[float]

    def number(self, instant: float) -> int:
        return max(int((self.times <= instant + 1e-6).sum()) - 1, 0)


@pytest.fixture(scope="session")
def films(media_dir: Path) -> dict[str, Film]:
    folder = media_dir / "cost"
    folder.mkdir()
    for name, options in FILES.items():
        write_clip(folder / name, frames=FRAMES, audio_seconds=1.0, **options)
    for name, (original, form, options, skipped) in COPIES.items():
        copy(folder / original, folder / name, form, options, skipped)
    return {name: film(folder / name) for name in NAMES}


def copy(source: Path, path: Path, form: str, options: dict[str, str], skipped: int) -> None:
    """The picture's packets again; pictures before frame `skipped` get times below zero."""
    with av.open(str(source)) as container, av.open(str(path), "w", format=form, options=options) as out:
        stream = container.streams.video[0]
        target = out.add_stream_from_template(stream)
        packets = [p for p in container.demux(stream) if p.size]
        shift = sorted(p.pts for p in packets if p.pts is not None)[skipped]
        first = next(
            i for i, p in reversed(list(enumerate(packets))) if p.is_keyframe and (p.pts or 0) <= shift
        )
        for packet in packets[first:]:
            assert packet.pts is not None and packet.dts is not None
            packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, target
            out.mux(packet)


def film(path: Path) -> Film:
    frames = whole_frames(path)
    with av.open(str(path)) as container:
        packets = [
            (float(p.pts * p.time_base), p.is_keyframe)
            for p in container.demux(video=0)
            if p.size and p.pts is not None
        ]
    times = np.array([float(t) for t, _ in frames])
    return Film(path, times, [picture for _, picture in frames], packets, unreferenced(path))


def unreferenced(path: Path) -> set[float]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        if stream.codec_context.name not in ("h264", "hevc"):
            return set()
        stream.codec_context.skip_frame = "NONREF"
        packets = [p for p in container.demux(stream) if p.size]
        seen = {f.pts for p in [*map(unhidden, packets), None] for f in stream.codec_context.decode(p)}
    return {float(p.pts * p.time_base) for p in packets if p.pts is not None and p.pts not in seen}


def unhidden(packet: av.Packet) -> av.Packet:
    """Without the mark by which an edit list keeps a picture off the screen."""
    copy = av.Packet(bytes(packet))
    copy.pts, copy.dts = packet.pts, packet.dts
    return copy


def groups(film: Film, instants: list[float]) -> tuple[set[int], set[int]]:
    """(packets to be decoded, packets of the needed groups) for these instants, by their place in the file.

    A picture needs everything from its key frame to itself in decoding order, but pictures that nothing refers to are
    left out. Leading pictures of an open group
    (after its key frame, but shown before it) belong to the group before: where that is not decoded to its end they
    cannot be decoded and are left out, and where one is wanted that group is needed.
    """
    decoded, inside = spans(film, instants)
    wanted = {film.times[film.number(instant)] for instant in instants}
    return {i for i in decoded if film.packets[i][0] not in film.unreferenced - wanted}, inside


def spans(film: Film, instants: list[float]) -> tuple[set[int], set[int]]:
    """`groups` with the pictures that nothing refers to."""
    decoded, inside = set(), set()
    for instant in instants:
        shown = max(i for i, (pts, _) in enumerate(film.packets) if pts == film.times[film.number(instant)])
        key = max(i for i, (pts, key) in enumerate(film.packets) if key and pts <= film.packets[shown][0])
        following = [i for i, (_, is_key) in enumerate(film.packets) if is_key and i > key]
        decoded |= set(range(key, shown + 1))
        inside |= set(range(key, max(shown + 1, min(following, default=len(film.packets)))))
    for key in sorted(i for i in decoded if film.packets[i][1]):
        if key and key - 1 not in decoded:
            decoded -= {i for i in decoded if i > key and film.packets[i][0] < film.packets[key][0]}
    return decoded, inside


class Watched:
    """A container that notes the presentation time of every packet that is read from it."""

    def __init__(self, container: Any) -> None:
        self.container, self.read = container, list[float]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.container, name)

    def demux(self, stream: Any) -> Iterator[Any]:
        for packet in self.container.demux(stream):
            if packet.size and packet.pts is not None:
                self.read.append(float(packet.pts * packet.time_base))
            yield packet


def requests(times: np.ndarray, seed: int) -> list[np.ndarray]:
    """Scattered, two dense moments, every fourth frame, ends and one alone."""
    rng = np.random.default_rng(seed)
    step = float(np.median(np.diff(times)))
    moments = rng.uniform(times[0], times[-1] - 1.0, 2)
    start = rng.uniform(times[0], times[-1] - 40 * step)
    return [
        *(np.sort(rng.uniform(times[0] - 0.3, times[-1] + 0.3, n)) for n in (2, 4, 9)),
        rng.choice(times, 5),
        np.concatenate([m + step * np.arange(6) for m in moments]),
        start + 4 * step * np.arange(10),
        times[[-1, 0]],
        rng.choice(times, 1),
    ]


def check(film: Film, instants: np.ndarray) -> int:
    """Asserts that read_frames gives the pictures of a full decode; returns the number of frames decoded."""
    with open_media(film.path, Deadline(30.0)) as container:
        found = read_frames(container, instants, Deadline(30.0))
    numbers = [film.number(t) for t in instants]
    np.testing.assert_allclose(found.pts, film.times[numbers], atol=1e-9)
    for n, i in zip(numbers, found.index, strict=True):
        assert np.array_equal(found.pixels[i], film.pictures[n]), (instants, n)
    assert len(found.pixels) == len(set(numbers))
    return found.decoded


@pytest.mark.parametrize("name", NAMES)
def test_frames_far_apart_are_those_of_a_full_decode_at_the_least_cost(
    films: dict[str, Film], name: str
) -> None:
    for seed in range(4):
        for instants in requests(films[name].times, seed):
            decoded = check(films[name], instants)
            if name != REFRESHED:
                assert decoded == len(groups(films[name], instants.tolist())[0]), instants


@pytest.mark.parametrize("name", ["h264.mp4", "h264-open.mkv", "vp9.webm", "mpeg4.avi"])
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(instants=st.lists(st.floats(-1.0, 7.0), min_size=1, max_size=12))
def test_any_instants(films: dict[str, Film], name: str, instants: list[float]) -> None:
    """Any order, repeats, before the first picture and after the last."""
    assert check(films[name], np.array(instants)) == len(groups(films[name], instants)[0])


@pytest.mark.parametrize("name", [name for name in NAMES if name not in (*UNINDEXED, *SHARED, REFRESHED)])
def test_no_packet_of_other_groups_is_read(films: dict[str, Film], name: str) -> None:
    """But those few that show that a group has ended: one, and as many again as pictures are reordered by."""
    places = {pts: i for i, (pts, _) in enumerate(films[name].packets)}
    for instants in requests(films[name].times, 7):
        with open_media(films[name].path, Deadline(30.0)) as container:
            watched = Watched(container)
            read_frames(watched, instants, Deadline(30.0))
        decoded, inside = groups(films[name], instants.tolist())
        read = {places[pts] for pts in watched.read}
        assert decoded <= read
        keys = sum(films[name].packets[i][1] for i in decoded)
        assert len(read - inside) <= 5 * keys, (
            instants,
            sorted(read - inside),
            sorted(decoded),
            len(watched.read),
        )


@pytest.mark.parametrize("name", UNINDEXED)
def test_without_an_index_two_seconds_apart_are_not_read_through(films: dict[str, Film], name: str) -> None:
    """At worst a demuxer finds its own way (Matroska without Cues), and that costs no decoding."""
    with open_media(films[name].path, Deadline(30.0)) as container:
        watched = Watched(container)
        read_frames(watched, films[name].times[[1, -2]], Deadline(30.0))
    assert name != "h264.ts" or len(set(watched.read)) < len(films[name].packets) * 0.8


@pytest.mark.parametrize("name", [name for name in NAMES if name != REFRESHED])
def test_slices_hold_what_is_needed_and_show_it(films: dict[str, Film], name: str) -> None:
    for instants in requests(films[name].times, 3):
        with open_media(films[name].path, Deadline(30.0)) as container:
            part = cut(container, instants, Deadline(30.0))
        decoded, _ = groups(films[name], instants.tolist())
        sizes = packet_sizes(films[name].path)
        if name in COUNTED_ON and len(starts(films[name], instants)) > 1:
            first = films[name].packets[min(decoded)][0]
            every = range(min(decoded), max(decoded) + 1)
            decoded = {
                i for i in every if films[name].packets[i][0] >= first
            }  # without what leads its first key frame
        assert part.decoded == len(decoded), instants
        with av.open(io.BytesIO(part.data.tobytes())) as small:
            shown = [f.to_ndarray(format="rgb24") for f in small.decode(video=0)]
        for t, i in zip(instants, part.wanted[part.index], strict=True):
            assert np.array_equal(shown[i], films[name].pictures[films[name].number(t)]), (instants, t)
        assert abs(len(part.data) - sum(sizes[i] for i in decoded)) < 5000 + 20 * len(decoded)


def starts(film: Film, instants: np.ndarray) -> list[int]:
    """Where decoding starts, and starts again after packets that it leaves out."""
    decoded, _ = spans(film, instants.tolist())
    return [i for i in decoded if film.packets[i][1] and i - 1 not in decoded]


def test_what_a_gradual_refresh_shows_is_right_at_any_cost(films: dict[str, Film]) -> None:
    """A decoder that starts at such a "key frame" shows nothing until it has seen a whole refresh."""
    film, dearer = films[REFRESHED], 0
    for number in range(0, FRAMES, 7):
        instants = film.times[[number]]
        dearer += check(film, instants) > len(groups(film, instants.tolist())[0])
    assert dearer


def packet_sizes(path: Path) -> list[int]:
    with av.open(str(path)) as container:
        return [p.size for p in container.demux(video=0) if p.size and p.pts is not None]


def test_two_requests_of_one_container_do_not_disturb_each_other(films: dict[str, Film]) -> None:
    times = films["h264.mp4"].times
    with open_media(films["h264.mp4"].path, Deadline(30.0)) as container:
        for instants in (times[[140, 3]], times[[50]], times[[3, 140]]):
            found = read_frames(container, instants, Deadline(30.0))
            np.testing.assert_allclose(found.pts, instants, atol=1e-9)
            cut(container, instants, Deadline(30.0))
