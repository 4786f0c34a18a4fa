"""Windows of sound are a full decode's, bit for bit: every codec, container, rate and layout, after a seek.

The reference decodes the whole file once with PyAV and counts samples from the first one's presentation time.
"""

from __future__ import annotations

import io
from functools import reduce
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from lists import listed, reading
from media import copy_packets, write_clip, write_sound

from coaug.pipelines.media import Deadline, audio_rate, open_media, read_audio, stream_of
from coaug.pipelines.pcm import priming, runs
from coaug.pipelines.samples import Run, counted

SECONDS = 4.0
WINDOWS = 200  # at least, of every codec
MADE: dict[str, tuple[str, str, int, str, dict[str, Any]]] = {  # encoder, sample format, rate, layout, how
    "aac.mp4": ("aac", "fltp", 44100, "stereo", {}),
    "aac-51.mp4": ("aac", "fltp", 48000, "5.1", {}),
    "aac-71.mp4": ("aac", "fltp", 48000, "7.1", {}),  # more planes than an AVFrame has places for
    "aac.m4a": ("aac", "fltp", 22050, "mono", {"start": 0.61}),
    "aac.mkv": ("aac", "fltp", 44100, "stereo", {}),
    "aac-late.mkv": ("aac", "fltp", 44100, "mono", {"start": 1.2345}),
    "aac.ts": ("aac", "fltp", 44100, "stereo", {"start": 1.4}),
    "aac.flv": ("aac", "fltp", 44100, "mono", {}),
    "aac.aac": ("aac", "fltp", 48000, "mono", {}),
    "mp3.mp3": ("libmp3lame", "fltp", 44100, "stereo", {}),
    "mp3-low.mp3": ("libmp3lame", "fltp", 22050, "mono", {"options": {"b": "24000"}}),
    "mp3-vbr.mp3": ("libmp3lame", "fltp", 48000, "stereo", {"options": {"qscale": "2"}}),
    "mp3.mkv": ("libmp3lame", "fltp", 48000, "mono", {"start": 0.7777}),
    "mp3.avi": ("libmp3lame", "fltp", 44100, "stereo", {}),
    "mp3.ts": ("libmp3lame", "fltp", 44100, "mono", {}),
    "opus.webm": ("libopus", "flt", 48000, "stereo", {}),
    "opus-late.webm": ("libopus", "flt", 48000, "mono", {"start": 2.0007}),
    "opus.ogg": ("libopus", "flt", 48000, "mono", {}),
    "opus-51.ogg": ("libopus", "flt", 48000, "5.1", {}),
    "opus.mp4": ("libopus", "flt", 48000, "stereo", {"start": 0.5}),
    "vorbis.webm": ("vorbis", "fltp", 48000, "stereo", {"start": 1.1103}),
    "flac.flac": ("flac", "s16", 44100, "stereo", {}),
    "flac-51.flac": ("flac", "s32", 48000, "5.1", {}),
    "flac.mkv": ("flac", "s16", 22050, "mono", {"start": 0.3}),
    "flac.ogg": ("flac", "s16", 44100, "stereo", {"seconds": 10.0}),
    "flac.mp4": ("flac", "s16", 44100, "stereo", {"start": 0.2}),
    "alac.m4a": ("alac", "s16p", 44100, "stereo", {}),
    "pcm-u8.wav": ("pcm_u8", "u8", 8000, "mono", {}),
    "pcm.wav": ("pcm_s16le", "s16", 22050, "mono", {}),
    "pcm-s24.wav": ("pcm_s24le", "s32", 48000, "stereo", {}),
    "pcm-f32.wav": ("pcm_f32le", "flt", 44100, "5.1", {}),
    "pcm-f64.wav": ("pcm_f64le", "dbl", 16000, "mono", {}),
    "pcm.avi": ("pcm_s16le", "s16", 44100, "stereo", {}),
    "pcm.mov": ("pcm_s16le", "s16", 48000, "stereo", {"start": 0.9}),
    "pcm.mkv": ("pcm_s16le", "s16", 44100, "stereo", {}),
}
COPIED: dict[str, tuple[str, dict[str, Any]]] = {  # the same packets elsewhere
    "aac-edit.mp4": ("aac.mp4", {"later": -0.7321}),  # hidden by an edit list up to the middle of a packet
    "aac-jitter.mp4": ("aac.mkv", {}),  # Matroska's milliseconds as multiples of 1/44100 s
    "aac-pieces.mp4": ("aac.mp4", {"options": {"movflags": "frag_keyframe+empty_moov"}}),
    "vorbis.mkv": ("vorbis-short.ogg", {"later": 0.4321}),
}
SHORT = "vorbis-short.ogg"  # by libvorbis, whose packets are short and long
FILES = [*MADE, *COPIED, SHORT]
LISTED = {"aac.mp4", "aac-51.mp4", "aac-71.mp4", "aac.m4a", "aac-edit.mp4", "aac-pieces.mp4"}
LISTED |= {"flac.flac", "flac-51.flac", "flac.mp4", "alac.m4a"}  # stamps count samples


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("sounds")
    for name, (*form, how) in MADE.items():
        write_sound(folder / name, *form, **({"seconds": SECONDS} | how))
    clicks = np.random.default_rng(0).standard_normal((round(SECONDS * 44100), 2)) * 0.01
    clicks[::9001] = 0.9
    soundfile.write(folder / SHORT, clicks, 44100, format="OGG", subtype="VORBIS")
    for name, (source, how) in COPIED.items():
        copy_packets(folder / source, folder / name, **how)
    return {name: folder / name for name in FILES}


