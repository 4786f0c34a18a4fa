"""Packets that no decoder needs: the frames left are bit for bit those of a full decode, and as few as FFmpeg says.

FFmpeg's own decoders name the pictures that nothing refers to: they leave them out at `skip_frame = NONREF`. What it
reads in AV1's headers its filter `trace_headers` prints.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from av.bitstream import BitStreamFilterContext
from hypothesis import given
from hypothesis import strategies as st
from media import write_clip

from coaug.pipelines import disposable
from coaug.pipelines.bitstream import Bits, UnreadError, av1_frames, avc_is_plain, avc_sequences, nal_units
from coaug.pipelines.disposable import Use, without_disposable
from coaug.pipelines.media import Deadline, converting, open_media, read_frames
from coaug.pipelines.slices import cut

FRAMES, SIZE, WINDOWS = 130, (96, 64), 200


def x264(params: str, **more: Any) -> dict[str, Any]:
    return {
        "codec": "libx264",
        "b_frames": 3,
        "gop": 60,
        "options": {"preset": "fast", "crf": "23", "x264-params": f"scenecut=0:{params}"},
    } | more


def x265(params: str, **more: Any) -> dict[str, Any]:
    options = {"preset": "fast", "x265-params": f"log-level=none:pools=1:{params}"}
    return {"codec": "libx265", "b_frames": 4, "gop": 50, "options": options} | more


def svt(preset: int, params: str = "lp=1") -> dict[str, Any]:
    return {
        "codec": "libsvtav1",
        "gop": 60,
        "options": {"preset": str(preset), "svtav1-params": params},
    }


KINDS: dict[str, dict[str, Any]] = {  # name -> how it is encoded
    "h264.mp4": x264("weightp=0:b-adapt=0"),
    "h264-defaults.mkv": {"codec": "libx264", "b_frames": 3, "gop": 250, "start": 0.5},
    "h264-weighted.mp4": x264("weightp=2:weightb=1:ref=4:bframes=5:b-adapt=2", vfr=True),
    "h264-flat.mp4": x264("b-pyramid=none:b-adapt=0"),
    "h264-strict.mkv": x264("b-pyramid=strict:b-adapt=0:slices=3"),
    "h264-open.mkv": x264("open-gop=1:keyint=24:b-adapt=0"),
    "h264-interlaced.mp4": x264("interlaced=1:b-adapt=0"),
    "h264-untold.mkv": x264("b-adapt=0"),  # made so by `hide_delay`
    "h264.ts": x264("b-adapt=0"),
    "hevc.mp4": x265("b-adapt=0"),
    "hevc-layers.mkv": x265("temporal-layers=3:b-adapt=0"),
    "hevc-closed.ts": x265("open-gop=0"),
    "av1.mp4": svt(10),
    "av1-grain.mkv": svt(8, "lp=1:scm=1:film-grain=8"),
    "av1-low-delay.mp4": svt(9, "lp=1:pred-struct=1:rc=2"),
}
LEFT = ("h264-interlaced.mp4", "h264-untold.mkv")  # as they are
LAYERS = "hevc-layers.mkv"


@dataclass(frozen=True)
class Film:
    """A file, a full decode's frames, the packets' (pts, key frame) in decoding order, and the pts that FFmpeg's
    decoder leaves out when told to leave out what nothing refers to."""

    name: str
    path: Path
    times: np.ndarray
    planes: list[np.ndarray]
    packets: list[tuple[float, bool]]
    unreferenced: set[float]

    def number(self, instant: float) -> int:
        return max(int((self.times <= instant + 1e-6).sum()) - 1, 0)


@pytest.fixture(scope="session", params=KINDS)
def film(request: pytest.FixtureRequest, media_dir: Path) -> Film:
    return made(request.param, media_dir)


def made(name: str, media_dir: Path) -> Film:
    path = media_dir / f"disposable-{name}"
    encoded = path if path.suffix != ".ts" and "untold" not in name else media_dir / f"before-{name}.mkv"
    if not path.exists():
        write_clip(encoded, size=SIZE, frames=FRAMES, audio_codec=None, picture=texture, **KINDS[name])
    if encoded != path:
        remux(encoded, path, untold="untold" in name)
    frames = decoded(path)
    times = [float(f.pts * f.time_base) for f in frames]
    with av.open(str(path)) as container:
        packets = [p for p in container.demux(video=0) if p.size]
    stamps = [(float((p.pts or 0) * p.time_base), p.is_keyframe) for p in packets]
    seen = {float(f.pts * f.time_base) for f in decoded(path, skip="NONREF")}
    return Film(name, path, np.array(times), [planes(f) for f in frames], stamps, set(times) - seen)


def texture(index: int, _: float) -> np.ndarray:
    """A wave that moves, in the light of a lamp that flickers, and noise: something to predict and something not."""
    y, x = np.mgrid[0 : SIZE[1], 0 : SIZE[0]]
    wave = 128 + 80 * np.sin(0.2 * (x + 2 * index) + 0.1 * y) * (0.6 + 0.4 * np.cos(index / 9))
    noisy = wave + np.random.default_rng(index).normal(0, 4, wave.shape)
    return np.repeat(np.clip(noisy, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


def remux(source: Path, path: Path, *, untold: bool) -> None:
    with av.open(str(source)) as container, av.open(str(path), "w") as out:
        stream = container.streams.video[0]
        target = out.add_stream_from_template(stream)
        if untold:
            target.codec_context.extradata = hide_delay(bytes(stream.codec_context.extradata or b""))
        for packet in container.demux(stream):
            if packet.size:
                packet.stream = target
                out.mux(packet)


def hide_delay(extradata: bytes) -> bytes:
    """H.264's box without the usability information, which says how far pictures are reordered: decoders must guess."""
    (old,) = avc_sequences(extradata)
    bits = Bits(old[1:].replace(b"\0\0\3", b"\0\0"))
    total = bits.left
    _, _, _, _ = bits.read(24), [bits.golomb() for _ in range(4)], bits.read(2), bits.golomb()
    order = bits.golomb()
    assert order in (0, 2)
    _ = [bits.golomb() for _ in range(order == 0)]
    _, _, _, _, _ = bits.golomb(), bits.read(1), bits.golomb(), bits.golomb(), bits.read(2)
    _ = [bits.golomb() for _ in range(4 * bits.read(1))]  # cropping
    size = (total - bits.left + 2 + 7) // 8  # bytes; no information follows, and the stop bit does
    kept = (bits.value >> bits.left << 2 | 0b01) << 8 * size - (total - bits.left + 2)
    new = old[:1] + kept.to_bytes(size, "big")
    assert not any(bytes([0, 0, n]) in new for n in range(4))
    return extradata[:6] + len(new).to_bytes(2, "big") + new + extradata[8 + len(old) :]


