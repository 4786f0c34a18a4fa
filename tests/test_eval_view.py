from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import librosa
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from media import Clip, read_number, tone, write_clip

from coaug.config import ConfigError
from coaug.eval.bands import band_centres, column_edges, ticks
from coaug.eval.sheet import draw
from coaug.eval.take import Sheet
from coaug.eval.view import ViewError, look, view
from coaug.pipelines.config import AudioConfig

SMALL = ("data.video.size=64",)
SPEEDS = ("", "speed(2)", "speed(4)")


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    """6 s with burnt-in frame numbers, square so that the centre crop is the whole, and a tone of 400 Hz."""
    path = tmp_path_factory.mktemp("view") / "numbers.mp4"
    return write_clip(path, size=(64, 64), frames=180, sound=tone(400.0))


@pytest.fixture(scope="module")
def shown(numbers: Clip) -> Sheet:
    return look(numbers.path, start=0.5, overrides=SMALL, recipes=SPEEDS)


def shown_numbers(sheet: Sheet, view: int) -> list[int | None]:
    frames = sheet.takes[view].frames
    assert frames is not None
    return [read_number(frame) for frame in frames]


def test_frames_show_the_numbers_of_their_times_at_every_speed(shown: Sheet) -> None:
    assert len(shown.takes) == 3
    for v, (take, speed) in enumerate(zip(shown.takes, (1, 2, 4), strict=True)):
        instants = 0.5 + speed * (np.arange(30) + 0.5) / 30
        expected = np.floor(instants * 30 + 1e-6).astype(int)
        assert take.frames is not None
        assert take.frames.shape == (30, 64, 64, 3)
        assert shown_numbers(shown, v) == expected.tolist()
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
        assert take.waveform is not None
        peak = np.abs(np.fft.rfft(take.waveform)).argmax()  # of a second: hertz
        assert peak == hertz


def test_clips_begin_together_and_the_fast_ones_are_longer(shown: Sheet) -> None:
    for take, speed in zip(shown.takes, (1, 2, 4), strict=True):
        np.testing.assert_allclose(take.audio_pts, (0.5, 0.5 + speed), atol=1e-3)
        for track in take.tracks.values():
            assert track.span == pytest.approx((0.5, 0.5 + speed), abs=1e-6)
            assert track.straight
            assert not track.toned
    assert [take.told for take in shown.takes] == [(), ("2 times as fast",), ("4 times as fast",)]


def test_recipes_lie_in_the_middle_by_default(numbers: Clip) -> None:
    sheet = look(numbers.path, overrides=SMALL, recipes=SPEEDS)
    assert sheet.takes[0].tracks["video"].span[0] == pytest.approx(1.0, abs=0.03)


def test_a_file_that_begins_late_keeps_its_own_times(late: Clip) -> None:
    take = look(late.path, overrides=SMALL, start=1.4, recipes=("",)).takes[0]
    assert take.tracks["audio"].span[0] == pytest.approx(1.4, abs=0.02)
    assert take.audio_pts[0] == pytest.approx(1.4, abs=0.02)
    assert take.pts[0] == pytest.approx(1.4, abs=0.04)


def test_a_preset_is_shown_as_the_training_loader_draws_it(numbers: Clip, tmp_path: Path) -> None:
    from coaug.config import build, read
    from coaug.pipelines.config import DataConfig
    from coaug.pipelines.index import index
    from coaug.pipelines.loader import AVLoader

    index([numbers.path.parent], tmp_path / "c.parquet")
    for preset, seed in (("tempssl", 3), ("avid-small", 4)):
        config = build(DataConfig, read(preset)["data"], "data.")
        with AVLoader(tmp_path / "c.parquet", config, batch_size=1, seed=seed, workers=0) as loader:
            batch = next(iter(loader))
        takes = look(numbers.path, preset, seed=seed).takes
        assert len(takes) == len(config.views)
        for v, take in enumerate(takes):
            np.testing.assert_array_equal(take.pts, batch.video_pts[0, v].numpy())
            np.testing.assert_array_equal(take.audio_pts, batch.audio_pts[0, v].numpy())
            assert batch.audio is not None
            assert take.decibels is not None
            decibels = batch.audio[0, v, 0].numpy() * config.audio.std + config.audio.mean
            np.testing.assert_allclose(take.decibels, decibels, atol=1e-3)
            assert [t.speed for t in take.tracks.values()] == pytest.approx(batch.speed[0, v].tolist())


