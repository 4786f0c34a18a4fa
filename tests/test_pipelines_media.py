"""Windows out of files, against a full decode of the same file by a few plain lines."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from media import Clip, write_clip
from media import read_audio as whole_audio
from media import read_frames as whole_frames

from coaug.pipelines.media import Deadline, MediaError, audio_rate, open_media, read_audio, read_frames
from coaug.pipelines.planes import Cutter

FORMATS = {  # name -> encoder, sample format, rate, layout
    "u8.wav": ("pcm_u8", "u8", 8000, "mono"),
    "s16.wav": ("pcm_s16le", "s16", 44100, "stereo"),
    "s24.wav": ("pcm_s24le", "s32", 48000, "stereo"),
    "s32.wav": ("pcm_s32le", "s32", 22050, "mono"),
    "f32.wav": ("pcm_f32le", "flt", 44100, "5.1"),
    "f64.wav": ("pcm_f64le", "dbl", 16000, "mono"),
    "s16.flac": ("flac", "s16", 44100, "stereo"),
    "s24.flac": ("flac", "s32", 48000, "stereo"),
    "a.mp3": ("libmp3lame", "fltp", 44100, "stereo"),
    "aac.mp4": ("aac", "fltp", 44100, "stereo"),
    "aac51.mp4": ("aac", "fltp", 48000, "5.1"),
    "aac.mkv": ("aac", "fltp", 44100, "mono"),
    "opus.webm": ("libopus", "flt", 48000, "stereo"),
    "opus.ogg": ("libopus", "flt", 48000, "mono"),
    "vorbis.ogg": ("vorbis", "fltp", 44100, "stereo"),
}
OPTIONS = {"strict": "-2", "aac_pns": "0"}  # AAC's noise substitution is random: no two decoders agree on it
EXACT = {"wav", "flac"}
MILLISECONDS = ("aac.mkv", "opus.webm")
SECONDS = 4


@pytest.fixture(scope="session")
def sound_files(media_dir: Path) -> dict[str, Path]:
    folder = media_dir / "formats"
    folder.mkdir()
    return {name: encode(folder / name, *options) for name, options in FORMATS.items()}


def encode(path: Path, codec: str, form: str, rate: int, layout: str) -> Path:
    """Noise and tones, different in every channel."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=rate, layout=layout, options=OPTIONS)
        stream.format = form
        channels, rng = stream.codec_context.layout.nb_channels, np.random.default_rng(0)
        t = np.arange(SECONDS * rate) / rate
        tones = np.stack([np.sin(2 * np.pi * (300 + 170 * c) * t * (1 + 0.1 * t)) for c in range(channels)])
        data = (0.3 * tones + 0.02 * rng.standard_normal(tones.shape)).astype(np.float32)
        resampler = av.AudioResampler(form, layout, rate)
        for first in range(0, data.shape[1], 4096):
            part = np.ascontiguousarray(data[:, first : first + 4096])
            frame = av.AudioFrame.from_ndarray(part, "fltp", layout)
            frame.sample_rate, frame.pts, frame.time_base = rate, first, Fraction(1, rate)
            for converted in resampler.resample(frame):
                container.mux(stream.encode(converted))
        container.mux(stream.encode(None))
    return path


def window(path: Path, first: int, last: int) -> np.ndarray:
    deadline = Deadline(10.0)
    with open_media(path, deadline) as container:
        return read_audio(container, first, last, deadline)


def expected(path: Path, first: int, last: int) -> np.ndarray:
    """The same samples of a full decode; zeros where there is no sound."""
    start, rate, pcm = whole_audio(path)
    out, begin = np.zeros(last - first, np.float32), round(start * rate)
    for k in range(max(first, begin), min(last, begin + len(pcm))):
        out[k - first] = pcm[k - begin]
    return out


