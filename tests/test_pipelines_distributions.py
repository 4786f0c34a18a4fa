"""What is drawn, 100,000 times: every parameter against the distribution that its method's description states.

One plan holds everything at once: recordings so long that every speed fits, three views that go through all transforms
apart (six draws of each a recording) and five that only the sound goes through. All tests are chi-square,
Kolmogorov-Smirnov or binomial, at p > 1e-4.
"""

from __future__ import annotations

import numpy as np
import pytest
from catalogs import write
from numpy.typing import ArrayLike
from scipy import stats

from coaug.pipelines.catalog import Catalog
from coaug.pipelines.config import AudioConfig, DataConfig, VideoConfig, ViewConfig
from coaug.pipelines.plan import ClipPlan, plan
from coaug.pipelines.recording import AudioStream, Recording, VideoStream, sample_id

COUNT, SECONDS = 20_000, 5000.0
RECIPE = (
    "speed(1, 2, 3, 4)",
    "speed(0.5, 1, 2, 3, 4)",
    "stretch(0.7, 1.4)",
    "reverse(0.3)",
    "offset(0.5)",
    "duration(1.4, 2.8)",
    "fade(0.5)",
    "mask(0.6)",
    "shift(0.4)",
    "resample(0.5)",
    "volume(0.9, 1.1)",
)
WHOLE = ViewConfig(" | ".join(RECIPE), "unaligned")
HEARD = ViewConfig("pitch(12) | noise(any, 5, 20)")
LOOKS = VideoConfig(
    frames=16, fps=16.0, flip=0.3, brightness=0.4, contrast=0.3, saturation=0.2, hue=0.1, blur=0.4
)
CONFIG = DataConfig(
    video=LOOKS,
    audio=AudioConfig(seconds=2.0),
    views=(WHOLE, WHOLE, WHOLE, *(HEARD,) * 5),
    moments="independent",
)
PLAYED, SOUNDS = slice(0, 3), slice(3, 8)


def row(index: int, seconds: float) -> Recording:
    video = VideoStream("h264", 320, 240, 0, 30.0, False, 0.0, seconds)
    audio = AudioStream("aac", 44100, 2, 0.0, seconds, -10.0)
    return Recording(
        sample_id(f"r{index}"), f"r{index}", f"/r{index}", 0.0, seconds, 0, "train", video, audio
    )


