"""Every temporal transform, alone and in sequences, against literal array code: picture and sound, both devices.

The references know nothing of maps: a clip is an array whose first axis is time, and a transform is np.roll, [::-1],
a repetition of picks or torchaudio's Fade, one after the other. Everything in the first part is exact, because
parameters lie on the samples' grid; later parts have drawn parameters, real files and the whole loader.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from functools import reduce
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from catalogs import recording, write
from hearing import NEAREST, hear
from hypothesis import given, settings
from hypothesis import strategies as st
from librosa.effects import pitch_shift
from librosa.feature import spectral_centroid
from media import Clip as File
from media import read_number, tone, write_clip
from scipy import signal, stats
from test_pipelines_play import SIMULATED
from torchaudio.transforms import Fade

from coaug.pipelines.batch import Batch
from coaug.pipelines.catalog import Catalog
from coaug.pipelines.config import AudioConfig, DataConfig, Modality, VideoConfig, ViewConfig
from coaug.pipelines.loader import AVLoader
from coaug.pipelines.plan import AUDIO, VIDEO, ClipPlan, plan
from coaug.pipelines.program import picture_tone, sound_program
from coaug.pipelines.recipe import parse
from coaug.pipelines.recording import AudioStream, Recording, VideoStream, sample_id
from coaug.pipelines.resample import bank
from coaug.pipelines.temporal import TRANSFORMS, Clip, Sound
from coaug.pipelines.timeline import Timeline, TimeMap, instants

Step = tuple[str, tuple[float, ...]]  # as a recipe has it, and what was drawn for it
SHAPES = {4: "linear", 5: "exponential", 6: "logarithmic", 7: "quarter_sine", 8: "half_sine"}
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


# --- the references


def rolled(clip: np.ndarray, later: float) -> np.ndarray:
    return np.roll(clip, round(later * len(clip)), axis=0)


def held(clip: np.ndarray, lost: float, count: int) -> np.ndarray:
    """Down to (1 - lost) of `count` frames, the one in the middle of each longer time, and up by repetition."""
    kept = max(round(count * (1 - lost)), 1)
    if kept >= count:
        return clip
    middles = np.floor((np.arange(kept) + 0.5) * len(clip) / kept + 1e-6).astype(int)
    return np.asarray(clip[middles][np.floor((np.arange(len(clip)) + 0.5) * kept / len(clip)).astype(int)])


def faded(clip: np.ndarray, rise: float, fall: float, kind: float) -> np.ndarray:
    """torchaudio's, on twice as many instants, of which every other one is the centre of a sample."""
    fade = Fade(2 * round(rise * len(clip)) + 1, 2 * round(fall * len(clip)) + 1, SHAPES[int(kind)])
    gain = np.asarray(fade(torch.ones(2 * len(clip) + 1, dtype=torch.float64)))[1::2]
    return np.asarray(clip * gain.reshape(-1, *[1] * (clip.ndim - 1)))


def masked(clip: np.ndarray, start: float, end: float, filling: Any) -> np.ndarray:
    clip, span = clip.copy(), slice(round(start * len(clip)), round(end * len(clip)))
    clip[span] = filling[span] if isinstance(filling, np.ndarray) else filling
    return clip