def decoded(path: Path, skip: str = "DEFAULT") -> list[Any]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.skip_frame = skip
        return list(container.decode(stream))


def planes(frame: Any) -> np.ndarray:
    return np.asarray(frame.to_ndarray())


def windows(times: np.ndarray, seed: int, count: int) -> Iterator[np.ndarray]:
    """A few frames at a steady pace, and every fourth time anywhere."""
    rng = np.random.default_rng(seed)
    for n in range(count):
        size, step, first = rng.integers(1, 9), rng.integers(1, 9), rng.integers(0, len(times) - 1)
        if n % 4:
            yield times[np.minimum(first + step * np.arange(size), len(times) - 1)]
        else:
            yield np.sort(rng.uniform(times[0] - 0.2, times[-1] + 0.2, size))


def test_frames_are_bit_for_bit_those_of_a_full_decode(film: Film) -> None:
    assert len(film.planes) == FRAMES
    with open_media(film.path, Deadline(60.0)) as container:
        for instants in windows(film.times, 1, WINDOWS):
            found = read_frames(container, instants, Deadline(60.0), converting(planes))
            numbers = [film.number(t) for t in instants]
            np.testing.assert_allclose(found.pts, film.times[numbers], atol=1e-9)
            for n, i in zip(numbers, found.index, strict=True):
                assert np.array_equal(found.pixels[i], film.planes[n]), (instants, n)


