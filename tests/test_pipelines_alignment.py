"""Aligned means aligned: what is seen and what is heard of one event stay together, whatever the clip goes through.

The event is a flash and a beep that swell and fade together. Picture and sound are reduced to the circular centroid of
their energy over the clip's time; circular, because a shifted clip is a loop. A clip whose event is masked, faded out
or cut off has none: it is left out and counted.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from catalogs import repeated, write
from hearing import evaluate
from media import write_clip

from coaug.config import build, read
from coaug.pipelines.catalog import Catalog
from coaug.pipelines.config import DataConfig, ViewConfig
from coaug.pipelines.loader import AVLoader
from coaug.pipelines.plan import AUDIO, VIDEO, ClipPlan, plan
from coaug.pipelines.program import picture_tone, sound_program
from coaug.pipelines.recording import AudioStream, Recording, VideoStream, sample_id
from coaug.pipelines.resample import bank
from coaug.pipelines.temporal import Sound
from coaug.pipelines.temporal.resample import Resample
from coaug.pipelines.timeline import instants

PRESETS = ("svaclr", "svaclr-demo", "avid-small", "avid", "tempssl", "staug")
WIDTH = 4  # frames, the length of the event in a clip's own time
HERTZ = 1000.0
LEAST = 0.6  # of the event's energy must be left for a centroid to be its place


def aligned_at(preset: str) -> DataConfig:
    """A preset's times and rates, with small, plain pictures."""
    config = build(DataConfig, read(preset)["data"])
    plain: dict[str, Any] = dict.fromkeys(
        ("flip", "brightness", "contrast", "saturation", "hue", "blur"), 0.0
    )
    video = replace(config.video, size=16, crop="centre", mean=(0.0,) * 3, std=(1.0,) * 3, **plain)
    return replace(config, video=video, audio=replace(config.audio, waveform=True), moments="independent")


def transforms(seconds: float) -> tuple[str, ...]:
    """Every one that there is; masks are black and silent, for noise is an event of its own."""
    return (
        "speed(0.5, 2)",
        "stretch(0.7, 1.4)",
        f"duration({0.7 * seconds}, {1.4 * seconds})",
        "offset(0.5)",
        "reverse(1)",
        "fade(0.4)",
        "mask(0.4, 0)",
        "shift(1)",
        "resample(0.5)",
        "volume(0.9, 1.1)",
        "pitch(7)",
        "noise(any, 20, 30)",
    )


def recipes(seconds: float) -> tuple[str, ...]:
    """Each one alone, and every ordered pair; a clip's pitch is shifted once at most."""
    alone = transforms(seconds)
    pairs = [f"{one} | {two}" for one, two in product(alone, alone) if not one == two == "pitch(7)"]
    return (*alone, *pairs)


# --- centroids


def swell(t: np.ndarray, width: float) -> np.ndarray:
    """From 0 to 1 and back, over `width` seconds around t = 0."""
    return np.where(np.abs(t) < width / 2, np.cos(np.pi * t / width) ** 2, 0.0)


def apart(light: np.ndarray, wave: np.ndarray, config: DataConfig, speed: float = 1.0) -> float | None:
    """Seconds by which the beep (S,) is later than the flash (T,); None where one of them has no place.

    `speed` is that at which an event of `WIDTH` frames is played.
    """
    video, audio, seconds = config.video, config.audio, config.clip_seconds
    whole = [3 / 8 * WIDTH / speed, 3 / 16 * WIDTH / speed * audio.rate / video.fps]
    centres = []
    for shown, full, length in zip((light, wave), whole, (video.seconds, audio.seconds), strict=True):
        u = instants(len(shown)) * length / seconds
        energy = shown.astype(np.float64) ** 2 * (
            u * seconds <= min(config.lengths.values())
        )  # what both play
        centre = (energy * np.exp(2j * np.pi * u)).sum()
        if energy.sum() < LEAST * full or abs(centre) < 0.5 * energy.sum():
            return None
        centres.append(centre)
    return float(np.angle(centres[1] * np.conj(centres[0])) / (2 * np.pi) * seconds)


def tolerance(clips: ClipPlan, sample: int, view: int) -> float:
    """Half a frame, or half the time that the picture is held."""
    config, count = clips.config, clips.clip(VIDEO).count
    steps = zip(config.views[view].steps, clips.steps[sample, view, VIDEO], strict=False)
    held = [1 / max(round(count * (1 - p[0])), 1) for step, p in steps if isinstance(step.what, Resample)]
    return float(max([1 / config.video.fps, *(config.clip_seconds * h for h in held)])) / 2


# --- without files: every pair at every preset's rates


def seen_and_heard(clips: ClipPlan, sample: int, view: int, place: float) -> tuple[np.ndarray, np.ndarray]:
    """(light (T,), wave (S,)) of a recording whose event the picture shows at the share `place` of what both play."""
    config, start = clips.config, clips.start[sample, view]
    video, audio, seconds = config.video, config.audio, config.clip_seconds
    picture = clips.timeline(sample, view, VIDEO)
    speed = clips.speed[sample, view]
    width, margin = WIDTH / video.fps, 0.5 * WIDTH / video.fps
    at = margin + place * (min(config.lengths.values()) - 2 * margin)
    event = start + seconds * float(picture.time(at / seconds))
    u = instants(video.frames) * video.seconds / seconds
    gain, fill, noise, _ = picture_tone(picture, u).T
    assert (noise == 0).all()
    light = gain * swell(start + seconds * picture.time(u) - event, width * speed[VIDEO]) + fill

    first = round((start + clips.offset[sample, view, AUDIO] - 0.2 * seconds) * audio.rate)
    t = (first + np.arange(round((speed[AUDIO] + 0.4) * seconds * audio.rate)) + 0.5) / audio.rate - event
    pcm = (swell(t, width * speed[AUDIO]) * np.sin(2 * np.pi * HERTZ * t)).astype(np.float32)
    sound = Sound(pcm, float(audio.rate), start * audio.rate - first)
    timeline = clips.timeline(sample, view, AUDIO, sound)
    program = sound_program(timeline, audio.rate * seconds, sound.origin, audio.rate * seconds)
    return light, evaluate(program, pcm, bank(Fraction(1), timeline.time.steepest), audio.samples)


