"""Band statistics: exact, of the right clips, and refused where they do not fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from catalogs import recording, write
from hypothesis import given
from hypothesis import strategies as st
from media import write_clip

from coaug.cli import main
from coaug.pipelines.catalog import Catalog
from coaug.pipelines.config import AudioConfig, DataConfig, VideoConfig, ViewConfig
from coaug.pipelines.loader import AVLoader, LoaderError
from coaug.pipelines.stats import Moments, StatsError, load_stats, measure

AUDIO = AudioConfig(rate=16000, seconds=0.5, mels=20, resize=(30, 40), stats="not/made/yet.json")
CONFIG = DataConfig(
    video=VideoConfig(frames=3, fps=6.0, size=32),
    audio=AUDIO,
    views=(ViewConfig(), ViewConfig()),
    moments="independent",
)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.floats(-1e4, 1e4), st.integers(0, 2**32 - 1))
def test_moments_are_those_of_everything_at_once(sizes: list[int], offset: float, seed: int) -> None:
    blocks = [np.random.default_rng((seed, i)).normal(offset, 3.0, (n, 4)) for i, n in enumerate(sizes)]
    first, *others = (Moments.of(block) for block in blocks)
    total = sum(others, start=first)
    whole = np.concatenate(blocks)
    assert total.count == len(whole)
    np.testing.assert_allclose(total.mean, whole.mean(axis=0), rtol=1e-12, atol=1e-9)
    np.testing.assert_allclose(total.std, whole.std(axis=0), rtol=1e-9, atol=1e-9)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    """Five sounds with pictures, each louder than the last, and one that cannot be read."""
    folder = tmp_path_factory.mktemp("stats")

    def rustle(level: float) -> Callable[[np.ndarray], np.ndarray]:
        return lambda t: level * np.random.default_rng(0).standard_normal(len(t))

    paths = [folder / f"{i}.mkv" for i in range(6)]
    for i, path in enumerate(paths):
        write_clip(path, frames=60, codec="mjpeg", audio_codec="flac", sound=rustle(0.02 * (i + 1)))
    return tuple(paths)


@pytest.fixture(scope="module")
def catalog(files: tuple[Path, ...]) -> Path:
    """The last file is spoilt after it was probed; one row belongs to another split."""
    *good, bad = [recording(path) for path in files]
    other = replace(good.pop(), split="test")
    write(files[0].parent / "catalog.parquet", [*good, other, bad])
    files[-1].write_bytes(b"nothing")
    return files[0].parent / "catalog.parquet"


def test_measured_as_numpy_does(catalog: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "stats.json"
    found = measure(catalog, CONFIG, out, clips=23, workers=0, progress=False)
    assert found == json.loads(out.read_text())
    assert [path.name for path in out.parent.iterdir()] == ["stats.json"]  # no half-written neighbour

    audio = replace(AUDIO, resize=None, stats=None, mean=0.0, std=1.0)
    plain = replace(CONFIG, audio=audio, modalities=("audio",))
    heard, bad = [], 0
    with AVLoader(Catalog.open(catalog), plain, batch_size=5, split="train", workers=0) as loader:
        for _ in range(4):  # four epochs of five recordings
            for batch in loader:
                assert batch.audio is not None
                bad += int((~batch.valid).sum())
                heard.append(batch.audio[batch.valid].flatten(0, 2).numpy().astype(np.float64))
    clips = np.concatenate(heard)[:23]
    assert bad > 0
    assert len(clips) == found["clips"] == 23
    np.testing.assert_allclose(found["mean"], clips.mean(axis=(0, 2)), rtol=1e-9)
    np.testing.assert_allclose(found["std"], clips.std(axis=(0, 2)), rtol=1e-9)


def test_normalised_clips_have_mean_zero_and_deviation_one(catalog: Path, tmp_path: Path) -> None:
    audio = replace(AUDIO, resize=None, stats=str(tmp_path / "stats.json"))
    config = replace(CONFIG, audio=audio, modalities=("audio",))
    measure(catalog, config, tmp_path / "stats.json", clips=8, workers=0, progress=False)
    with AVLoader(catalog, config, batch_size=5, split="train", workers=0) as loader:
        batch = next(iter(loader))
    assert batch.audio is not None
    clips = batch.audio[batch.valid].flatten(0, 2).double()
    assert clips.shape[0] == 8
    assert clips.mean((0, 2)).abs().max() < 1e-4
    assert (clips.std((0, 2), correction=0) - 1).abs().max() < 1e-4


def test_what_cannot_be_measured(catalog: Path, tmp_path: Path) -> None:
    out = tmp_path / "stats.json"
    with pytest.raises(StatsError, match="no audio"):
        measure(catalog, replace(CONFIG, modalities=("video",)), out)
    with pytest.raises(LoaderError, match="nowhere"):
        measure(catalog, CONFIG, out, split="nowhere", workers=0)
    above = replace(AUDIO, floor_db=100.0)
    with pytest.raises(StatsError, match=r"band\(s\) 0, 1, 2, 3, 4… of 20 .*data.audio.floor_db \(100\)"):
        measure(catalog, replace(CONFIG, audio=above), out, clips=2, workers=0)
    assert not out.exists()


def saved(path: Path, **changes: object) -> AudioConfig:
    """A front end whose statistics lie at `path`, with `changes` made to them."""
    audio = AudioConfig(mels=3, stats=str(path))
    right = {"mean": [-20.0, -30.5, -40.0], "std": [3.0, 4.0, 5.5], "clips": 2, "spectrum": "mel", "bands": 3}
    shape = {"rate": 24000, "window_samples": 480, "n_fft": 512, "floor_db": -80.0}
    path.write_text(json.dumps(right | shape | changes))
    return audio


def test_loading(tmp_path: Path) -> None:
    mean, std = load_stats(saved(tmp_path / "stats.json"))
    assert mean.dtype == std.dtype == np.float32
    assert mean.tolist() == [-20.0, -30.5, -40.0]
    assert std.tolist() == [3.0, 4.0, 5.5]


@pytest.mark.parametrize("harmless", [{"hop": 0.02}, {"centred": True}, {"resize": (9, 9)}, {"mean": 1.0}])
def test_what_does_not_change_the_statistics_may_differ(tmp_path: Path, harmless: dict[str, object]) -> None:
    audio = saved(tmp_path / "stats.json")
    assert len(load_stats(replace(audio, **harmless))[0]) == 3  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rate": 16000}, "rate 16000, here 24000"),
        ({"bands": 40, "n_fft": 1024}, "bands 40, here 3; n_fft 1024, here 512"),
        ({"spectrum": "paired"}, "spectrum 'paired', here 'mel'"),
        ({"floor_db": -100.0}, "floor_db -100.0, here -80.0"),
        ({"window_samples": None}, "window_samples None, here 480"),
        ({"mean": [1.0, 2.0]}, "each of 3 bands"),
        ({"std": [1.0, 2.0]}, "each of 3 bands"),
        ({"std": [1.0, 0.0, 2.0]}, "positive std"),
        ({"std": [1.0, float("nan"), 2.0]}, "positive std"),
        ({"mean": [1.0, float("inf"), 2.0]}, "each of 3 bands"),
        ({"mean": 1.0, "std": 1.0}, "each of 3 bands"),
        ({"mean": None}, "each of 3 bands"),
        ({"mean": ["loud", 1.0, 2.0]}, "not numbers"),
    ],
)
def test_statistics_that_do_not_fit(tmp_path: Path, changes: dict[str, object], said: str) -> None:
    audio = saved(tmp_path / "stats.json", **changes)
    with pytest.raises(StatsError) as caught:
        load_stats(audio)
    assert said in str(caught.value)
    assert "data.audio.stats" in str(caught.value)
    assert "stats.json" in str(caught.value)


@pytest.mark.parametrize("text", [None, "not json", "[1, 2]"])
def test_files_that_are_none(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "stats.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(StatsError) as caught:
        load_stats(AudioConfig(stats=str(path)))
    assert "data.audio.stats" in str(caught.value)
    assert f"coaug stats CATALOG --preset PRESET --out {path}" in str(caught.value)


def test_the_command(catalog: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "stats.json"
    words = ["stats", str(catalog), "--preset", "svaclr", "--out", str(out), "--clips", "4", "--workers", "0"]
    keys = ["data.audio.spectrum=linear", "data.audio.seconds=0.25", "data.video.frames=4"]
    assert main([*words, *keys]) == 0
    said = capsys.readouterr()
    assert f"data.audio.stats={out}" in said.out
    found = json.loads(out.read_text())
    assert (found["clips"], found["bands"], len(found["mean"])) == (4, 257, 257)
    mean, _ = load_stats(AudioConfig(spectrum="linear", stats=str(out)))
    np.testing.assert_allclose(mean, found["mean"], rtol=1e-6)


def test_the_command_says_what_was_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stats", str(tmp_path / "none.parquet"), "--preset", "svaclr"]) == 2
    assert "none.parquet" in capsys.readouterr().err
    assert main(["stats", str(tmp_path / "none.parquet"), "--preset", "svaclr", "data.audio.n_fft=8"]) == 2
    assert "n_fft: 8" in capsys.readouterr().err