def test_slices_show_them_too(film: Film) -> None:
    """Frames are numbered among those that are left."""
    with open_media(film.path, Deadline(60.0)) as container:
        for instants in windows(film.times, 2, 40):
            part = cut(container, instants, Deadline(60.0))
            with av.open(io.BytesIO(part.data.tobytes())) as small:
                shown = [planes(f) for f in small.decode(video=0)]
            assert len(shown) == part.decoded
            for t, n in zip(instants, part.wanted[part.index], strict=True):
                assert np.array_equal(shown[n], film.planes[film.number(t)]), (instants, t)


def test_a_frame_costs_the_references_before_it(film: Film) -> None:
    """No packet more, from the key frame on, than FFmpeg calls references; of layers and of AV1 fewer still."""
    uses, total = list(traced_uses(film)) if film.name.startswith(("av1", LAYERS)) else None, 0
    for instant in film.times[::3]:
        shown = next(i for i, (pts, _) in enumerate(film.packets) if pts == instant)
        key = max(i for i, (pts, is_key) in enumerate(film.packets) if is_key and pts <= instant)
        span = [i for i in range(key, shown + 1) if key == 0 or film.packets[i][0] >= film.packets[key][0]]
        if film.name in LEFT:
            kept = span
        elif uses:
            needed = referred([uses[i] for i in span], [len(span) - 1])
            kept = [i for n, i in enumerate(span) if n in needed or film.packets[i][1]]
        else:
            kept = [i for i in span if i == shown or film.packets[i][0] not in film.unreferenced]
        with open_media(film.path, Deadline(60.0)) as container:
            count = read_frames(container, np.array([instant]), Deadline(60.0), converting(planes)).decoded
        assert count == len(kept), instant
        total += len(span) - count
    assert (total > 0) == (film.name not in LEFT)


def traced_uses(film: Film) -> Iterator[list[tuple[int, int, int]]]:
    """For every packet its frames' (places filled, places read, places that are emptied before)."""
    with av.open(str(film.path)) as container:
        stream = container.streams.video[0]
        for fields in traced(stream, [p for p in container.demux(stream) if p.size]):
            if film.name == LAYERS:  # place 2t: references of layer t, 2t + 1: its other pictures
                (kind, layer), *_ = units_of(fields)
                place = 2 * layer + (kind in (0, 2, 4, 6, 8))
                yield [(1 << place, sum(1 << n for n in range(2 * layer + 1)), 0)]
            else:
                yield [(fills, reads, fills) for fills, reads in headers_of(fields)]


def units_of(fields: list[tuple[str, int]]) -> list[tuple[int, int]]:
    """(nal_unit_type, temporal layer) of HEVC's slices."""
    kinds = [value for name, value in fields if name == "nal_unit_type"]
    layers = [value - 1 for name, value in fields if name == "nuh_temporal_id_plus1"]
    return [(kind, layer) for kind, layer in zip(kinds, layers, strict=True) if kind < 32]


def headers_of(fields: list[tuple[str, int]]) -> Iterator[tuple[int, int]]:
    """(refresh_frame_flags, places referred to) of AV1's frame headers."""
    begins = [i for i, (name, _) in enumerate(fields) if name == "show_existing_frame"]
    for header in (fields[a:b] for a, b in pairwise([*begins, len(fields)])):
        refers = {value for name, value in header if name in ("ref_frame_idx", "frame_to_show_map_idx")}
        shown_key = ("frame_type", 0) in header and ("show_frame", 1) in header
        yield dict(header).get("refresh_frame_flags", 255 * shown_key), sum(1 << place for place in refers)