def whole(path: Path) -> tuple[int, int, np.ndarray]:
    """(rate, number of the first sample, mono sound) of every sample that FFmpeg decodes, in order."""
    with av.open(str(path)) as container:
        frames = [f for f in container.decode(audio=0) if f.pts is not None]
    rate, mono = frames[0].sample_rate, []
    position = first = round(float(frames[0].pts * frames[0].time_base) * rate)
    for frame in frames:
        due = round(float(frame.pts * frame.time_base) * rate)
        if due - position > 0.1 * rate:  # a hole stays silent
            mono.append(np.zeros(due - position, np.float32))
            position = due
        mono.append(mixed(frame))
        position += frame.samples
    return rate, first, np.concatenate(mono)


def mixed(frame: Any) -> np.ndarray:
    """The channels' mean, full scale 1."""
    count = frame.layout.nb_channels
    if count == 8 and frame.format.is_planar:  # PyAV would read a ninth plane
        (frame,) = av.AudioResampler(frame.format.packed, frame.layout, frame.sample_rate).resample(frame)
    data = frame.to_ndarray()
    channels = list(data) if frame.format.is_planar else [data[0, c::count] for c in range(count)]
    if data.dtype == np.uint8:
        return np.asarray((np.mean(channels, axis=0) - 128) / 128, np.float32)
    full = 1 if data.dtype.kind == "f" else 2.0 ** (8 * data.dtype.itemsize - 1)
    return reduce(np.add, [c.astype(np.float32) for c in channels]) / np.float32(count) / np.float32(full)


def expected(whole_file: tuple[int, int, np.ndarray], first: int, last: int) -> np.ndarray:
    """Samples [first, last); zeros where there is no sound."""
    _, begin, mono = whole_file
    padded = np.concatenate([np.zeros(last - first), mono, np.zeros(last - first)])
    low = min(max(first - begin + last - first, 0), len(padded) - (last - first))
    return np.asarray(padded[low : low + last - first], np.float32)


