"""The demo's files: whole, readable by FFmpeg, the same however they are written."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from coaug.pipelines.demo import write, write_demo
from coaug.pipelines.demo.encode import FORMATS
from coaug.pipelines.demo.events import EVENTS
from coaug.pipelines.demo.recording import Recording

CODECS = {".mp4": ("h264", "aac"), ".webm": ("vp9", "opus"), ".avi": ("mpeg4", "mp3float")}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_demo(tmp_path_factory.mktemp("demo"), train=4, test=2, workers=1)


def _files(folder: Path) -> dict[str, str]:
    """Path below the folder -> digest of the decoded pictures and of the sound."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix in FORMATS)
    return {str(path.relative_to(folder)): _digest(path) for path in paths}


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with av.open(str(path)) as file:
        for frame in file.decode(file.streams.video[0], file.streams.audio[0]):
            digest.update(frame.to_ndarray().tobytes())
    return digest.hexdigest()


def test_layout_is_split_then_class(demo: Path) -> None:
    names = [Path(name).parts[:2] for name in _files(demo)]
    classes = list(EVENTS)
    assert sorted(names) == sorted(
        [("train", name) for name in classes[:4]] + [("test", name) for name in classes[:2]]
    )
    assert len(classes) >= 16


@pytest.mark.parametrize("suffix", sorted(FORMATS))
@pytest.mark.parametrize("channels", [1, 2])
def test_every_format_holds_what_was_rendered(suffix: str, channels: int, tmp_path: Path) -> None:
    recording = Recording.draw("train", 0, 6)
    score = dataclasses.replace(recording.score, seconds=1.0)
    look = dataclasses.replace(recording.look, rate=Fraction(30000, 1001))
    recording = dataclasses.replace(recording, score=score, look=look, channels=channels, sample_rate=48000)
    FORMATS[suffix].write(tmp_path / f"film{suffix}", recording)
    with av.open(str(tmp_path / f"film{suffix}")) as file:
        picture, sound = file.streams.video[0], file.streams.audio[0]
        assert (picture.codec_context.name, sound.codec_context.name) == CODECS[suffix]
        assert sound.codec_context.layout.nb_channels == channels
        frames = list(file.decode(picture))
    times = np.array([float(frame.time) for frame in frames])
    assert np.allclose(
        times - times[0], np.arange(30) * 1001 / 30000, atol=1.1e-3
    )  # webm counts milliseconds
    for frame, pixels in zip(frames, recording.frames(), strict=True):
        error = frame.to_ndarray(format="rgb24").astype(float) - pixels
        assert np.abs(error).mean() < 12


def test_sound_and_picture_are_aligned_in_the_files(tmp_path: Path) -> None:
    recording = Recording.draw("train", 0, 2)
    recording = dataclasses.replace(recording, sample_rate=48000, channels=1)
    for suffix, encoder in FORMATS.items():
        encoder.write(tmp_path / f"film{suffix}", recording)
        assert abs(_lag(tmp_path / f"film{suffix}", recording.samples()[0])) < 0.003


def _lag(path: Path, expected: np.ndarray) -> float:
    """Seconds by which the decoded sound, placed by its time stamps, comes late."""
    with av.open(str(path)) as file:
        picture = next(file.decode(video=0))
        assert float(picture.time) < 0.005
        file.seek(0)
        blocks = [(float(frame.time), frame.to_ndarray()) for frame in file.decode(audio=0)]
    wave = np.concatenate([block.reshape(-1) for _, block in blocks]).astype(np.float64)
    size = 2 ** int(np.ceil(np.log2(len(wave) + len(expected))))
    match = np.fft.irfft(np.fft.rfft(wave, size) * np.conj(np.fft.rfft(expected.astype(np.float64), size)))
    shift = int(match.argmax())
    return (shift - size if shift > size / 2 else shift) / 48000 + blocks[0][0]


def test_parallel_and_serial_runs_write_the_same_films(demo: Path, tmp_path: Path) -> None:
    write_demo(tmp_path, train=2, test=1, workers=2)
    ours, serial = _files(tmp_path), _files(demo)
    assert len(ours) == 3
    assert all(serial[name] == digest for name, digest in ours.items())


def test_a_complete_set_is_left_alone(demo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "_write_all", lambda *_: pytest.fail("written again"))
    write_demo(demo, train=4, test=2)


def test_a_killed_run_goes_on(demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encode, done = write.FORMATS[".mp4"].__class__.write, []

    def kill(self: object, path: Path, recording: Recording) -> None:
        if len(done) == 2:
            path.write_bytes(b"half a film")
            raise KeyboardInterrupt
        done.append(path)
        encode(self, path, recording)  # type: ignore[arg-type]

    monkeypatch.setattr(write.FORMATS[".mp4"].__class__, "write", kill)
    with pytest.raises(KeyboardInterrupt):
        write_demo(tmp_path, train=4, test=0, workers=1)
    assert json.loads((tmp_path / "demo.json").read_text())["complete"] is False
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.suffix in FORMATS}
    assert len(before) == 2

    monkeypatch.setattr(write.FORMATS[".mp4"].__class__, "write", encode)
    write_demo(tmp_path, train=4, test=0, workers=1)
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    assert not list(tmp_path.rglob("*.part"))
    serial = _files(demo)
    assert all(serial[name] == digest for name, digest in _files(tmp_path).items())


def test_other_numbers_replace_the_set(tmp_path: Path) -> None:
    write_demo(tmp_path, train=1, test=0, workers=1)
    write_demo(tmp_path, train=0, test=1, workers=1)
    assert [name.split("/")[0] for name in _files(tmp_path)] == ["test"]


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "holiday.mp4").write_bytes(b"precious")
    with pytest.raises(ValueError, match=r"holds no demo\.json"):
        write_demo(tmp_path, train=1, test=1)
    assert (tmp_path / "holiday.mp4").exists()