def traced(stream: Any, packets: list[Any]) -> Iterator[list[tuple[str, int]]]:
    """The fields of each packet's headers, as FFmpeg's filter `trace_headers` prints them."""
    tracer = BitStreamFilterContext("trace_headers", stream)
    level = av.logging.get_level()
    av.logging.set_level(av.logging.INFO)
    try:
        for packet in packets:
            with av.logging.Capture() as lines:
                tracer.filter(packet)
            text = "\n".join(message for _, _, message in lines)
            yield [(n, int(v)) for n, v in re.findall(r"(\w+)(?:\[\d\])? +[01]+ = (\d+)", text)]
    finally:
        av.logging.set_level(level)


@pytest.mark.parametrize("name", [name for name in KINDS if name.startswith("av1")])
def test_av1_headers_are_read_as_ffmpeg_reads_them(media_dir: Path, name: str) -> None:
    with av.open(str(made(name, media_dir).path)) as container:
        stream = container.streams.video[0]
        packets = [p for p in container.demux(stream) if p.size]
        extradata = bytes(stream.codec_context.extradata or b"")
        ours = av1_frames([memoryview(p) for p in packets], extradata)
        assert ours == [list(headers_of(fields)) for fields in traced(stream, packets)]
    assert sum(map(len, ours)) >= FRAMES


def test_reading_stops_at_a_key_frame_that_takes_effect_later(media_dir: Path) -> None:
    """show_existing_frame 0, frame_type KEY_FRAME and show_frame 1 or 0: what is shown again may then be that one."""
    with av.open(str(made("av1.mp4", media_dir).path)) as container:
        box = bytes(container.streams.video[0].codec_context.extradata or b"")
    shown, hidden, again = (
        memoryview(bytes([0x32, 20, bits, *[0] * 19])) for bits in (0b0001_0000, 0, 0b1_010_0000)
    )
    assert av1_frames([shown, again], box) == [[(255, 0)], [(0, 1 << 2)]]
    assert av1_frames([shown, hidden, again, shown], box) == [[(255, 0)]]


def test_an_av1_packet_reads_what_its_frames_read_but_for_each_other() -> None:
    """A key frame (0x10), and places 2 and 5 shown again (0xA0, 0xD0)."""
    key, two, five = (bytes([0x32, 1, bits]) for bits in (0x10, 0xA0, 0xD0))
    packets = [memoryview(data) for data in (two + five, two + key, key + two, two + key + five)]
    uses = disposable.RULES["av1"](packets, b"")
    assert uses == [Use(0, 36, 0), Use(255, 4, 255), Use(255, 0, 255), Use(255, 4, 255)]


ASPECT = "1" + "1" * 8 + "10" * 16
COLOURS, TIMING = "1" + "101" + "0" + "1" + "01" * 12, "1" + "01" * 32 + "1"
BUFFER = "1" + "1" + "0001" * 2 + "1" + "1" + "1" + "01000" * 4  # one hypothetical reference decoder


