from __future__ import annotations

import struct
from pathlib import Path

import librosa
import numpy as np
import pytest
from media import Clip, read_number, tone, write_clip

from coaug.config import ConfigError
from coaug.eval.sheet import Sheet, draw
from coaug.eval.view import ViewError, look, mel_centres, view
from coaug.pipelines.config import AudioConfig, DataConfig

SMALL = ("data.video.size=64",)


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    """6 s with burnt-in frame numbers, square so that the centre crop is the whole, and a tone of 400 Hz."""
    path = tmp_path_factory.mktemp("view") / "numbers.mp4"
    return write_clip(path, size=(64, 64), frames=180, sound=tone(400.0))


@pytest.fixture(scope="module")
def shown(numbers: Clip) -> Sheet:
    return look(numbers.path, start=0.5, overrides=SMALL)


def test_frames_show_the_numbers_of_their_times_at_every_speed(shown: Sheet) -> None:
    assert [take.speed for take in shown.takes] == [1, 2, 4]
    for take in shown.takes:
        instants = 0.5 + take.speed * (np.arange(30) + 0.5) / 30
        expected = np.floor(instants * 30 + 1e-6).astype(int)
        assert take.frames is not None
        assert take.frames.shape == (30, 64, 64, 3)
        assert [read_number(frame) for frame in take.frames] == expected.tolist()
        np.testing.assert_allclose(take.pts, expected / 30, atol=1e-4)


def test_frames_have_the_values_of_the_file(shown: Sheet) -> None:
    frames = shown.takes[0].frames
    assert frames is not None
    white, black = frames[0, 2:10, 2:6].mean(), frames[0, 2:10, -6:-2].mean()
    assert white == pytest.approx(235, abs=8)  # as burnt in, normalised and back
    assert black == pytest.approx(16, abs=8)


def test_a_tone_rises_by_an_octave_with_every_doubling(shown: Sheet) -> None:
    for take, hertz in zip(shown.takes, (400, 800, 1600), strict=True):
        assert take.decibels is not None
        assert take.decibels.shape == (40, 99)
        assert take.loudest == np.abs(shown.bands - hertz).argmin()
        assert (take.decibels.argmax(axis=0) == take.loudest).all()


def test_windows_begin_together_and_the_fast_ones_are_longer(shown: Sheet) -> None:
    starts = [take.audio_pts[0] for take in shown.takes]
    np.testing.assert_allclose(starts, shown.start, atol=1e-3)
    assert shown.start == 0.5
    spans = [take.audio_pts[1] - take.audio_pts[0] for take in shown.takes]
    np.testing.assert_allclose(spans, [1, 2, 4], atol=1e-3)


def test_mel_centres_are_slaneys() -> None:
    for rate, mels in ((24000, 40), (44100, 64), (1600, 10)):
        expected = librosa.mel_frequencies(n_mels=mels + 2, fmin=0, fmax=rate / 2)[1:-1]
        np.testing.assert_allclose(mel_centres(DataConfig(audio=AudioConfig(rate=rate, mels=mels))), expected)


def test_the_clips_lie_in_the_middle_by_default(numbers: Clip) -> None:
    assert look(numbers.path, overrides=SMALL).start == pytest.approx(1.0, abs=0.03)


def test_a_file_that_begins_late_keeps_its_own_times(late: Clip) -> None:
    sheet = look(late.path, overrides=SMALL, start=1.4)
    assert sheet.start == pytest.approx(1.4, abs=0.02)
    assert sheet.takes[0].audio_pts[0] == pytest.approx(sheet.start, abs=1e-4)
    assert sheet.takes[0].pts[0] == pytest.approx(1.4, abs=0.04)


def test_speeds_that_do_not_fit_are_named(mp4: Clip, shown: Sheet) -> None:
    short = look(mp4.path, overrides=SMALL)
    assert [take.speed for take in short.takes] == [1, 2]
    assert short.notes == ("too short for 4×",)
    assert "too short for 4×" in short.facts
    assert shown.notes == ()


@pytest.mark.parametrize("suffix", [".wav", ".webm"])
def test_one_sided_files_show_what_there_is(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"one{suffix}"
    write_clip(file, frames=75, audio_codec=None if suffix == ".webm" else "auto")
    sheet = look(file, overrides=SMALL)
    assert [take.frames is None for take in sheet.takes] == [suffix == ".wav"] * 2
    assert [take.decibels is None for take in sheet.takes] == [suffix == ".webm"] * 2
    assert sheet.notes[0] == {".wav": "no picture", ".webm": "no sound"}[suffix]
    assert draw(sheet).get_size_inches()[0] == 14


def test_a_silent_track_is_said_to_be_silent(silent: Clip) -> None:
    assert look(silent.path, overrides=SMALL).notes[0] == "silent"


def test_the_sheet_is_written(mp4: Clip, tmp_path: Path) -> None:
    path = view(mp4.path, "svaclr-demo", tmp_path / "new" / "sheet.png", overrides=["data.audio.mels=32"])
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", data[16:24])
    assert width == 1400
    assert 500 < height < 1000  # two rows


def test_the_sheet_is_named_after_the_file(
    mp4: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert view(mp4.path, "svaclr-demo") == Path("plain.png")
    assert Path("plain.png").is_file()


def test_bad_files_give_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("not a film\n" * 100)
    (tmp_path / "empty.mp4").touch()
    brief = write_clip(tmp_path / "brief.mp4", frames=15).path
    for file, said in (
        (tmp_path / "absent.mp4", "cannot be read"),
        (tmp_path, "not a regular file"),
        (tmp_path / "text.mp4", "not a media file"),
        (tmp_path / "empty.mp4", "empty file"),
        (brief, "a clip needs 1.00 s"),
    ):
        with pytest.raises(ViewError, match=said) as caught:
            look(file)
        assert str(file) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_start_outside_the_recording_is_refused(mp4: Clip) -> None:
    for start in (-1.0, 2.5, float("nan")):
        with pytest.raises(ViewError, match=r"a clip can start at 0\.0\d to [12]\.\d\d s"):
            look(mp4.path, start=start)


def test_bad_options_are_refused(mp4: Clip, tmp_path: Path) -> None:
    with pytest.raises(ViewError, match="only data"):
        look(mp4.path, overrides=["optim.lr=0.1"])
    with pytest.raises(ConfigError, match=r"data\.video\.frame"):
        look(mp4.path, overrides=["data.video.frame=3"])
    with pytest.raises(ConfigError, match="no preset"):
        look(mp4.path, "nothing")
    with pytest.raises(ViewError, match=r"\.png"):
        view(mp4.path, out=tmp_path / "sheet.xyz")
    (tmp_path / "file").touch()
    with pytest.raises(ViewError, match="cannot be written"):
        view(mp4.path, "svaclr-demo", out=tmp_path / "file" / "sheet.png")
