"""What is drawn: windows, speeds, crops, flips and moments, against their definitions."""

from __future__ import annotations

import math
import random
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from catalogs import write
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from coaug.pipelines.catalog import Catalog
from coaug.pipelines.config import AudioConfig, DataConfig, VideoConfig, ViewConfig
from coaug.pipelines.plan import ClipPlan, epoch_rows, plan, substitute_row
from coaug.pipelines.recording import AudioStream, Recording, VideoStream, sample_id

SPEEDS = (1.0, 2.0, 3.0, 4.0)


def row(index: int, seconds: float, width: int = 320, height: int = 240, rotation: int = 0) -> Recording:
    start = 0.25 * (index % 5)
    video = VideoStream("h264", width, height, rotation, 30.0, False, start, seconds)
    audio = AudioStream("aac", 44100, 2, start, seconds, -10.0)
    key = f"r{index}"
    return Recording(sample_id(key), key, f"/{key}", start, start + seconds, 0, "train", video, audio)


@pytest.fixture(scope="session")
def many(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """600 recordings of 1.2 to 10 s in four shapes."""
    shapes = [(320, 240, 0), (640, 360, 90), (101, 67, 0), (200, 1000, 180)]
    seconds = 1.2 + 8.8 * np.random.default_rng(0).random(600)
    rows = (row(i, float(s), *shapes[i % 4]) for i, s in enumerate(seconds))
    return write(tmp_path_factory.mktemp("plan") / "many.parquet", rows)


@pytest.fixture(scope="session")
def alike(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """1,500 recordings of 10 s, 320 × 240."""
    return write(tmp_path_factory.mktemp("plan") / "alike.parquet", (row(i, 10.0) for i in range(1500)))


def everything(catalog: Catalog, config: DataConfig, epoch: int = 0, seed: int = 0) -> ClipPlan:
    return plan(catalog, config, seed=seed, epoch=epoch, rows=np.arange(len(catalog)))


def spans(clips: ClipPlan, config: DataConfig) -> np.ndarray:
    """(B, V) seconds that the longer of both modalities covers."""
    used = [i for i, name in enumerate(("video", "audio")) if name in config.modalities]
    return clips.speed[..., used].max(axis=2) * config.clip_seconds


SPED = ViewConfig("speed(1, 2, 3, 4)", "unaligned")
VIEWS = ViewConfig("speed(1, 2, 3, 4) | reverse(0.5)", "unaligned")
SHAPES = [
    DataConfig(views=(VIEWS,) * 3),
    DataConfig(views=(replace(VIEWS, apply="aligned"), VIEWS), moments="independent"),
    DataConfig(views=(replace(VIEWS, apply="aligned"),), audio=AudioConfig(seconds=1.2)),
    DataConfig(views=(replace(VIEWS, apply="aligned"),), video=VideoConfig(frames=30, fps=25.0)),
    DataConfig(views=(VIEWS,) * 4, moments="uniform"),
    DataConfig(views=(replace(VIEWS, apply="aligned"),), modalities=("audio",), video=VideoConfig(frames=4)),
    DataConfig(views=(VIEWS,), modalities=("video",), audio=AudioConfig(seconds=1.2)),
]


@pytest.mark.parametrize("config", SHAPES, ids=range(len(SHAPES)))
def test_windows_lie_inside_their_recording(many: Catalog, config: DataConfig) -> None:
    for epoch in range(2):
        clips = everything(many, config, epoch)
        for i, recording in enumerate(many):
            assert (clips.start[i] >= recording.start).all()
            assert (clips.start[i] + spans(clips, config)[i] <= recording.end + 1e-5).all()


@pytest.mark.parametrize("modality", [0, 1])
def test_speeds_are_uniform_over_those_that_fit(many: Catalog, modality: int) -> None:
    config = DataConfig(views=(SPED,))  # both clips last 1 s
    clips = [everything(many, config, epoch) for epoch in range(3)]
    for whole in range(1, 5):  # seconds that fit, rounded down
        rows = [i for i, d in enumerate(many.durations) if min(int(d), 4) == whole]
        drawn = np.concatenate([c.speed[rows, 0, modality] for c in clips])
        counts = [np.count_nonzero(drawn == s) for s in SPEEDS]
        assert sum(counts[whole:]) == 0
        if whole > 1:
            assert stats.chisquare(counts[:whole]).pvalue > 1e-4


def test_alignment_means_one_draw(alike: Catalog) -> None:
    views = (replace(VIEWS, apply="aligned"), VIEWS)
    clips = everything(alike, DataConfig(views=views))
    assert (clips.speed[:, 0, 0] == clips.speed[:, 0, 1]).all()
    assert (clips.direction[:, 0, 0] == clips.direction[:, 0, 1]).all()
    assert abs(np.corrcoef(clips.speed[:, 1].T)[0, 1]) < 0.1
    assert abs(np.corrcoef(clips.direction[:, 1].T)[0, 1]) < 0.1
    assert abs(np.corrcoef(clips.speed[:, :, 0].T)[0, 1]) < 0.1


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_directions_and_flips_have_their_frequency(alike: Catalog, share: float) -> None:
    config = DataConfig(video=VideoConfig(flip=share), views=(ViewConfig(f"reverse({share})", "unaligned"),))
    clips = everything(alike, config)
    for count in (
        np.count_nonzero(clips.direction[:, 0, 0] == -1),
        np.count_nonzero(clips.direction[:, 0, 1] == -1),
        np.count_nonzero(clips.crop[:, 0, 0] > clips.crop[:, 0, 2]),
    ):
        assert stats.binomtest(count, len(alike), share).pvalue > 1e-4
    assert set(np.unique(clips.direction)) <= {-1, 1}


def test_moments(alike: Catalog) -> None:
    views = (SPED,) * 3
    same = everything(alike, DataConfig(views=views))
    assert (same.start == same.start[:, :1]).all()
    free = everything(alike, DataConfig(views=views, moments="independent"))
    room = 10.0 - spans(free, DataConfig(views=views))
    u = (free.start - [[r.start] for r in alike]) / room
    for view in range(3):
        assert stats.kstest(u[:, view], "uniform").pvalue > 1e-4
    assert np.abs(np.corrcoef(u.T) - np.eye(3)).max() < 0.1
    even = everything(alike, DataConfig(views=(ViewConfig(),) * 3, moments="uniform"))
    np.testing.assert_allclose(even.start - [[r.start] for r in alike], [[0.0, 4.5, 9.0]] * len(alike))
    middle = everything(alike, DataConfig(moments="uniform"))
    np.testing.assert_allclose(middle.start - [[r.start] for r in alike], 4.5)


@given(st.integers(0, 599), st.integers(0, 20), st.integers(0, 599), st.integers(0, 3))
def test_the_plan_of_a_slice_is_the_slice_of_the_plan(
    many: Catalog, first: int, count: int, other: int, epoch: int
) -> None:
    config = DataConfig(views=(VIEWS, VIEWS), video=VideoConfig(brightness=0.4, hue=0.1))
    rows = np.arange(first, min(first + count + 1, 600))
    whole = plan(many, config, seed=1, epoch=epoch, rows=np.concatenate([[other], rows]))
    alone = plan(many, config, seed=1, epoch=epoch, rows=rows)
    for name in (f.name for f in fields(ClipPlan) if f.name != "config"):
        assert np.array_equal(getattr(whole[1:], name), getattr(alone, name), equal_nan=name == "steps"), name
        assert getattr(alone, name).dtype == getattr(whole, name).dtype


def test_seed_and_epoch_change_the_draws(alike: Catalog) -> None:
    config = DataConfig(views=(VIEWS,))
    starts = [everything(alike, config, *key).start for key in ((0, 0), (1, 0), (0, 1))]
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert abs(np.corrcoef(starts[a][:, 0], starts[b][:, 0])[0, 1]) < 0.1


def test_epoch_order(alike: Catalog) -> None:
    n = len(alike)
    order = epoch_rows(alike, 0, 1, np.arange(n + 7))
    assert sorted(order[:n]) == list(range(n))
    assert (order[n:] == order[:7]).all()
    assert (epoch_rows(alike, 0, 1, np.arange(n + 2), shuffle=False) == [*range(n), 0, 1]).all()
    assert not (epoch_rows(alike, 0, 2, np.arange(n)) == order[:n]).all()


def test_substitutes_are_spread_and_repeatable(alike: Catalog) -> None:
    rows = [substitute_row(alike, 0, 0, int(i), 0) for i in alike.ids]
    assert rows == [substitute_row(alike, 0, 0, int(i), 0) for i in alike.ids]
    assert stats.kstest(np.array(rows) / len(alike), "uniform").pvalue > 1e-4
    assert rows != [substitute_row(alike, 0, 0, int(i), 1) for i in alike.ids]


# --- crops


def torchvision_crop(
    width: int, height: int, scale: tuple[float, float], ratio: tuple[float, float], rng: random.Random
) -> tuple[float, float, float, float]:
    """torchvision.transforms.RandomResizedCrop.get_params, literally: top, left, height, width."""
    area = height * width
    log_ratio = (math.log(ratio[0]), math.log(ratio[1]))
    for _ in range(10):
        target_area = area * rng.uniform(*scale)
        aspect_ratio = math.exp(rng.uniform(*log_ratio))
        w = round(math.sqrt(target_area * aspect_ratio))
        h = round(math.sqrt(target_area / aspect_ratio))
        if 0 < w <= width and 0 < h <= height:
            return rng.randint(0, height - h), rng.randint(0, width - w), h, w
    in_ratio = width / height
    if in_ratio < min(ratio):
        w, h = width, round(width / min(ratio))
    elif in_ratio > max(ratio):
        h, w = height, round(height * max(ratio))
    else:
        w, h = width, height
    return (height - h) // 2, (width - w) // 2, h, w


def boxes(clips: ClipPlan, width: int, height: int) -> np.ndarray:
    """(B, 4) top, left, height, width in pixels, mirrored or not."""
    x = np.sort(clips.crop[:, 0, [0, 2]], axis=1) * width
    y = clips.crop[:, 0, [1, 3]] * height
    return np.stack([y[:, 0], x[:, 0], y[:, 1] - y[:, 0], x[:, 1] - x[:, 0]], axis=1)


@pytest.mark.parametrize("scale", [(0.2, 1.0), (0.08, 1.0), (0.7, 1.0)])
def test_crops_are_distributed_as_torchvisions(alike: Catalog, scale: tuple[float, float]) -> None:
    ratio = (0.75, 1.3333)
    crop = f"resized({scale[0]}, {scale[1]}, {ratio[0]}, {ratio[1]})"
    clips = everything(alike, DataConfig(video=VideoConfig(crop=crop)))
    ours, rng = boxes(clips, 3200, 2400), random.Random(0)
    theirs = np.array([torchvision_crop(3200, 2400, scale, ratio, rng) for _ in range(6000)])
    for a, b in ((ours, theirs), (ours[:, 2:].prod(1), theirs[:, 2:].prod(1))):
        for x, y in zip(np.atleast_2d(a.T), np.atleast_2d(b.T), strict=True):
            assert stats.ks_2samp(x, y).pvalue > 1e-4
    assert stats.ks_2samp(ours[:, 3] / ours[:, 2], theirs[:, 3] / theirs[:, 2]).pvalue > 1e-4


def test_a_crop_that_never_fits_is_the_largest_central_one(tmp_path: Path) -> None:
    """torchvision's fallback: the largest crop of an allowed aspect, in the middle."""
    catalog = write(tmp_path / "c.parquet", [row(i, 5.0, 1000, 20) for i in range(20)])
    clips = everything(catalog, DataConfig(video=VideoConfig(crop="resized(0.9, 1)", flip=0.0)))
    _, left, h, w = torchvision_crop(1000, 20, (0.9, 1.0), (0.75, 1.3333), random.Random(0))
    np.testing.assert_allclose(boxes(clips, 1000, 20), [[0, left, h, w]] * 20, atol=0.7)


def test_crops_stay_inside(many: Catalog) -> None:
    crops = everything(many, DataConfig(video=VideoConfig(crop="resized(0.08, 1)"))).crop
    assert crops.min() >= 0
    assert crops.max() <= 1 + 1e-6
    assert (crops[..., 3] > crops[..., 1]).all()
    assert (crops[..., 2] != crops[..., 0]).all()


def test_the_whole_area_is_the_centre_crop(many: Catalog) -> None:
    clips = everything(many, DataConfig(video=VideoConfig(crop="resized(1, 1, 1, 1)", flip=0)))
    centre = everything(many, DataConfig(video=VideoConfig(crop="centre", flip=0)))
    assert np.array_equal(clips.crop, centre.crop)
    np.testing.assert_allclose(clips.crop[..., 0] + clips.crop[..., 2], 1, atol=1e-6)
    np.testing.assert_allclose(clips.crop[..., 1] + clips.crop[..., 3], 1, atol=1e-6)
    for i, recording in enumerate(many):
        assert recording.video is not None
        w, h = recording.video.width, recording.video.height
        w, h = (h, w) if recording.video.rotation % 180 else (w, h)
        shares = clips.crop[i, 0, 2:] - clips.crop[i, 0, :2]
        np.testing.assert_allclose(shares, [min(w, h) / w, min(w, h) / h], rtol=1e-6)


def test_colour_stays_in_its_range(alike: Catalog) -> None:
    video = VideoConfig(brightness=0.4, contrast=0.3, saturation=0.2, hue=0.1)
    colour = everything(alike, DataConfig(video=video)).colour[:, 0]
    centre, spread = np.array([1, 1, 1, 0]), np.array([0.4, 0.3, 0.2, 36.0])
    u = (colour - centre) / spread
    assert np.abs(u).max() <= 1 + 1e-6
    for column in u.T:
        assert stats.kstest(column, "uniform", (-1, 2)).pvalue > 1e-4
    assert (everything(alike, DataConfig()).colour == centre).all()


def test_a_clip_is_no_longer_than_its_slowest_speed_needs(tmp_path: Path) -> None:
    """What does not fit at any speed of a library is left out; `DataConfig.needed_seconds` is what `where` asks for."""
    assert DataConfig(views=(ViewConfig("video: speed(2, 4)"),)).needed_seconds == 2.0
    assert DataConfig(views=(ViewConfig("speed(1, 2)", "unaligned"),)).needed_seconds == 1.0
    assert DataConfig(views=(ViewConfig(), ViewConfig("audio: speed(3)"))).needed_seconds == 3.0
    assert DataConfig(views=(ViewConfig("speed(2)"),)).needed_seconds == 2.0
    apart = (ViewConfig("video: speed(2) | audio: speed(3)"),)
    assert DataConfig(views=apart, modalities=("video",)).needed_seconds == 2.0