@pytest.mark.parametrize(
    ("frames", "usability", "plain"),
    [
        ("11", "0", False),
        ("11", "1" + "00000" + "00" + "0" + "1", True),
        ("11", "1" + "00000" + "00" + "0" + "0", False),
        ("11", "1" + ASPECT + "10" + COLOURS + "1" + "1" + "010" + TIMING + "00" + "1" + "1", True),
        ("11", "1" + ASPECT + "10" + COLOURS + "1" + "1" + "010" + TIMING + "00" + "1" + "0", False),
        ("11", "1" + "00000" + BUFFER + "0" + "1" + "0" + "1", False),
        ("11", "1" + "00000" + "0" + BUFFER + "1" + "0" + "1", False),
        ("001", "1" + "00000" + "00" + "0" + "1", False),
        ("011", "1" + "00000" + "00" + "0" + "1", False),
        ("000", "0001", False),  # would do if its first flag were overlooked
    ],
)
def test_avc_sequences_are_plain_if_of_frames_and_with_their_delay(
    frames: str, usability: str, plain: bool
) -> None:
    """Written out bit by bit: Baseline, level 3, order of type 2 or 0, one reference, 2 x 2 macroblocks, cropped."""
    for order in ("011", "1" + "00101"):
        fields = "01000010" + "0" * 8 + "00011110" + "1" + "1" + order + "010" + "0" + "010" + "010"
        bits = fields + frames + "1" + "010" * 4 + usability + "1"
        data = int(bits.ljust(8 * (len(bits) // 8 + 9), "0"), 2).to_bytes(len(bits) // 8 + 9, "big")
        assert avc_is_plain(b"\x67" + data) is plain


class Packet(bytes):
    """What `without_disposable` asks of a packet; its bytes are two masks and one of places that it ends."""

    is_keyframe = False
    settings = False

    def iter_sidedata(self) -> Iterator[Any]:
        yield from [SimpleNamespace(data_type="new_extradata")] * self.settings


CODEC = SimpleNamespace(codec=SimpleNamespace(canonical_name="any"), extradata=None)
masks = st.tuples(*[st.integers(0, 15)] * 3).map(lambda m: Packet([m[0], m[1], m[2] & m[0]]))


@pytest.fixture(scope="module")
def any_rule() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(disposable.RULES, "any", lambda packets, _: [Use(*p) for p in packets])
        yield


def referred(packets: list[list[tuple[int, int, int]]], wanted: list[int]) -> set[int]:
    """`wanted` and, over and over, what any of them may have read: places fill up from the first packet to the last.

    Args:
        packets: (places filled, places read, places that are emptied before) of every frame in each.
    """
    places: list[set[int]] = [set() for _ in range(8)]
    reads: list[set[int]] = []
    for number, frames in enumerate(packets):
        reads.append(set())
        for fills, read, ends in frames:
            reads[-1].update(*(places[bit] for bit in range(8) if read >> bit & 1))
            for bit in range(8):
                places[bit] = set() if ends >> bit & 1 else places[bit]
                places[bit] |= {number} if fills >> bit & 1 else set()
    needed, fresh = set[int](), set(wanted)
    while fresh:
        needed |= fresh
        fresh = set().union(*(reads[n] for n in fresh)) - needed
    return needed


@given(packets=st.lists(masks, min_size=1, max_size=12), data=st.data())
def test_what_is_left_is_what_the_wanted_refer_to(
    any_rule: None, packets: list[Packet], data: st.DataObject
) -> None:
    wanted = data.draw(st.lists(st.booleans(), min_size=len(packets), max_size=len(packets)))
    left = without_disposable(packets, np.array(wanted), CODEC)
    needed = referred([[(p[0], p[1], p[2])] for p in packets], [n for n, seen in enumerate(wanted) if seen])
    assert [id(p) for p in left] == [id(packets[n]) for n in sorted(needed)]


def test_new_settings_in_a_packet_keep_all_of_them(any_rule: None) -> None:
    packets = [Packet([0, 0, 0]) for _ in range(4)]
    wanted = np.array([False, False, False, True])
    assert without_disposable(packets, wanted, CODEC) == packets[3:]
    packets[1].settings = True
    assert without_disposable(packets, wanted, CODEC) == packets


@given(data=st.binary(max_size=80), extradata=st.sampled_from([b"", b"\1" * 30, b"\x81\0\0\0\x0a\x01"]))
def test_no_bytes_upset_the_readers(data: bytes, extradata: bytes) -> None:
    for rule in (disposable.RULES[codec] for codec in ("h264", "hevc", "av1")):
        for packet in (data, b"\0\0\1" + data, b"\0\0\0" + bytes([len(data)]) + data):
            assert len(rule([memoryview(packet)], extradata)) == 1
    for hevc in (False, True):
        assert all(nal_units(data, extradata, hevc=hevc))
    for sequence in (data, *avc_sequences(data), *avc_sequences(b"\1" + data)):
        with suppress(UnreadError):
            avc_is_plain(sequence)