@pytest.fixture(scope="module")
def alike(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """Recordings of the same length and size, so that only the draws differ."""
    return write(tmp_path_factory.mktemp("draws") / "alike.parquet", (row(i, SECONDS) for i in range(COUNT)))


@pytest.fixture(scope="module")
def drawn(alike: Catalog) -> ClipPlan:
    return plan(alike, CONFIG, seed=0, epoch=0, rows=np.arange(COUNT))


def parameters(drawn: ClipPlan, name: str) -> np.ndarray:
    """(120000, 4): what a transform of `RECIPE` was given, for both modalities of three views."""
    number = next(i for i, step in enumerate(RECIPE) if step.startswith(name))
    return drawn.steps[:, PLAYED, :, number].reshape(-1, 4)


def heard(drawn: ClipPlan, number: int) -> np.ndarray:
    """(100000, 4): what pitch (0) or noise (1) were given."""
    assert np.isnan(drawn.steps[:, SOUNDS, 0, :2]).all()  # the picture goes through neither
    return drawn.steps[:, SOUNDS, 1, number].reshape(-1, 4)


def assert_uniform(x: ArrayLike, low: float, high: float) -> None:
    """On [low, high)."""
    values = np.ravel(x)
    assert len(values) >= COUNT
    assert values.min() >= low and values.max() <= high
    assert stats.kstest(values, "uniform", (low, high - low)).pvalue > 1e-4


def assert_equally_often(x: ArrayLike, choices: ArrayLike) -> None:
    values, counts = np.unique(np.ravel(x), return_counts=True)
    np.testing.assert_array_equal(values, np.ravel(choices))
    assert stats.chisquare(counts).pvalue > 1e-4


def assert_share(x: np.ndarray, share: float) -> None:
    assert x.size >= COUNT
    assert stats.binomtest(int(np.count_nonzero(x)), x.size, share).pvalue > 1e-4


def assert_independent(x: np.ndarray, y: np.ndarray, bins: int = 10) -> None:
    """A contingency table of equally filled classes; x and y have no say in each other."""
    classes = [np.searchsorted(np.quantile(v, np.arange(1, bins) / bins), v) for v in (x, y)]
    table = np.zeros((bins, bins))
    np.add.at(table, tuple(classes), 1)
    assert stats.chi2_contingency(table).pvalue > 1e-4


# --- which part of the recording


def test_speeds_are_uniform_over_the_library(drawn: ClipPlan) -> None:
    assert_equally_often(parameters(drawn, "speed(1")[:, 0], [1, 2, 3, 4])
    assert_equally_often(parameters(drawn, "speed(0.5")[:, 0], [0.5, 1, 2, 3, 4])  # "[0.5, 4]"


def test_stretches_and_durations_are_uniform(drawn: ClipPlan) -> None:
    assert_uniform(parameters(drawn, "stretch")[:, 0], 0.7, 1.4)
    assert_uniform(2.0 * parameters(drawn, "duration")[:, 0], 1.4, 2.8)  # seconds of a clip that lasts two


def test_all_speeds_multiply(drawn: ClipPlan) -> None:
    each = [parameters(drawn, name)[:, 0] for name in ("speed(1", "speed(0.5", "stretch", "duration")]
    np.testing.assert_allclose(drawn.speed[:, PLAYED].ravel(), np.prod(each, axis=0), rtol=1e-12)


def test_directions(drawn: ClipPlan) -> None:
    assert_share(parameters(drawn, "reverse")[:, 0], 0.3)
    np.testing.assert_array_equal(
        drawn.direction[:, PLAYED].ravel() == -1, parameters(drawn, "reverse")[:, 0]
    )


def test_offsets_are_uniform_where_the_recording_is_long(drawn: ClipPlan) -> None:
    assert_uniform(parameters(drawn, "offset")[:, 0], -0.5, 0.5)
    np.testing.assert_array_equal(drawn.offset[:, PLAYED].ravel(), parameters(drawn, "offset")[:, 0])


def test_starts_are_uniform_over_what_both_clips_leave(drawn: ClipPlan) -> None:
    """Both clips, offsets included, lie inside, and the first moment of the earlier one is uniform."""
    first = drawn.start + drawn.offset.min(axis=2)
    last = drawn.start + (drawn.offset + 2.0 * drawn.speed).max(axis=2)
    assert first.min() >= -1e-9 and last.max() <= SECONDS + 1e-9
    assert_uniform(np.clip(first / (SECONDS - (last - first)), 0, 1), 0, 1)


# --- what happens to the clip


def test_the_sides_of_a_fade_are_uniform_and_independent(drawn: ClipPlan) -> None:
    """Each up to alpha / 2 of the clip: 1/4 for alpha = 0.5 (Fig. 2 of the co-augmentations)."""
    rise, fall, shape, _ = parameters(drawn, "fade").T
    assert_uniform(rise, 0, 0.25)
    assert_uniform(fall, 0, 0.25)
    assert_independent(rise, fall)
    assert_independent(rise, shape, 5)
    values, counts = np.unique(shape, return_counts=True)
    assert len(values) == 5
    assert stats.chisquare(counts).pvalue > 1e-4


def test_a_masks_length_is_uniform_and_its_place_given_the_length(drawn: ClipPlan) -> None:
    start, end, _, _ = parameters(drawn, "mask").T
    length, place = end - start, start / (1 - end + start)
    assert end.max() <= 1 and start.min() >= 0
    assert_uniform(length, -1e-12, 0.6)
    assert_uniform(place, 0, 1 + 1e-12)
    assert_independent(length, place)


def test_shifts_go_both_ways(drawn: ClipPlan) -> None:
    assert_uniform(parameters(drawn, "shift")[:, 0], -0.4, 0.4)


def test_the_share_that_resampling_takes(drawn: ClipPlan) -> None:
    assert_uniform(parameters(drawn, "resample")[:, 0], 0, 0.5)


def test_resampling_leaves_a_twentieth(alike: Catalog) -> None:
    config = DataConfig(views=(ViewConfig("resample(1)"),))
    clips = plan(alike, config, seed=0, epoch=0, rows=np.arange(COUNT))
    assert_uniform(clips.steps[:, 0, 0, 0, 0], 0, 0.95)


def test_volumes_are_uniform(drawn: ClipPlan) -> None:
    assert_uniform(parameters(drawn, "volume")[:, 0], 0.9, 1.1)


def test_pitches_are_uniform(drawn: ClipPlan) -> None:
    assert_uniform(heard(drawn, 0)[:, 0], -12, 12)


def test_noises(drawn: ClipPlan) -> None:
    ratio, key, colour, _ = heard(drawn, 1).T
    assert_uniform(ratio, 5, 20)
    assert_uniform(key, 0, 2**31)
    assert_equally_often(colour, [0, 1, 2])
    assert_independent(ratio, key)


# --- who shares a draw with whom


def test_unaligned_draws_are_independent(drawn: ClipPlan) -> None:
    """Picture and sound, views, and one step and the next."""
    steps = drawn.steps[:, PLAYED]
    for number in range(len(RECIPE)):
        if not RECIPE[number].startswith(("speed", "reverse")):
            assert_independent(*steps[:, 0, :, number, 0].T)
            assert_independent(steps[:, 0, 0, number, 0], steps[:, 1, 0, number, 0])
    assert_independent(steps[:, 0, 0, 8, 0], steps[:, 0, 0, 9, 0])
    speeds = steps[:, 0, :, 0, 0].astype(int) - 1
    table = np.zeros((4, 4))
    np.add.at(table, tuple(speeds.T), 1)
    assert stats.chisquare(table.ravel()).pvalue > 1e-4


def test_aligned_draws_are_one(alike: Catalog) -> None:
    """Of whichever transform, and the other view draws its own."""
    views = (ViewConfig(WHOLE.temporal, "aligned"), ViewConfig(WHOLE.temporal, "aligned"))
    clips = plan(alike, DataConfig(views=views), seed=0, epoch=0, rows=np.arange(2000))
    used = ~np.isnan(clips.steps[0, 0, 0])
    assert used.any(axis=1).all()
    np.testing.assert_array_equal(clips.steps[..., 0, :, :], clips.steps[..., 1, :, :])
    assert (clips.steps[:, 0] != clips.steps[:, 1])[..., used].mean() > 0.7


# --- decreasing distances (CVRL)


@pytest.fixture(scope="module")
def distances(alike: Catalog) -> tuple[np.ndarray, np.ndarray, float]:
    """(first starts (20000,), distances (20000, 5), T): one view, and five later ones apart from each other."""
    config = DataConfig(views=(ViewConfig(),) * 6, moments="decreasing")
    clips = plan(alike, config, seed=1, epoch=0, rows=np.arange(COUNT))
    return clips.start[:, 0], clips.start[:, 1:] - clips.start[:, :1], SECONDS - config.clip_seconds


def test_distances_have_a_linearly_decreasing_density(
    distances: tuple[np.ndarray, np.ndarray, float],
) -> None:
    """p(t) = 2 (T - t) / T² on [0, T], so P(t) = 1 - (1 - t / T)²."""
    _, later, longest = distances
    assert later.min() >= 0 and later.max() <= longest
    assert stats.kstest(later.ravel() / longest, lambda t: 1 - (1 - t) ** 2).pvalue > 1e-4
    counts, edges = np.histogram(later, 50, (0, longest))
    density = np.diff(1 - (1 - edges / longest) ** 2)
    assert stats.chisquare(counts, density * later.size).pvalue > 1e-4
    assert_independent(later[:, 0], later[:, 1])


def test_the_first_start_is_uniform_on_what_is_left(distances: tuple[np.ndarray, np.ndarray, float]) -> None:
    first, later, longest = distances
    furthest = later.max(axis=1)
    assert_uniform(first / (longest - furthest), 0, 1 + 1e-9)
    assert_independent(first / (longest - furthest), furthest)


def test_two_views(alike: Catalog) -> None:
    config = DataConfig(views=(ViewConfig(),) * 2, moments="decreasing")
    start = plan(alike, config, seed=2, epoch=3, rows=np.arange(COUNT)).start
    t, longest = start[:, 1] - start[:, 0], SECONDS - config.clip_seconds
    assert stats.kstest(t / longest, lambda t: 1 - (1 - t) ** 2).pvalue > 1e-4
    assert_uniform(start[:, 0] / (longest - t), 0, 1 + 1e-9)


# --- picture space


def test_flips(drawn: ClipPlan) -> None:
    assert_share(drawn.crop[..., 0] > drawn.crop[..., 2], 0.3)


def test_colours_are_uniform_and_independent(drawn: ClipPlan) -> None:
    colour = (drawn.colour.reshape(-1, 4) - [1, 1, 1, 0]) / [0.4, 0.3, 0.2, 36.0]
    for column in colour.T:
        assert_uniform(column, -1 - 1e-6, 1 + 1e-6)
    assert_independent(colour[:, 0], colour[:, 1])
    assert_independent(colour[:, 2], colour[:, 3])


def test_blurs(drawn: ClipPlan) -> None:
    """With its probability, of a deviation that is uniform between its bounds, which are given for 224 pixels."""
    sigma = drawn.blur.ravel() * 224 / LOOKS.size
    assert_share(sigma > 0, 0.4)
    assert_uniform(sigma[sigma > 0], 0.1 - 1e-6, 2.0)


def test_crops_are_drawn_apart_from_the_rest(drawn: ClipPlan) -> None:
    width = np.abs(drawn.crop[..., 2] - drawn.crop[..., 0]).ravel()
    assert_independent(width, drawn.colour[..., 0].ravel())
    assert_independent(drawn.crop[:, 0, 1].astype(float), drawn.crop[:, 1, 1].astype(float), 4)
    assert_independent(width.reshape(COUNT, -1)[:, 0], drawn.start[:, 0])


def test_another_epoch_draws_anew(alike: Catalog) -> None:
    config = DataConfig(views=(ViewConfig("shift(1)"),))
    one, two = (
        plan(alike, config, seed=0, epoch=e, rows=np.arange(5000)).steps[:, 0, 0, 0, 0] for e in (0, 1)
    )
    assert_independent(one, two)