def windows(name: str, rate: int, begin: int, length: int) -> list[tuple[int, int]]:
    """A quarter of a second at speeds 1/2 to 4: anywhere, about both ends, far outside, and just a sample."""
    rng, codec = np.random.default_rng(sum(name.encode())), name.partition(".")[0].partition("-")[0]
    count = WINDOWS // sum(other.startswith(codec) for other in FILES) + 1
    spans = np.round(rng.choice([0.5, 1, 2, 4], count) * rate / 4).astype(int)
    spans[:2] = 1, 7
    place = rng.choice(3, count, p=[0.7, 0.15, 0.15])
    anywhere, near = rng.integers(0, length, count), rng.integers(-rate // 4, rate // 4, count)
    starts = begin + np.choose(place, [anywhere, near, length + near - rate // 4])
    starts[:3] = begin, begin - 2 * rate, begin + 2 * length
    return [(int(a), int(a + n)) for a, n in zip(starts, spans, strict=True)]


@pytest.mark.parametrize("name", FILES)
def test_windows_are_those_of_a_full_decode(sounds: dict[str, Path], name: str) -> None:
    path = sounds[name]
    rate, begin, mono = reference = whole(path)
    for first, last in windows(name, rate, begin, len(mono)):
        with open_media(path, Deadline(10.0)) as container:
            heard = read_audio(container, first, last, Deadline(10.0))
        assert heard.dtype == np.float32
        wrong = np.flatnonzero(heard != expected(reference, first, last))
        assert not len(wrong), (first - begin, last - begin, wrong[0], len(wrong))


@pytest.mark.parametrize("name", FILES)
def test_windows_read_by_the_list_are_those_of_a_full_decode(
    sounds: dict[str, Path], tmp_path: Path, name: str
) -> None:
    sample = listed(sounds[name], tmp_path / "x.packets")
    assert (sample is not None) == (name in LISTED)
    if sample is None:
        return
    rate, begin, mono = reference = whole(sounds[name])
    for first, last in windows(name, rate, begin, len(mono)):
        with reading(sounds[name], sample) as media:
            assert media.rate == rate
            heard = media.sound(first, last)
        assert np.array_equal(heard, expected(reference, first, last)), (first - begin, last - begin)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_sound_after_a_hole_stays_in_its_place(sounds: dict[str, Path], tmp_path: Path, suffix: str) -> None:
    plain = copy_packets(sounds["aac.mp4"], tmp_path / f"plain{suffix}")
    path = copy_packets(plain, tmp_path / f"hole{suffix}", hole=(1.5, 2.1))
    rate, begin, mono = whole(plain)
    mono[begin + int(1.5 * rate) : begin + int(2.1 * rate)] = 0
    for first in range(0, 3 * rate, rate // 3):
        with open_media(path, Deadline(10.0)) as container:
            heard = read_audio(container, first, first + rate // 2, Deadline(10.0))
        wrong = np.flatnonzero(heard != mono[first : first + rate // 2]) + first
        # packets do not begin exactly there, and the second one overlaps with another
        assert all(min(abs(k / rate - 1.5), abs(k / rate - 2.1)) < 0.05 for k in wrong)


@pytest.mark.parametrize("name", ["aac.mkv", "aac-late.mkv", "opus.webm", "mp3.mp3", "vorbis.mkv", "pcm.wav"])
def test_a_file_can_be_heard_again_without_opening_it_again(sounds: dict[str, Path], name: str) -> None:
    """From 0.1 s on: FFmpeg's AAC decoder keeps its overlap when flushed, and the start has no priming."""
    rate, begin, mono = reference = whole(sounds[name])
    with open_media(sounds[name], Deadline(10.0)) as container:
        for first, last in windows(name, rate, begin + rate // 10, len(mono))[2:12]:
            first = max(first, begin + rate // 10)
            heard = read_audio(container, first, last, Deadline(10.0))
            assert np.array_equal(heard, expected(reference, first, last)), (first, last)


@pytest.mark.parametrize("name", FILES)
def test_a_window_costs_its_samples_and_the_priming(sounds: dict[str, Path], name: str) -> None:
    """Plus a packet at either end, and what a coarse clock leaves in doubt; Matroska and Ogg seek far before it."""
    rate, begin, _ = whole(sounds[name])
    first, last = begin + int(2.6 * rate), begin + int(2.9 * rate)
    with open_media(sounds[name], Deadline(10.0)) as container:
        stream = stream_of(container, "audio")
        decoded = sum(len(data) for _, data in runs(container, stream, first, last, Deadline(10.0)))
        assert decoded <= last - first + (priming(stream.codec_context) + 0.03) * rate + 3 * 4608
        assert audio_rate(container) == rate


class Counted(io.FileIO):
    """A file that counts the bytes read from it."""

    read_bytes = 0

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(-1 if size is None else size)
        self.read_bytes += len(data)
        return data


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm", ".avi", ".ts"])
def test_sound_late_in_a_film_does_not_read_the_film(tmp_path: Path, suffix: str) -> None:
    apart = write_clip(tmp_path / f"apart{suffix.replace('.ts', '.mp4')}", frames=1200, gop=50).path
    film = copy_packets(apart, tmp_path / f"film{suffix}")  # picture and sound side by side
    with Counted(film) as file, av.open(file, buffer_size=4096) as container:
        opened = file.read_bytes
        read_audio(container, 35 * audio_rate(container), 36 * audio_rate(container), Deadline(10.0))
        assert file.read_bytes - opened < 0.2 * film.stat().st_size


@given(
    rate=st.sampled_from([22050, 32000, 44100, 48000]),
    block=st.sampled_from([120, 576, 1024, 1152, 4608]),
    origin=st.integers(0, 10**6),
    before=st.integers(0, 10**6),
    count=st.integers(1, 30),
    truncated=st.booleans(),
)
def test_milliseconds_tell_the_sample(
    rate: int, block: int, origin: int, before: int, count: int, truncated: bool
) -> None:
    """Whole blocks lie between a track's start and a run whose stamps are rounded, or cut, to 1 ms."""
    stamp = (lambda k: k * 1000 // rate) if truncated else (lambda k: round(k * 1000 / rate))
    places = origin + block * np.arange(before, before + count)
    due = [stamp(int(k)) * rate / 1000 for k in places]
    run = Run([block] * count, due)
    begin = round(stamp(origin) * rate / 1000)  # where a full decode puts its first sample
    assert counted(run, begin, block, slack=rate // 500 + 1) == begin + before * block
