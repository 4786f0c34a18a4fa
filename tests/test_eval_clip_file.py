"""The film that `coaug view --mp4` writes, decoded again."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from media import Clip, read_audio, read_frames, read_number, write_clip

from coaug.eval.clip_file import period, write_clips
from coaug.eval.view import ViewError, look, view

AAC = 1024  # samples of a frame: what an encoder may smear an onset by


def onsets(times: np.ndarray, level: np.ndarray, least: float) -> np.ndarray:
    """When `level` rises above `least` after being below."""
    above = level > least
    return times[np.flatnonzero(above & ~np.concatenate([[False], above[:-1]]))]


@pytest.mark.parametrize(("preset", "rate", "fps"), [("svaclr", 24000, 30), ("svaclr-demo", 20000, 7.5)])
def test_flash_and_beep_come_together_where_they_should(
    events: Clip, tmp_path: Path, preset: str, rate: int, fps: float
) -> None:
    overrides = [f"data.audio.rate={rate}", "data.video.size=50"]
    recipes = ("", "speed(2)", "reverse(1)")
    sheet = look(events.path, preset, 0.2, overrides, recipes=recipes)
    write_clips(sheet, path := tmp_path / "clips.mp4")
    frames = read_frames(path)
    times, light = np.array([float(t) for t, _ in frames]), np.array([p.mean() for _, p in frames])
    np.testing.assert_allclose(np.diff(times), 1 / fps, atol=1e-3)
    assert frames[0][1].shape == (300, 300, 3)
    begin, heard_rate, pcm = read_audio(path)
    heard = begin + np.arange(len(pcm)) / heard_rate
    loud = np.convolve(np.abs(pcm), np.ones(64) / 64, "same")
    # flashes and beeps begin at 0.5, 1.5 … s of the file and last 0.1 s; backwards their ends come first
    seconds, every = sheet.config.clip_seconds, period(sheet)
    expected = [0.3, every + 0.15, every + 0.65, 2 * every + seconds - 0.4]
    beeps = onsets(heard, loud, 0.1)
    beeps = beeps[np.concatenate([[True], np.diff(beeps) > 0.05])]
    np.testing.assert_allclose(beeps, expected, atol=AAC / heard_rate)
    if fps == 30:
        np.testing.assert_allclose(onsets(times, light, 128), expected, atol=1 / fps)


def test_views_follow_one_another_with_black_and_silence_between(mp4: Clip, tmp_path: Path) -> None:
    sheet = look(mp4.path, overrides=["data.video.size=128"], start=0.0, recipes=("", "speed(2)"))
    write_clips(sheet, path := tmp_path / "clips.mp4")
    pictures = [picture for _, picture in read_frames(path)]
    assert period(sheet) == 1.5
    assert len(pictures) == 30 + 15 + 30
    assert pictures[0].shape == (256, 256, 3)
    assert max(picture.max() for picture in pictures[30:45]) < 8
    for take, first in zip(sheet.takes, (0, 45), strict=True):
        assert take.frames is not None
        for shown, wanted in zip(pictures[first : first + 30], take.frames, strict=True):
            enlarged = np.kron(wanted, np.ones((2, 2, 1)))
            assert np.abs(shown - enlarged).mean() < 4  # of 255: what H.264 loses
    begin, rate, pcm = read_audio(path)
    at = round(-begin * rate)
    assert np.abs(pcm[at + round(1.1 * rate) : at + round(1.4 * rate)]).max() < 1e-3
    for view_at, take in zip((0.0, 1.5), sheet.takes, strict=True):
        assert take.waveform is not None
        heard = pcm[at + round(view_at * rate) :][: len(take.waveform)]
        inner = slice(2000, -2000)
        assert np.corrcoef(heard[inner], take.waveform[inner])[0, 1] > 0.99


def test_one_sided_files_make_one_sided_films(tmp_path: Path) -> None:
    for suffix, codec, kinds in ((".wav", "auto", ["audio"]), (".webm", None, ["video"])):
        file = write_clip(tmp_path / f"one{suffix}", audio_codec=codec).path
        _, film = view(file, "svaclr-demo", tmp_path / "sheet.png", mp4=tmp_path / "new" / "clips.mp4")
        with av.open(str(film)) as container:
            assert [stream.type for stream in container.streams] == kinds
            assert sum(1 for _ in container.decode(container.streams[0])) > 10


def test_what_cannot_be_heard_is_said_in_one_line(mp4: Clip, tmp_path: Path) -> None:
    on_windows = ["data.audio.speed_on=spectrogram"]
    with pytest.raises(ViewError, match=r"clips\.mp4: data\.audio\.speed_on=spectrogram makes no sound"):
        view(mp4.path, "svaclr-demo", tmp_path / "s.png", None, on_windows, mp4=tmp_path / "clips.mp4")
    assert not list(tmp_path.iterdir())
    assert view(mp4.path, "svaclr-demo", tmp_path / "s.png", None, on_windows) == [tmp_path / "s.png"]
    with pytest.raises(ViewError, match=r"written as an \.mp4"):
        view(mp4.path, "svaclr-demo", tmp_path / "s.png", mp4=tmp_path / "clips.avi")
    (tmp_path / "file").touch()
    with pytest.raises(ViewError, match="cannot be written"):
        view(mp4.path, "svaclr-demo", tmp_path / "s.png", mp4=tmp_path / "file" / "clips.mp4")


def test_small_pictures_keep_their_numbers(mp4: Clip, tmp_path: Path) -> None:
    """An odd size is enlarged to an even one."""
    sheet = look(
        mp4.path, "svaclr-demo", 0.5, ["data.video.size=65", "data.video.crop=centre"], recipes=("",)
    )
    write_clips(sheet, path := tmp_path / "clips.mp4")
    (_, picture), *_ = read_frames(path)
    assert picture.shape == (260, 260, 3)
    assert sheet.takes[0].frames is not None
    assert read_number(picture) == read_number(sheet.takes[0].frames[0])