def looked_up(source: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """The samples that lie at `positions`; before and after the source is nothing."""
    at = np.floor(positions + 1e-6).astype(int)
    inside = ((at >= 0) & (at < len(source))).reshape(-1, *[1] * (source.ndim - 1))
    return np.where(inside, source[np.clip(at, 0, len(source) - 1)], 0.0)


PLACING = ("speed", "stretch", "duration", "offset")


def name_of(step: Step) -> str:
    return step[0].split("(")[0]


def processed(clip: np.ndarray, step: Step, count: int, noise: Callable[[Step], np.ndarray]) -> np.ndarray:
    """The clip after one step that is not about its place in the recording."""
    name, p = name_of(step), step[1]
    if name == "mask":
        constant = "," in step[0]
        filling = float(step[0].split(",")[1].strip(" )")) if constant else noise(step)
        return masked(clip, p[0], p[1], filling)
    act: dict[str, Callable[[], np.ndarray]] = {
        "shift": lambda: rolled(clip, p[0]),
        "reverse": lambda: clip[::-1] if p[0] else clip,
        "resample": lambda: held(clip, p[0], count),
        "fade": lambda: faded(clip, p[0], p[1], p[2]),
        "volume": lambda: p[0] * clip,
        "noise": lambda: clip + noise(step),
    }
    return act[name]()


def reference(
    steps: list[Step],
    source: np.ndarray,
    origin: float,
    rate: float,
    length: int,
    count: int,
    noise: Callable[[Step], np.ndarray],
) -> np.ndarray:
    """First the part of the source (`rate` samples a second) that all placing steps say, then the others in order."""
    speed = np.prod([p[0] for text, p in steps if text.startswith(("speed", "stretch", "duration"))])
    offset = sum(p[0] for text, p in steps if text.startswith("offset"))
    clip = looked_up(source, origin + offset * rate + speed * (np.arange(length) + 0.5))
    others = [step for step in steps if name_of(step) not in PLACING]
    return reduce(lambda x, step: processed(x, step, count, noise), others, clip)


# --- what is tested, in the same terms


def drawn(config: DataConfig, steps: list[Step]) -> ClipPlan:
    """A plan of one clip with these parameters."""
    view = ViewConfig(" | ".join(text for text, _ in steps))
    speed = np.prod([p[0] for text, p in steps if text.startswith(("speed", "stretch", "duration"))])
    offset = sum(p[0] for text, p in steps if text.startswith("offset"))
    kept = np.full((1, 1, 2, len(steps), 4), np.nan)
    for n, (_, p) in enumerate(steps):
        kept[..., n, : len(p)] = p
    one = np.ones((1, 1, 2))
    return ClipPlan(
        replace(config, views=(view,)), np.zeros(1, np.int64), np.zeros(1, np.int64), np.zeros((1, 1)),
        speed * one, offset * one, one.astype(np.int8), kept, np.zeros((1, 1, 4), np.float32),
        np.zeros((1, 1, 4), np.float32), np.zeros((1, 1), np.float32),
    )  # fmt: skip


def heard(timeline: Timeline, source: np.ndarray, origin: float, count: int) -> np.ndarray:
    return hear(timeline, source[:, 0], count, origin=origin, taps=NEAREST)[:, None]


def shown(timeline: Timeline, source: np.ndarray, origin: float, count: int) -> np.ndarray:
    """Pictures of a few pixels, by the time map and the four numbers a frame that the device is given."""
    u = instants(count)
    gain, fill, amplitude, key = picture_tone(timeline, u).T
    out = gain[:, None] * looked_up(source, origin + count * timeline.time(u)) + fill[:, None]
    for i in np.flatnonzero(amplitude):
        out[i] += amplitude[i] * np.random.default_rng(int(key[i])).normal(size=source.shape[1])
    return np.asarray(out)


PLAYERS: dict[Modality, Callable[..., np.ndarray]] = {"audio": heard, "video": shown}
NUMBERS: dict[Modality, int] = {"audio": AUDIO, "video": VIDEO}


def both(
    modality: Modality, steps: list[Step], source: np.ndarray, origin: float, config: DataConfig
) -> tuple[np.ndarray, np.ndarray]:
    """(ours, the reference's) clip, (N, pixels or 1)."""
    clips, number = drawn(config, steps), NUMBERS[modality]
    count = round(clips.clip(number).count)
    rate = count / config.clip_seconds
    sound = Sound(source[:, 0].astype(np.float32), rate, origin) if modality == "audio" else None
    ours = PLAYERS[modality](clips.timeline(0, 0, number, sound), source, origin, count)

    def noise(step: Step) -> np.ndarray:
        """What this step's noise is all over the clip: played alone, on silence."""
        ((what, _),) = ((s.what, s.scope) for s in parse(step[0], TRANSFORMS))
        p = (0.0, 1.0, *step[1][2:]) if name_of(step) == "mask" else step[1]
        alone = what.timeline(p, clips.clip(number, sound), TimeMap())
        return PLAYERS[modality](alone, np.zeros_like(source), 0.0, count)

    return ours, reference(steps, source, origin, rate, count, count, noise)


# --- exact: parameters on the grid

N = 1890  # instants in two seconds; divisible by all periods below, whose middle is an instant
GRID = DataConfig(
    video=VideoConfig(frames=N, fps=N / 2), audio=AudioConfig(rate=N // 2, seconds=2.0, n_fft=64)
)
share = st.integers(0, N).map(lambda k: k / N)


def step(name: str, *parameters: Any) -> st.SearchStrategy[Step]:
    return st.tuples(st.just(name), st.tuples(*parameters))


def sixteenths(low: int, high: int) -> st.SearchStrategy[float]:
    return st.integers(low, high).map(lambda k: k / 16)


@st.composite
def masks(draw: st.DrawFn) -> Step:
    start, end = sorted((draw(share), draw(share)))
    return (
        draw(st.sampled_from(["mask(1)", "mask(1, 0)", "mask(1, 0.25)"])),
        (start, end, float(draw(keys))),
    )


keys = st.integers(0, 2**31 - 1)
halves = st.integers(0, N // 2).map(lambda k: k / N)
EVERY: dict[str, st.SearchStrategy[Step]] = {
    "speed": step("speed(0.5, 1, 1.5, 2, 2.5, 3, 4)", st.sampled_from([0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0])),
    "stretch": step("stretch(0.5, 2)", sixteenths(8, 32)),
    "duration": step("duration(1, 4)", sixteenths(8, 32)),
    "offset": step("offset(1)", st.integers(-N // 2, N // 2).map(lambda k: 2 * k / N)),
    "reverse": step("reverse(0.5)", st.sampled_from([0.0, 1.0])),
    "shift": step("shift(1)", st.integers(-N, N).map(lambda k: k / N)),
    "resample": step("resample(1)", st.sampled_from([1 - 1 / r for r in (1, 3, 5, 7, 9, 15)])),
    "volume": step("volume(0, 2)", sixteenths(0, 32)),
    "fade": step("fade(1)", halves, halves, st.sampled_from(sorted(SHAPES)).map(float)),
    "mask": masks(),
}
NOISE = step("noise(any)", st.integers(0, 20).map(float), keys.map(float), st.sampled_from([0.0, 1.0, 2.0]))
seeds = st.integers(0, 2**16)


def random_source(seed: int, length: int = 6 * N) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(length, 2)).astype(np.float32)


def assert_same(modality: Modality, steps: list[Step], seed: int) -> None:
    ours, theirs = both(modality, steps, random_source(seed), float(seed % (3 * N)), GRID)
    if modality == "audio":
        theirs = theirs[:, :1]
    np.testing.assert_allclose(ours, theirs, atol=2e-5)


@pytest.mark.parametrize("modality", ["audio", "video"])
@pytest.mark.parametrize("name", EVERY)
@settings(deadline=None, max_examples=40)
@given(data=st.data(), seed=seeds)
def test_each_transform(name: str, modality: Modality, data: st.DataObject, seed: int) -> None:
    assert_same(modality, [data.draw(EVERY[name])], seed)


@pytest.mark.parametrize("modality", ["audio", "video"])
@settings(deadline=None, max_examples=250)
@given(data=st.data(), seed=seeds)
def test_sequences_of_up_to_five(modality: Modality, data: st.DataObject, seed: int) -> None:
    """The law of composition: one timeline is all the steps, one after the other."""
    known = (*EVERY.values(), NOISE) if modality == "audio" else tuple(EVERY.values())
    assert_same(modality, data.draw(st.lists(st.one_of(*known), min_size=2, max_size=5)), seed)


@pytest.mark.parametrize("modality", ["audio", "video"])
@settings(deadline=None, max_examples=80)
@given(data=st.data(), seed=seeds)
def test_sequences_of_masks_and_fades(modality: Modality, data: st.DataObject, seed: int) -> None:
    """What one of them fills, the next ones dim, move, hold or fill again."""
    known = [EVERY[name] for name in ("mask", "mask", "fade", "shift", "resample")]
    assert_same(modality, data.draw(st.lists(st.one_of(*known), min_size=3, max_size=5)), seed)


@settings(deadline=None, max_examples=40)
@given(NOISE, seeds)
def test_noise_is_added(noise: Step, seed: int) -> None:
    assert_same("audio", [noise], seed)


ORDER: list[list[Step]] = [
    [("mask(1)", (0.2, 0.6, 7.0)), ("resample(1)", (2 / 3,))],
    [("fade(1)", (0.3, 0.0, 4.0)), ("shift(1)", (0.5,))],
    [("shift(1)", (1 / 3,)), ("reverse(1)", (1.0,))],
]


@pytest.mark.parametrize("modality", ["audio", "video"])
@pytest.mark.parametrize("steps", ORDER, ids=["mask-resample", "fade-shift", "shift-reverse"])
def test_the_order_of_steps_matters(steps: list[Step], modality: Modality) -> None:
    source = random_source(0)
    (one, two), (other, _) = (both(modality, s, source, 0.0, GRID) for s in (steps, steps[::-1]))
    np.testing.assert_allclose(one, two[:, : one.shape[1]], atol=2e-5)
    assert np.abs(one - other).max() > 0.1


@pytest.mark.parametrize("modality", ["audio", "video"])
def test_resampled_noise_is_repeated_and_a_shifted_fade_moves(modality: Modality) -> None:
    ours, _ = both(modality, ORDER[0], random_source(1), 0.0, GRID)
    inside = ours[round(0.2 * N) + 3 : round(0.6 * N) - 3]
    assert (np.diff(inside, axis=0) != 0).any(axis=1).mean() == pytest.approx(1 / 3, abs=0.01)
    ours, _ = both(modality, ORDER[1], np.ones((6 * N, 2)), 0.0, GRID)
    np.testing.assert_allclose(ours[N // 2 : N // 2 + 9, 0], (np.arange(9) + 0.5) / (0.3 * N), atol=1e-5)
    assert (ours[: N // 2] == 1).all()


PLACES: list[Step] = [
    ("speed(2)", (2.0,)),
    ("stretch(1, 2)", (1.5,)),
    ("duration(1, 4)", (0.75,)),
    ("offset(1)", (0.25,)),
]


@pytest.mark.parametrize("modality", ["audio", "video"])
@pytest.mark.parametrize("place", PLACES, ids=[name_of(p) for p in PLACES])
@settings(deadline=None, max_examples=15)
@given(data=st.data(), seed=seeds)
def test_where_a_placing_step_stands_is_all_the_same(
    place: Step, modality: Modality, data: st.DataObject, seed: int
) -> None:
    """`shift(0.5) | speed(2)` is `speed(2) | shift(0.5)`: shares are those of the clip, wherever it is from."""
    other = data.draw(st.one_of(*(EVERY[name] for name in ("shift", "fade", "mask", "reverse", "resample"))))
    source = random_source(seed)
    (before, _), (after, _) = (both(modality, s, source, 9.0, GRID) for s in ([place, other], [other, place]))
    np.testing.assert_allclose(before, after, atol=2e-5)


def test_the_cuda_kernel_plays_the_same(tmp_path: Path) -> None:
    """Each transform and some sequences, under Numba's simulator, on clips of 105 samples."""
    count, source = 105, random_source(3, 640)
    config = DataConfig(audio=AudioConfig(rate=count, seconds=1.0, n_fft=64), modalities=("audio",))
    fifth: list[Step] = [("shift(1)", (0.2,)), ("resample(1)", (2 / 3,)), ("reverse(1)", (1.0,))]
    cases: list[list[Step]] = [
        *([one] for one in fifth), fifth,
        [("speed(2)", (2.0,)), ("offset(1)", (0.2,)), *fifth], [("stretch(0.5, 2)", (0.5,))],
        *([cast(Step, ("fade(1)", (0.4, 0.2, float(kind))))] for kind in SHAPES),
        [("mask(1)", (0.2, 0.6, 5.0)), *fifth], [("mask(1, 0.25)", (0.2, 0.6, 5.0)), ("volume(0, 2)", (1.5,))],
        [("noise(any)", (10.0, 5.0, 2.0)), ("fade(1)", (0.2, 0.2, 4.0)), *fifth],
    ]  # fmt: skip
    inputs, expected = [], []
    for steps in cases:
        sound = Sound(source[:, 0], float(count), 100.0)
        program = sound_program(drawn(config, steps).timeline(0, 0, AUDIO, sound), count, 100.0, count)
        inputs.append((sound.pcm, program.maps, program.curves, NEAREST, program.noise, count))
        expected.append(both("audio", steps, source, 100.0, config)[1][:, 0])
    (tmp_path / "in.pickle").write_bytes(pickle.dumps(inputs))
    command = [sys.executable, "-c", SIMULATED, str(tmp_path / "in.pickle"), str(tmp_path / "out.pickle")]
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    for steps, ours, theirs in zip(
        cases, pickle.loads((tmp_path / "out.pickle").read_bytes()), expected, strict=True
    ):
        np.testing.assert_allclose(ours, theirs, atol=2e-5, err_msg=str(steps))


# --- drawn: recipes as people write them, parameters as a plan draws them

FINE = 9450  # instants a second, of a signal that hardly changes from one to the next
DENSE = DataConfig(video=VideoConfig(frames=2 * FINE, fps=FINE), audio=AudioConfig(rate=FINE, seconds=2.0))
WRITTEN = st.sampled_from(
    ["speed(1, 2, 3, 4)", "speed(0.5, 1, 2)", "stretch(0.7, 1.4)", "duration(1.4, 2.8)", "offset(0.5)",
     "reverse(0.5)", "shift(1)", "shift(0.5)", "resample(0.5)", "resample(1)", "fade(0.5)", "fade(1)",
     "fade(1, half_sine)", "mask(0.5, 0)", "mask(0.3, 0.7)", "volume(0.5, 1.5)"]
)  # fmt: skip


def slow(t: np.ndarray) -> np.ndarray:
    """Two slow waves that never repeat."""
    return np.asarray(0.5 + 0.3 * np.sin(2 * np.pi * 0.37 * t) + 0.2 * np.sin(2 * np.pi * 0.9 * t + 1))


def catalogued(seconds: float) -> Recording:
    video = VideoStream("h264", 320, 240, 0, 30.0, False, 0.0, seconds)
    audio = AudioStream("aac", 44100, 2, 0.0, seconds, -10.0)
    return Recording(sample_id("r"), "r", "/r", 0.0, seconds, 0, "train", video, audio)


@pytest.fixture(scope="session")
def long_catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    return write(tmp_path_factory.mktemp("temporal") / "long.parquet", [catalogued(40.0)])


def steps_of(clips: ClipPlan, view: int, modality: int) -> list[Step]:
    """What a plan drew, as (text, parameters)."""
    texts = [text.strip() for text in clips.config.views[view].temporal.split("|")]
    rows = clips.steps[0, view, modality]
    return [(text, tuple(row.tolist())) for text, row in zip(texts, rows, strict=False) if text]


def silent_noise(_: Step) -> np.ndarray:
    raise AssertionError("no noise in these recipes")


@pytest.mark.parametrize("modality", ["audio", "video"])
@settings(deadline=None, max_examples=60)
@given(recipe=st.lists(WRITTEN, max_size=5).map(" | ".join), seed=seeds)
def test_recipes_as_drawn(long_catalog: Catalog, modality: Modality, recipe: str, seed: int) -> None:
    """Where rounding to the grid does not decide on which side of an edge an instant lies, all instants agree."""
    config = replace(DENSE, views=(ViewConfig(recipe, "unaligned"),))
    clips, number = plan(long_catalog, config, seed=seed, epoch=0, rows=np.array([0])), NUMBERS[modality]
    source = slow((np.arange(40 * FINE) + 0.5) / FINE)[:, None]
    origin, steps = clips.start[0, 0] * FINE, steps_of(clips, 0, number)
    ours = PLAYERS[modality](clips.timeline(0, 0, number), source, origin, 2 * FINE)
    theirs = reference(steps, source, origin, FINE, 2 * FINE, 2 * FINE, silent_noise)
    assert np.mean(np.abs(ours - theirs) > 0.01) < 0.01, steps


# --- the whole loader

PLAIN: dict[str, Any] = {
    "mean": (0.0, 0.0, 0.0),
    "std": (1.0, 1.0, 1.0),
    "flip": 0.0,
    "crop": "resized(1, 1, 0.1, 10)",
}
RECIPES = (
    "",
    "speed(2)",
    "speed(0.5)",
    "stretch(0.7, 1.4)",
    "duration(1.2, 2)",
    "audio: offset(0.5)",
    "reverse(1)",
    "shift(1)",
    "resample(0.9)",
    "fade(1, linear)",
    "fade(1, exponential)",
    "fade(1, logarithmic)",
    "fade(1, quarter_sine)",
    "fade(1, half_sine)",
    "mask(0.8, 0.4)",
    "volume(0.5, 1)",
    "fade(1) | shift(1) | speed(2)",
    "mask(0.8, 0.6) | resample(0.5) | reverse(1)",
    "resample(0.9) | shift(1) | fade(0.5) | reverse(1) | stretch(1, 2)",
)
VIEWS = tuple(ViewConfig(recipe, "unaligned") for recipe in RECIPES)


def first_batch(catalog: Catalog, config: DataConfig, device: str = "cpu") -> Batch:
    with AVLoader(catalog, config, batch_size=1, workers=0, shuffle=False, device=device) as loader:
        batch = next(iter(loader))
    assert bool(batch.valid.all())
    return batch.to("cpu")


def catalog_of(file: File) -> Catalog:
    return write(file.path.with_suffix(".parquet"), [recording(file.path)])


def first_plan(catalog: Catalog, config: DataConfig) -> ClipPlan:
    return plan(catalog, config, seed=0, epoch=0, rows=np.array([0]))


@pytest.mark.parametrize("device", DEVICES)
def test_the_loaders_sound(media_dir: Path, device: str) -> None:
    """A slow sound, through filters that leave it alone, is the reference's within a sample of every edge."""
    rate, low = 24000, 20.0

    def sound(t: np.ndarray) -> np.ndarray:
        return np.asarray(0.6 * np.sin(2 * np.pi * low * t) + 0.2 * np.sin(2 * np.pi * 2.2 * low * t))

    file = write_clip(media_dir / f"slow-{device}.wav", frames=300, sound=sound, audio_rate=rate)
    config = DataConfig(
        audio=AudioConfig(rate=rate, waveform=True), views=VIEWS, moments="independent", modalities=("audio",)
    )
    catalog = catalog_of(file)
    batch, clips = first_batch(catalog, config, device), first_plan(catalog, config)
    source = sound((np.arange(10 * rate) + 0.5) / rate)  # half a sample from the file's: nothing at 20 Hz
    assert batch.waveform is not None
    for view, recipe in enumerate(RECIPES):
        steps = [(text.removeprefix("audio: "), p) for text, p in steps_of(clips, view, AUDIO)]
        theirs = reference(steps, source, clips.start[0, view] * rate, rate, rate, rate, silent_noise)
        off = np.abs(batch.waveform[0, view].numpy() - theirs) > 0.03
        assert off.mean() < 0.01, (recipe, off.mean())


SEEN = VideoConfig(frames=12, fps=12.0, size=64, **PLAIN)
CELLS = (
    1001  # of each frame's time, for the references; odd, so that one has the frame's instant in its middle
)
MAPS = tuple(v for v in VIEWS if not any(step.what.tones for step in v.steps))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
def test_the_loaders_pictures(media_dir: Path, suffix: str, device: str) -> None:
    """Burnt-in numbers are those of the reference, which plays an array of times."""
    file = write_clip(media_dir / f"maps-{device}{suffix}", frames=240, audio_codec=None)
    config, catalog = (
        DataConfig(video=SEEN, views=MAPS, moments="independent", modalities=("video",)),
        catalog_of(file),
    )
    batch, clips = first_batch(catalog, config, device), first_plan(catalog, config)
    assert batch.video is not None
    fine, seen = SEEN.frames * CELLS, 0
    for view in range(len(MAPS)):
        steps = [step for step in steps_of(clips, view, VIDEO) if not step[0].startswith("audio:")]
        ticks = (np.arange(8 * fine) + 0.5) / fine  # seconds
        times = reference(steps, ticks, clips.start[0, view] * fine, fine, fine, SEEN.frames, silent_noise)
        for i, t in enumerate(times[CELLS // 2 :: CELLS]):
            near = {max(sum(float(pts) <= t + e for pts in file.pts) - 1, 0) for e in (-1e-3, 1e-3)}
            assert read_number(batch.video[0, view, :, i]) in near, (MAPS[view].temporal, i)
            seen += len(near) == 1
    assert seen > 0.85 * SEEN.frames * len(MAPS)


TONES = (
    *(v for v in VIEWS if v.steps and all(step.what.tones for step in v.steps)),
    ViewConfig("fade(1) | shift(1) | reverse(1)"),
    ViewConfig("mask(0.8, 0.6) | reverse(1) | resample(0.8)"),
)


@pytest.mark.parametrize("device", DEVICES)
def test_the_loaders_brightness(media_dir: Path, device: str) -> None:
    """A grey recording: its mean brightness is the reference's gain times grey, plus fill."""
    grey = 150
    file = write_clip(
        media_dir / f"grey-{device}.mp4", frames=90, audio_codec=None,
        picture=lambda *_: np.full((64, 96, 3), grey, np.uint8),
    )  # fmt: skip
    config, catalog = DataConfig(video=SEEN, views=TONES, modalities=("video",)), catalog_of(file)
    batch, clips = first_batch(catalog, config, device), first_plan(catalog, config)
    assert batch.video is not None
    fine, clear = SEEN.frames * CELLS, 0
    for view in range(len(TONES)):
        light = np.full(fine, grey / 255)
        expected = reference(steps_of(clips, view, VIDEO), light, 0.0, fine, fine, SEEN.frames, silent_noise)
        around = [np.roll(expected, k)[CELLS // 2 :: CELLS] for k in (-1, 0, 1)]
        sure = np.ptp(around, axis=0) < 0.01  # no edge of a mask or shift just there
        means = batch.video[0, view].mean((0, 2, 3)).numpy()
        assert np.abs(means - around[1])[sure].max() < 0.015, TONES[view].temporal
        clear += int(sure.sum())
    assert clear > 0.9 * SEEN.frames * len(TONES)


@pytest.mark.parametrize("device", DEVICES)
def test_the_loaders_noise(media_dir: Path, device: str) -> None:
    """Inside the mask: normal pictures, a new one each frame, and sound as loud as the recording; outside: the clip."""
    file = write_clip(media_dir / f"noisy-{device}.mp4", frames=90, sound=tone(300.0, 0.5), audio_rate=24000)
    video = VideoConfig(frames=12, fps=12.0, size=64, flip=0.0, crop="centre")
    audio = AudioConfig(waveform=True)
    config = DataConfig(video=video, audio=audio, views=(ViewConfig("mask(0)"), ViewConfig("mask(1)")))
    catalog = catalog_of(file)
    batch, clips = first_batch(catalog, config, device), first_plan(catalog, config)
    assert batch.video is not None and batch.waveform is not None
    start, end = clips.steps[0, 1, 0, 0, :2]
    inside = (instants(12) >= start) & (instants(12) < end)
    assert 2 <= inside.sum() <= 10
    plain, noisy = batch.video[0].numpy().transpose(0, 2, 1, 3, 4)
    np.testing.assert_allclose(noisy[~inside], plain[~inside], atol=1e-6)
    assert stats.kstest(noisy[inside].ravel()[::7], "norm").pvalue > 1e-4
    frames = noisy[inside].reshape(inside.sum(), -1)
    assert np.abs(np.corrcoef(frames) - np.eye(len(frames))).max() < 0.05
    heard_in = (instants(24000) >= start) & (instants(24000) < end)
    quiet, loud = batch.waveform[0].numpy()
    np.testing.assert_allclose(loud[~heard_in], quiet[~heard_in], atol=1e-6)
    rms = np.sqrt(np.mean(quiet**2))
    assert stats.kstest(loud[heard_in] / rms, "norm", (0, 1.02)).pvalue > 1e-4
    assert loud[heard_in].std() == pytest.approx(rms, rel=0.03)


# --- sound at another speed

bands = st.lists(st.tuples(st.floats(20, 2400), st.floats(0, 6)), min_size=1, max_size=4)


@settings(deadline=None, max_examples=40)
@given(
    bands,
    st.sampled_from([0.5, 1.5, 2.0, 3.0, 4.0]) | st.floats(0.5, 4).filter(lambda s: s != 1),
    st.booleans(),
)
def test_speed_and_stretch_keep_what_fits_the_band(
    waves: list[tuple[float, float]], speed: float, back: bool
) -> None:
    """Sums of sines below 0.8 of the new band's end, in closed form: x(s u)."""
    rate, origin = 24000, 2000.0

    def source(t: np.ndarray) -> np.ndarray:
        return sum((np.sin(2 * np.pi * hertz * t + phase) for hertz, phase in waves), np.zeros_like(t))

    steps: list[Step] = [("stretch(0.5, 4)", (speed,)), ("reverse(0.5)", (float(back),))]
    config = DataConfig(audio=AudioConfig(rate=rate, seconds=0.25, n_fft=512), modalities=("audio",))
    pcm = source((np.arange(rate + 4000) + 0.5 - origin) / rate)
    ours = hear(drawn(config, steps).timeline(0, 0, AUDIO), pcm, rate // 4, origin=origin)
    t = speed * (np.arange(rate // 4) + 0.5) / rate
    tolerance = (0.005 if float(speed).is_integer() else 0.03) * len(
        waves
    )  # arbitrary speeds: the nearest of 512 phases
    np.testing.assert_allclose(ours, source(t)[:: -1 if back else 1], atol=tolerance)


@pytest.mark.parametrize("device", DEVICES)
def test_without_antialias_samples_are_picked(media_dir: Path, device: str) -> None:
    """pcm[first::s], of noise, which no filter would leave alone; with it, they are not."""
    rate, noise = 24000, np.random.default_rng(0).uniform(-0.9, 0.9, 24000 * 6)

    def sound(t: np.ndarray) -> np.ndarray:
        return np.asarray(noise[np.minimum(np.round(t * rate).astype(int), len(noise) - 1)])

    file = write_clip(media_dir / f"picks-{device}.wav", frames=180, sound=sound, audio_rate=rate)
    speeds, catalog = (1, 2, 3, 4), catalog_of(file)
    views = tuple(ViewConfig(f"speed({s}) | reverse({back})") for s in speeds for back in (0, 1))
    for antialias in (False, True):
        audio = AudioConfig(rate=rate, seconds=1.0, antialias=antialias, waveform=True)
        config = DataConfig(audio=audio, views=views, moments="independent", modalities=("audio",))
        batch, start = first_batch(catalog, config, device), first_plan(catalog, config).start[0]
        assert batch.waveform is not None
        for view in range(len(views)):
            s, back = speeds[view // 2], view % 2
            first = int(np.floor(start[view] * rate + s / 2 + 1e-6))
            picks = noise[first : first + s * rate : s][:: -1 if back else 1]
            same = np.abs(batch.waveform[0, view].numpy() - picks).max() < 1e-3
            assert same == (s == 1 or not antialias), (s, back)


WINDOWS = AudioConfig(
    rate=24000, seconds=1.0, window=0.02, hop=0.01, n_fft=512, spectrum="linear", speed_on="spectrogram"
)
PACES = ("", "speed(2)", "speed(4)", "speed(0.5)", "stretch(1.3, 1.3)", "reverse(1)", "speed(2) | reverse(1)")


def decibels(batch: Batch, view: int) -> np.ndarray:
    assert batch.audio is not None
    return batch.audio[0, view, 0].double().numpy() * WINDOWS.std + WINDOWS.mean


@pytest.mark.parametrize("device", DEVICES)
def test_speed_on_the_spectrogram_keeps_frequencies(media_dir: Path, device: str) -> None:
    """A tone of bin 20 stays there at every speed; as a waveform it does not."""
    file = write_clip(
        media_dir / f"bin-{device}.wav", frames=180, sound=tone(20 * 24000 / 512), audio_rate=24000
    )
    views = tuple(ViewConfig(pace) for pace in PACES)
    for on, kept in (("spectrogram", True), ("waveform", False)):
        audio = replace(WINDOWS, speed_on=cast(Any, on))
        config = DataConfig(audio=audio, views=views, modalities=("audio",))
        batch = first_batch(catalog_of(file), config, device)
        for view, pace in enumerate(PACES):
            stays = kept or ("speed" not in pace and "stretch" not in pace)
            assert (decibels(batch, view).argmax(axis=0) == 20).all() == stays, (on, pace)


@pytest.mark.parametrize("device", DEVICES)
def test_speed_on_the_spectrogram_moves_events(media_dir: Path, device: str) -> None:
    """Clicks half a second apart stand in the columns that the map says, as sharp as they were."""
    clicks = np.arange(0.25, 6, 0.5)

    def sound(t: np.ndarray) -> np.ndarray:
        return np.asarray(0.8 * (np.abs(t[:, None] - clicks).min(axis=1) < 0.0005))

    file = write_clip(media_dir / f"clicks-{device}.wav", frames=180, sound=sound, audio_rate=24000)
    config = DataConfig(
        audio=WINDOWS, views=tuple(ViewConfig(p) for p in PACES), moments="independent", modalities=("audio",)
    )
    catalog = catalog_of(file)
    batch, clips = first_batch(catalog, config, device), first_plan(catalog, config)
    middles, found = 0.01 + 0.01 * np.arange(99), 0
    for view, pace in enumerate(PACES):
        level = decibels(batch, view).max(axis=0)
        speed, back = clips.speed[0, view, AUDIO], "reverse" in pace
        for click in clicks:
            moment = (click - clips.start[0, view]) / speed
            moment = 1 - moment if back else moment
            if 0.03 < moment < 0.97:
                column = int(np.abs(middles - moment).argmin())
                if abs(middles[column] - moment) * speed < 0.006:  # well inside that window
                    assert level[column - 1 : column + 2].max() > level.min() + 30, (pace, moment)
                    found += 1
        events = np.flatnonzero(level > level.min() + 10)
        width = max(len(run) for run in np.split(events, np.flatnonzero(np.diff(events) > 1) + 1))
        assert width <= max(2 / speed + 1, 2), (pace, width)
    assert found >= 8


@pytest.mark.parametrize("device", DEVICES)
def test_a_reversed_spectrogram_is_the_spectrogram_flipped(media_dir: Path, device: str) -> None:
    def sweep(t: np.ndarray) -> np.ndarray:
        return np.asarray(0.5 * np.sin(2 * np.pi * (300 + 500 * t) * t))

    file = write_clip(media_dir / f"sweep-{device}.wav", frames=180, sound=sweep, audio_rate=24000)
    views = tuple(ViewConfig(pace) for pace in ("", "reverse(1)"))
    batch = first_batch(
        catalog_of(file), DataConfig(audio=WINDOWS, views=views, modalities=("audio",)), device
    )
    forth, back = decibels(batch, 0), decibels(batch, 1)
    loud = forth > forth.max() - 50
    assert np.abs(back[:, ::-1] - forth)[loud].max() < 0.01
    assert np.abs(back - forth)[loud].max() > 10


# --- pitch

RATE = 24000


def pitched(
    pcm: np.ndarray, semitones: float, seconds: float = 1.0, steps: tuple[Step, ...] = ()
) -> np.ndarray:
    """A clip from 0.1 s on of a longer sound, shifted; further steps before."""
    config = DataConfig(audio=AudioConfig(rate=RATE, seconds=seconds), modalities=("audio",))
    sound = Sound(pcm.astype(np.float32), float(RATE), 0.1 * RATE)
    timeline = drawn(config, [*steps, ("pitch(24)", (semitones,))]).timeline(0, 0, AUDIO, sound)
    return hear(timeline, sound.pcm, round(RATE * seconds), origin=sound.origin)


def decibels_of(wave: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(hertz, decibels below the peak)."""
    power = np.abs(np.fft.rfft(wave * signal.get_window("blackmanharris", len(wave)))) ** 2
    return np.fft.rfftfreq(len(wave), 1 / RATE), 10 * np.log10(power / power.max() + 1e-12)


def times(seconds: float) -> np.ndarray:
    return np.arange(round(RATE * seconds)) / RATE


@pytest.mark.parametrize("semitones", [-12.0, -7.0, -3.0, -0.5, 0.5, 1.0, 4.0, 7.0, 12.0])
@pytest.mark.parametrize("hertz", [220.0, 440.0, 997.0, 2500.0])
def test_a_tone_comes_out_at_its_new_frequency(hertz: float, semitones: float) -> None:
    """One component, at 2^(n/12) times the frequency, as loud as it was and as long."""
    source = 0.5 * np.sin(2 * np.pi * hertz * times(1.5))
    wave = pitched(source, semitones)
    assert wave.shape == (RATE,)
    spectrum, level = decibels_of(wave)
    peak = spectrum[level.argmax()]
    assert peak == pytest.approx(hertz * 2 ** (semitones / 12), rel=0.0025, abs=1.0)
    assert level[np.abs(spectrum - peak) > 12].max() < -24
    assert 20 * np.log10(wave.std() / source.std()) == pytest.approx(0, abs=1)


@pytest.mark.parametrize("length", [0.002, 0.03])
@pytest.mark.parametrize("semitones", [-12.0, -8.0, -5.0, -2.0, 2.0, 5.0, 8.0, 12.0])
def test_clicks_stay_where_they_are(semitones: float, length: float) -> None:
    """Within 20 ms: none far away from every original, and none lost that is longer than what a lower pitch skips.

    Pieces of 40 ms, read at the ratio r and 10 ms into the next one, leave 40 - 50 r milliseconds unread.
    """
    clicks, burst = np.arange(0.15, 1.2, 0.097), round(length * RATE)
    source = np.zeros(round(1.5 * RATE))
    for click in clicks:
        source[round(click * RATE) :][:burst] = 0.8 * np.sin(2 * np.pi * 1500 * np.arange(burst) / RATE)
    loud = np.flatnonzero(np.abs(pitched(source, semitones)) > 0.2) / RATE + 0.1
    before = loud[:, None] - clicks  # how late every loud sample is
    assert np.abs(np.where(before > 0, np.maximum(before - length, 0), before)).min(axis=1).max() < 0.02
    if length > 0.04 - 0.05 * 2 ** (semitones / 12):
        assert (np.abs(before).min(axis=0)[(clicks > 0.13) & (clicks < 1.07 - length)] < 0.02).all()


@pytest.mark.parametrize("semitones", [-7.0, -3.0, 3.0, 7.0])
def test_harmonic_sounds_are_shifted_as_librosas(semitones: float) -> None:
    """The spectral centroid of a buzzing note: a phase vocoder and splices agree within a few per cent."""
    t = times(1.5)
    source = sum(0.3 / k * np.sin(2 * np.pi * 180 * k * t + k) for k in range(1, 12))
    ours = pitched(np.asarray(source), semitones)
    theirs = pitch_shift(np.asarray(source), sr=RATE, n_steps=semitones)[RATE // 10 :][:RATE]

    def centroid(wave: np.ndarray) -> float:
        return float(np.median(spectral_centroid(y=wave.astype(np.float32), sr=RATE)))

    assert centroid(ours) == pytest.approx(centroid(theirs), rel=0.03)
    assert abs(centroid(ours) / centroid(np.asarray(source)) - 1) > 0.1


def test_pitch_before_and_after_other_steps() -> None:
    """Both orders run, and differ; each is what it says of a tone: its new frequency, and where it is silent."""
    t = times(1.5)
    config = DataConfig(audio=AudioConfig(rate=RATE), modalities=("audio",))
    others: tuple[Step, ...] = (
        ("shift(1)", (0.37,)), ("resample(1)", (0.8,)), ("mask(1, 0)", (0.2, 0.5, 1.0)), ("fade(1)", (0.4, 0.3, 8.0)),
        ("reverse(1)", (1.0,)), ("noise(any)", (20.0, 1.0, 0.0)), ("speed(2)", (2.0,)),
    )  # fmt: skip
    sound = Sound((0.5 * np.sin(2 * np.pi * (300 + 60 * t) * t)).astype(np.float32), float(RATE), 0.0)
    for other in others:
        waves = []
        for steps in ([("pitch(24)", (5.0,)), other], [other, ("pitch(24)", (5.0,))]):
            timeline = drawn(config, steps).timeline(0, 0, AUDIO, sound)
            waves.append(hear(timeline, sound.pcm, RATE))
        assert all(np.isfinite(w).all() and w.std() > 0.05 for w in waves)
        same = name_of(other) in (
            "speed",
            "mask",
            "fade",
            "noise",
        )  # of the recording, or blind to milliseconds
        assert (np.abs(waves[0] - waves[1]).max() > 0.05) == (not same), other


def test_a_shift_of_nothing_changes_nothing() -> None:
    source = np.random.default_rng(0).normal(size=round(1.5 * RATE)).astype(np.float32)
    np.testing.assert_array_equal(pitched(source, 0.0), source[RATE // 10 :][:RATE])


# --- coloured noise

SLOPES = {"white": 0.0, "pink": -10.0, "brown": -20.0}  # decibels a decade


def noise_alone(colour: str, ratio: float, key: int, rms: float = 0.3, seconds: float = 20.0) -> np.ndarray:
    """What is added to a sound of that loudness."""
    pcm = np.full(round(RATE * seconds), rms, np.float32)
    clip = Clip("audio", seconds, RATE * seconds, Sound(pcm, float(RATE), 0.0))
    (step,) = parse(f"noise({colour})", TRANSFORMS)
    timeline = step.what.timeline((ratio, float(key), float(list(SLOPES).index(colour))), clip, TimeMap())
    return hear(timeline, pcm, len(pcm)).astype(np.float64) - rms


@pytest.mark.parametrize("colour", SLOPES)
def test_the_slope_of_a_noises_spectrum(colour: str) -> None:
    """Least squares on Welch's estimate, over two and a half decades."""
    hertz, power = signal.welch(noise_alone(colour, 0.0, 3), RATE, nperseg=8192)
    used = (hertz > 20) & (hertz < 8000)
    slope, _ = np.polyfit(np.log10(hertz[used]), 10 * np.log10(power[used]), 1)
    assert slope == pytest.approx(SLOPES[colour], abs=1)


@pytest.mark.parametrize("colour", SLOPES)
@settings(deadline=None, max_examples=15)
@given(st.floats(0, 40), keys, st.floats(0.01, 0.9))
def test_the_signal_to_noise_ratio_is_the_one_drawn(colour: str, ratio: float, key: int, rms: float) -> None:
    added = noise_alone(colour, ratio, key, rms, 2.0)
    assert 20 * np.log10(rms / np.sqrt(np.mean(added**2))) == pytest.approx(ratio, abs=0.3)


@pytest.mark.parametrize("colour", SLOPES)
@pytest.mark.parametrize("key", [0, 1, 2**31 - 1])
def test_noise_is_gaussian(colour: str, key: int) -> None:
    """Whitened, all samples of all colours are draws of one normal distribution."""
    added = noise_alone(colour, 0.0, key, seconds=4.0)
    spectrum = np.fft.rfft(added)
    white = np.fft.irfft(spectrum * np.arange(len(spectrum)) ** (-SLOPES[colour] / 20), len(added))
    assert stats.kstest(white / white.std(), "norm").pvalue > 1e-4
    assert abs(np.corrcoef(white[1:], white[:-1])[0, 1]) < 0.02


def test_other_keys_are_other_noises() -> None:
    for colour in SLOPES:
        one, same, other = (noise_alone(colour, 0.0, key, seconds=2.0) for key in (1, 1, 2))
        np.testing.assert_array_equal(one, same)
        assert abs(np.corrcoef(one, other)[0, 1]) < (0.05 if colour == "white" else 0.8)


def test_filters_go_by_the_steepest_place() -> None:
    """Raised by an octave, what would alias is gone: the splices' slope counts as speed does."""
    source = 0.5 * np.sin(2 * np.pi * 9000 * times(1.5))  # an octave up: beyond Nyquist's frequency
    assert pitched(source, 12.0).std() < 1e-3 * source.std()
    taps = bank(Fraction(1), 2.0)
    assert np.abs(np.fft.rfft(taps[0], 4096))[int(0.35 * 4096) :].max() < 2e-3