def test_another_seed_draws_something_else(numbers: Clip) -> None:
    first, again, other = (look(numbers.path, "svaclr-demo", seed=seed).takes[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.pts, again.pts)
    assert not np.array_equal(first.pts, other.pts)


def test_start_is_where_a_preset_begins_or_later(numbers: Clip) -> None:
    for preset in ("tempssl", "svaclr"):
        takes = look(numbers.path, preset, 2.5, SMALL, seed=1).takes
        starts = [track.span[0] for take in takes for track in take.tracks.values()]
        assert min(starts) >= 2.5 - 1e-6


def test_the_tracks_are_where_the_frames_are(numbers: Clip) -> None:
    recipes = ("reverse(1)", "shift(1)", "resample(1)", "speed(2) | shift(0.5) | reverse(1)")
    for take in look(numbers.path, overrides=SMALL, recipes=recipes, seed=3).takes:
        track = take.tracks["video"]
        at = np.interp((np.arange(30) + 0.5) / 30, track.times, np.arange(len(track.times))).astype(int)
        away = np.abs(track.source[at] - take.pts - 1 / 60)  # the middle of a frame of the file
        assert (away <= 1 / 60 + 1e-3).mean() >= 0.9  # at a jump the drawn moment may lie on the other side
        assert take.audio_pts == pytest.approx(take.tracks["audio"].source[[0, -1]], abs=2e-3)


def test_gain_and_noise_are_shown_where_picture_and_sound_have_them(numbers: Clip) -> None:
    dark, noisy, fading = look(
        numbers.path, overrides=SMALL, recipes=("mask(1, 0)", "mask(1)", "audio: fade(1, linear)"), seed=5
    ).takes
    for take in (dark, noisy):
        track = take.tracks["video"]
        gone = track.gain[(np.arange(30) * len(track.gain) + len(track.gain) // 2) // 30] == 0
        assert 1 < gone.sum() < 30
        assert take.frames is not None
        unreadable = [read_number(frame) is None for frame in take.frames]
        assert unreadable == gone.tolist()
        assert (track.noise == ((track.gain == 0) & (take is noisy))).all()
        assert take.agree("gain", "fill", "noise")
    assert dark.waveform is not None
    silent = np.interp(np.arange(24000) / 24000, dark.tracks["audio"].times, dark.tracks["audio"].gain) == 0
    assert silent.sum() > 1000
    assert not dark.waveform[silent][10:-10].any()  # at the edges the drawing is coarser than the sound
    assert not fading.tracks["video"].toned
    assert fading.waveform is not None
    loud = np.abs(fading.waveform).reshape(100, 240).max(axis=1)
    whole = 0.5 * fading.tracks["audio"].gain.reshape(100, -1).max(axis=1)
    np.testing.assert_allclose(loud, whole, atol=0.03)


def test_what_was_drawn_is_told(numbers: Clip) -> None:
    recipes = ("shift(0.5)", "audio: volume(0.5, 0.5)", "speed(2) | reverse(1) | audio: offset(0.5)")
    shifted, soft, back = look(numbers.path, overrides=SMALL, recipes=recipes, seed=2).takes
    (phrase,) = shifted.told
    share = float(phrase.removeprefix("shifted by ").removesuffix("%")) / 100
    jump = int(np.argmin(np.diff(shifted.tracks["video"].source)))
    assert share % 1 == pytest.approx(shifted.tracks["video"].times[jump], abs=0.006)
    assert soft.told == ("sound: 0.50 times the volume",)
    speed, way, offset = back.told
    assert (speed, way) == ("2 times as fast", "backwards")
    later = back.tracks["audio"].span[0] - back.tracks["video"].span[0]
    assert offset == f"sound {abs(later):.2f} s {'later' if later > 0 else 'earlier'}"


def test_recipes_that_do_not_fit_are_named(mp4: Clip, shown: Sheet) -> None:
    short = look(mp4.path, overrides=SMALL, recipes=SPEEDS)
    assert len(short.takes) == 2
    assert short.notes == ("too short for speed(4)",)
    assert "too short for speed(4)" in short.facts
    assert shown.notes == ()
    with pytest.raises(ViewError, match=r"lasts 3\.0\d s, a clip needs 4\.00 s"):
        look(mp4.path, overrides=["data.views=[{}, {temporal: speed(4)}]"])


@pytest.mark.parametrize("suffix", [".wav", ".webm"])
@pytest.mark.parametrize("preset", ["svaclr", "avid-small", "staug"])
def test_one_sided_files_show_what_there_is(tmp_path: Path, suffix: str, preset: str) -> None:
    file = tmp_path / f"one{suffix}"
    write_clip(file, frames=90, audio_codec=None if suffix == ".webm" else "auto")
    sheet = look(file, preset, overrides=SMALL)
    for take in sheet.takes:
        assert (take.frames is None) == (suffix == ".wav")
        assert (take.decibels is None) == (take.waveform is None) == (suffix == ".webm")
    assert sheet.notes[0] == {".wav": "no picture", ".webm": "no sound"}[suffix]
    assert draw(sheet).get_size_inches()[0] == 14


def test_a_silent_track_is_said_to_be_silent(silent: Clip) -> None:
    assert look(silent.path, overrides=SMALL).notes[0] == "silent"


# Spectrograms


def test_mel_centres_are_slaneys() -> None:
    for rate, mels in ((24000, 40), (44100, 64), (1600, 10)):
        expected = librosa.mel_frequencies(n_mels=mels + 2, fmin=0, fmax=rate / 2)[1:-1]
        np.testing.assert_allclose(band_centres(AudioConfig(rate=rate, mels=mels, n_fft=1024)), expected)


def test_linear_bands_are_the_bins_of_an_fft() -> None:
    audio = AudioConfig(spectrum="linear")
    bins = librosa.fft_frequencies(sr=24000, n_fft=512)
    np.testing.assert_allclose(band_centres(audio), bins)
    pairs = bins[1:].reshape(-1, 2).mean(axis=1)
    np.testing.assert_allclose(band_centres(replace(audio, spectrum="paired")), [0, *pairs])


@pytest.mark.parametrize("spectrum", ["mel", "linear", "paired"])
@pytest.mark.parametrize("resize", ["null", "[32, 50]", "[300, 150]"])
@pytest.mark.parametrize("centred", [True, False])
def test_a_beep_is_drawn_at_its_time_and_frequency(
    beep: Clip, spectrum: str, resize: str, centred: bool
) -> None:
    front = [f"spectrum={spectrum}", f"resize={resize}", f"centred={str(centred).lower()}"]
    sheet = look(
        beep.path, overrides=[*SMALL, *(f"data.audio.{item}" for item in front)], start=1.0, recipes=("",)
    )
    (take,) = sheet.takes
    assert take.decibels is not None
    assert take.decibels.shape == sheet.config.audio.shape == (len(sheet.bands), take.decibels.shape[1])
    left, right = column_edges(sheet.config.audio)
    columns, apart = take.decibels.shape[1], np.diff(sheet.bands)
    middles = left + (np.arange(columns) + 0.5) * (right - left) / columns
    row = take.loudest
    assert abs(sheet.bands[row] - 3000) <= apart[max(row - 1, 0) : row + 1].max()
    power = 10 ** (take.decibels[row] / 10)
    assert np.average(middles, weights=power) == pytest.approx(0.65, abs=0.01)


@pytest.fixture(scope="module")
def beep(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    """3 s with a tone of 3 kHz from 1.6 to 1.7 s."""
    path = tmp_path_factory.mktemp("beep") / "beep.mp4"
    return write_clip(
        path, sound=lambda t: 0.5 * ((t >= 1.6) & (t < 1.7)) * np.sin(2 * np.pi * 3000 * t) + 1e-4 * np.sin(t)
    )


def test_frequency_labels_stand_at_their_bands_and_apart() -> None:
    for audio in (
        AudioConfig(),
        AudioConfig(spectrum="linear"),
        AudioConfig(spectrum="paired", resize=(40, 40)),
        AudioConfig(mels=128, rate=44100, n_fft=1024),
    ):
        found, bands = ticks(audio, 7), band_centres(audio)
        assert 3 <= len(found) <= 7
        for hz, row in found.items():
            np.testing.assert_allclose(np.interp(row, np.arange(len(bands)), bands), hz)
        assert min(np.abs(np.diff(list(found.values())))) >= len(bands) / 7


# Sheets


def test_the_sheet_is_written(mp4: Clip, tmp_path: Path) -> None:
    (path,) = view(mp4.path, "svaclr-demo", tmp_path / "new" / "sheet.png", overrides=["data.audio.mels=32"])
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", data[16:24])
    assert width == 1400
    assert 500 < height < 1200  # two rows


def test_the_sheet_is_named_after_the_file(
    mp4: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert view(mp4.path, "svaclr-demo") == [Path("plain.png")]
    assert Path("plain.png").is_file()


def test_no_text_of_a_sheet_is_cut_off_or_lies_upon_another(numbers: Clip) -> None:
    recipes = ("", "speed(2) | reverse(1)", "video: fade(1) | audio: stretch(1.2, 1.3) | audio: noise(any)")
    for preset, chosen in (("svaclr", recipes), ("svaclr", ()), ("avid", ()), ("tempssl", ()), ("staug", ())):
        figure = draw(look(numbers.path, preset, recipes=chosen, seed=1))
        FigureCanvasAgg(figure).draw()
        places = [(text.get_text(), text.get_window_extent()) for text in _texts(figure)]
        assert len(places) > 20
        for i, (text, box) in enumerate(places):
            assert figure.bbox.padded(1).contains(box.x0, box.y0), text
            assert figure.bbox.padded(1).contains(box.x1, box.y1), text
            inner = box.padded(-1.5)
            assert not [other for other, b in places[:i] if inner.overlaps(b)], (preset, text)


def _texts(figure: Figure) -> list[Text]:
    """What is drawn: tick labels beyond their axes are not."""
    found = list(figure.texts)
    for axes in figure.axes:
        found += axes.texts
        if axes.axison:
            low, high = axes.get_xlim()
            shown = axes.xaxis.get_tick_params()
            found += axes.get_yticklabels()
            if shown.get("labelbottom") or shown.get("labeltop"):
                found += [
                    t for t in axes.get_xticklabels() if low - 1e-9 <= t.get_position()[0] <= high + 1e-9
                ]
    return [text for text in found if text.get_text() and text.get_visible()]


# Errors


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
    for recipes in ((), SPEEDS):
        for start in (-1.0, 2.5, float("nan")):
            with pytest.raises(ViewError, match=r"a clip can start at 0\.0\d to [12]\.\d\d s"):
                look(mp4.path, start=start, recipes=recipes)


def test_bad_options_are_refused(mp4: Clip, tmp_path: Path) -> None:
    with pytest.raises(ViewError, match="only data"):
        look(mp4.path, overrides=["optim.lr=0.1"])
    with pytest.raises(ConfigError, match=r"data\.video\.frame"):
        look(mp4.path, overrides=["data.video.frame=3"])
    with pytest.raises(ConfigError, match="no preset"):
        look(mp4.path, "nothing")
    with pytest.raises(ViewError, match=r"--recipe: .*did you mean 'shift'"):
        look(mp4.path, recipes=["shfit(0.5)"])
    with pytest.raises(ViewError, match=r"\.png"):
        view(mp4.path, out=tmp_path / "sheet.xyz")
    (tmp_path / "file").touch()
    with pytest.raises(ViewError, match="cannot be written"):
        view(mp4.path, "svaclr-demo", out=tmp_path / "file" / "sheet.png")