def windows(rate: int) -> list[tuple[int, int]]:
    """Some inside, some across each end, one wholly before and one wholly after."""
    rng = np.random.default_rng(rate)
    inside = [(int(a), int(a) + int(n)) for a, n in rng.integers(1, int(1.5 * rate), (5, 2))]
    late = [(int(2.4 * rate) + 7, int(3.5 * rate) + 1)]
    edges = [(-rate // 2, rate // 3), (int(3.7 * rate), int(4.6 * rate)), (0, 1)]
    return inside + late + edges


@pytest.mark.parametrize("name", [name for name in FORMATS if name not in MILLISECONDS])
def test_windows_are_sample_exact(sound_files: dict[str, Path], name: str) -> None:
    path, rate = sound_files[name], FORMATS[name][2]
    for first, last in windows(rate):
        ours, theirs = window(path, first, last), expected(path, first, last)
        assert ours.dtype == np.float32
        if path.suffix[1:] in EXACT:
            np.testing.assert_allclose(ours, theirs, atol=1e-7)
        else:  # decoders start from a state that is not quite that of a full decode
            assert relative_error(ours, theirs) < 1e-3, (first, last)


@pytest.mark.parametrize("name", MILLISECONDS)
def test_matroska_windows_are_exact_to_its_clock(sound_files: dict[str, Path], name: str) -> None:
    """Matroska stores times to 1 ms, not to a sample: a window may be that much early or late, and no more."""
    path, rate = sound_files[name], FORMATS[name][2]
    slack = rate // 1000
    for first, last in windows(rate):
        if last - first > 10 * slack:
            ours, wide = window(path, first, last), expected(path, first - slack, last + slack)
            shifted = [wide[k : k + last - first] for k in range(2 * slack + 1)]
            assert min(relative_error(ours[slack:-slack], s[slack:-slack]) for s in shifted) < 2e-3


def relative_error(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.sqrt(np.square(ours - theirs).mean() / max(np.square(theirs).mean(), 1e-6)))


@pytest.mark.parametrize("name", ["s16.wav", "s16.flac", "aac.mp4"])
def test_where_there_is_no_sound_there_are_zeros(sound_files: dict[str, Path], name: str) -> None:
    rate = FORMATS[name][2]
    assert not window(sound_files[name], -2 * rate, -rate).any()
    assert not window(sound_files[name], 6 * rate, 7 * rate).any()


def test_rate_is_the_files(sound_files: dict[str, Path]) -> None:
    for name, path in sound_files.items():
        with open_media(path, Deadline(10.0)) as container:
            assert audio_rate(container) == FORMATS[name][2]


def test_sound_that_starts_late_is_in_its_place(media_dir: Path) -> None:
    """A click at 2 s of presentation time is found at 2 s whatever the track's start time."""
    for suffix in (".mp4", ".mkv", ".webm", ".mov"):
        clip = write_clip(
            media_dir / f"late-sound{suffix}",
            frames=90,
            audio_start=0.7,
            audio_seconds=2.0,
            sound=lambda t: 0.9 * np.sin(2 * np.pi * 2000 * t) * (t >= 2.0),
        )
        with open_media(clip.path, Deadline(10.0)) as container:
            rate = audio_rate(container)
        heard = np.flatnonzero(np.abs(window(clip.path, 0, 3 * rate)) > 0.3)[0] / rate
        assert heard == pytest.approx(2.0, abs=0.003), suffix


# --- pictures


@pytest.mark.parametrize("fixture", ["mp4", "webm", "avi", "ntsc", "vfr", "late"])
def test_frames_are_those_of_a_full_decode(fixture: str, request: pytest.FixtureRequest) -> None:
    clip: Clip = request.getfixturevalue(fixture)
    frames = whole_frames(clip.path)
    pts = np.array([float(t) for t, _ in frames])
    rng = np.random.default_rng(1)
    for count in (1, 5, 12):
        low, high = sorted(rng.uniform(pts[0] - 0.5, pts[-1] + 0.5, 2))
        instants = rng.uniform(low, high, count)  # any order, before the first and after the last too
        instants[0] = rng.choice(pts)  # exactly on a frame
        with open_media(clip.path, Deadline(10.0)) as container:
            found = read_frames(container, instants, Deadline(10.0))
        number = [max(int((pts <= t + 1e-6).sum()) - 1, 0) for t in instants]
        np.testing.assert_allclose(found.pts, pts[number], atol=1e-9)
        for n, i in zip(number, found.index, strict=True):
            assert np.array_equal(found.pixels[i], frames[n][1])
        assert len(found.pixels) == len(set(number))


def test_frames_can_be_made_smaller(mp4: Clip) -> None:
    with open_media(mp4.path, Deadline(10.0)) as container:
        found = read_frames(container, np.array([1.0]), Deadline(10.0), Cutter(size=(48, 32)))
    assert found.pixels.shape == (1, 48, 48)


# --- failures


def test_what_cannot_be_opened_says_why(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("nothing to see")
    for name in ("missing.mp4", "empty.mp4", "text.mp4", "."):
        with pytest.raises(MediaError) as caught:
            open_media(tmp_path / name, Deadline(5.0))
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) > 5


def test_a_named_pipe_is_refused(tmp_path: Path) -> None:
    """Opening one would wait for a writer for ever, and FFmpeg's time limit does not reach into the system call."""
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(MediaError, match="regular file"):
        open_media(tmp_path / "pipe.mp4", Deadline(1.0))


def test_the_deadline_ends_reading(mp4: Clip) -> None:
    deadline = Deadline(10.0)
    with open_media(mp4.path, deadline) as container:
        deadline.end = 0.0  # long past
        with pytest.raises(MediaError, match="deadline of 10 s"):
            read_frames(container, np.array([1.0]), deadline)
        with pytest.raises(MediaError, match="deadline of 10 s"):
            read_audio(container, 0, 1000, deadline)


def test_a_truncated_file_gives_what_it_has_or_says_so(webm: Clip, tmp_path: Path) -> None:
    """Every prefix either yields pictures of the right time or raises MediaError; nothing else comes out."""
    data = webm.path.read_bytes()
    pts = np.array([float(t) for t in webm.pts])
    for share in (0.02, 0.1, 0.3, 0.6, 0.9):
        (tmp_path / "cut.webm").write_bytes(data[: int(len(data) * share)])
        try:
            with open_media(tmp_path / "cut.webm", Deadline(5.0)) as container:
                found = read_frames(container, np.array([0.5, 2.5]), Deadline(5.0))
        except MediaError:
            continue
        assert np.isin(found.pts.round(3), pts.round(3)).all()