@pytest.fixture(scope="session")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """Recordings of a minute, of which only times are asked."""
    video = VideoStream("h264", 320, 240, 0, 30.0, False, 0.0, 60.0)
    audio = AudioStream("aac", 44100, 2, 0.0, 60.0, -10.0)
    rows = (
        Recording(sample_id(f"r{i}"), f"r{i}", "/r", 0.0, 60.0, 0, "train", video, audio) for i in range(9)
    )
    return write(tmp_path_factory.mktemp("aligned") / "lasting.parquet", rows)


def differences(catalog: Catalog, config: DataConfig, rows: int) -> list[tuple[str, float | None, float]]:
    """(recipe, seconds apart or None, seconds allowed) of every clip."""
    clips = plan(catalog, config, seed=0, epoch=0, rows=np.arange(rows))
    places = np.random.default_rng(0).random((rows, len(config.views)))
    found = []
    for sample, view in np.ndindex(places.shape):
        light, wave = seen_and_heard(clips, sample, view, float(places[sample, view]))
        off = apart(light, wave, config)
        found.append((config.views[view].temporal, off, tolerance(clips, sample, view)))
    return found


def astray(found: list[tuple[str, float | None, float]]) -> list[tuple[str, float, float]]:
    return [(recipe, off, most) for recipe, off, most in found if off is not None and abs(off) >= most]


@pytest.mark.parametrize("preset", PRESETS)
def test_every_transform_and_every_ordered_pair(preset: str, lasting: Catalog) -> None:
    """On 5 × 155 clips, of which few have no event left, and of no recipe all."""
    config = aligned_at(preset)
    views = tuple(ViewConfig(recipe, "aligned") for recipe in recipes(config.clip_seconds))
    found = differences(lasting, replace(config, views=views), 5)
    assert astray(found) == []
    assert {view.temporal for view in views} == {recipe for recipe, off, _ in found if off is not None}
    assert sum(off is None for _, off, _ in found) < 0.12 * len(found)


@pytest.mark.parametrize(
    "recipe", ["shift(1)", "stretch(0.5, 2)", "reverse(0.5)", "offset(0.5)", "duration(0.5, 2)"]
)
def test_unaligned_clips_are_found_out(recipe: str, lasting: Catalog) -> None:
    """The measure sees what alignment prevents."""
    config = replace(aligned_at("svaclr"), views=(ViewConfig(recipe, "unaligned"),) * 4)
    found = differences(lasting, config, 6)
    measured = [off for _, off, _ in found if off is not None]
    assert len(astray(found)) > 0.3 * max(len(measured), 5)


# --- through the loader: files, decoders, filters

ROUTES = {"svaclr": ("aligned.mp4", "auto"), "staug": ("aligned.webm", "libvpx")}
LOUD, FINE = 0.9, 120  # amplitude of the beep, frames a second of the files


@pytest.mark.parametrize("preset", ROUTES)
def test_through_the_loader(preset: str, media_dir: Path) -> None:
    """All transforms alone and every twelfth pair, on parts of a file with an event in the middle of each."""
    config, (name, codec) = aligned_at(preset), ROUTES[preset]
    seconds, width = config.clip_seconds, WIDTH / config.video.fps
    period, rows = 2 * seconds, 6

    def event(t: np.ndarray) -> np.ndarray:
        return swell(t % period - 0.5 * period, width)

    clip = write_clip(
        media_dir / name,
        size=(48, 48),
        fps=FINE,
        frames=round(rows * period * FINE),
        codec=codec,
        # a frame is on screen from its pts on: it shows the middle of its time
        picture=lambda _, t: np.full((48, 48, 3), np.round(255 * event(np.array(t + 0.5 / FINE))), np.uint8),
        sound=lambda t: LOUD * event(t) * np.sin(2 * np.pi * HERTZ * t),
    )
    written = recipes(seconds)
    views = tuple(ViewConfig(recipe) for recipe in (*written[:12], *written[12::12]))
    config = replace(config, views=views)
    parts = (
        replace(whole, start=period * i, end=period * (i + 1))
        for i, whole in enumerate(repeated([clip.path], rows))
    )
    catalog = write(media_dir / f"aligned-{preset}.parquet", parts)
    with AVLoader(catalog, config, batch_size=rows, workers=0, shuffle=False) as loader:
        batch = next(iter(loader))
    assert bool(batch.valid.all()) and batch.video is not None and batch.waveform is not None
    clips, found = plan(catalog, config, seed=0, epoch=0, rows=np.arange(rows)), []
    for sample, view in np.ndindex(rows, len(views)):
        light = batch.video[sample, view].mean((0, 2, 3)).numpy()
        wave, speed = batch.waveform[sample, view].numpy() / LOUD, float(batch.speed[sample, view, 0])
        off = apart(light, wave, config, speed)
        found.append((views[view].temporal, off, tolerance(clips, sample, view)))
    assert astray(found) == []
    measured = [recipe for recipe, off, _ in found if off is not None]
    assert len(measured) > 0.3 * len(found) and len(set(measured)) > 0.7 * len(views), len(measured) / len(
        found
    )
