"""What a preset, or recipes, make of one file, as arrays: through the plan, source and graph that training uses."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import Tensor

from ..config import build, read
from ..pipelines import table
from ..pipelines.batch import Batch
from ..pipelines.catalog import Catalog
from ..pipelines.config import DataConfig, ViewConfig
from ..pipelines.cut import Policy, Source, recordings
from ..pipelines.datasets import Entry
from ..pipelines.loader import AVLoader, ErrorBudget, LoaderError
from ..pipelines.plan import MODALITIES, ClipPlan, plan
from ..pipelines.probe import Probe, Reject, probe
from ..pipelines.recording import Recording, table_of
from .bands import band_centres
from .take import Sheet, Take, tracks
from .told import told

SLACK = 0.01  # seconds by which a typed start may miss the recording's own
FITS = 1e-6  # seconds


class ViewError(ValueError):
    """Something that cannot be shown; one line says why."""


def look(
    file: str | Path,
    preset: str = "svaclr",
    start: float | None = None,
    overrides: Iterable[str] = (),
    *,
    recipes: Sequence[str] = (),
    seed: int = 0,
) -> Sheet:
    """The views of `file` as training would draw them, or those of `recipes`.

    Args:
        file: a video, a silent film or a sound.
        preset: whose `data:` section says what a clip is; or a YAML file.
        start: seconds of the file's presentation time where the clips begin; where the length of a clip depends on the
            length of the recording, or each view has its own moment, they begin there or later. Default: moments are
            drawn as in training; clips of recipes lie in the middle.
        overrides: `data.key=value`, laid over the preset.
        recipes: shown instead of the preset's views, all of one moment, with the picture's centre, its own colours
            and no blur, so that only time and tone differ: "", "speed(2) | shift(0.5)", …
        seed: of all that is drawn.

    Raises:
        ViewError: nothing to show, or a start outside the recording.
        ConfigError: no such preset or key.
    """
    wanted = _config(preset, list(overrides), recipes)
    found = probe(str(file))
    if isinstance(found, Reject):
        raise ViewError(f"{file}: {found.reason}" + (f" ({found.detail})" if found.detail else ""))
    missing = {"video": found.no_video, "audio": found.no_audio}
    present = tuple(name for name in wanted.modalities if not missing[name])
    if not present:
        raise ViewError(f"{file}: {' and '.join(missing[name] for name in wanted.modalities)}")
    whole = replace(wanted, modalities=present)
    recording = _recording(found, whole)
    config, notes = _fitting(whole, recording, start, drop=bool(recipes))
    notes = [missing[name] for name in wanted.modalities if missing[name]] + notes
    window = _window(recording, config, seed, start, centred=bool(recipes))
    takes = tuple(_takes(*_draw(window, config, seed), config))
    origin = f"recipes in a clip of {preset}" if recipes else f"as {preset} draws it"
    return Sheet(recording, config, takes, band_centres(config.audio), f"{origin}, seed {seed}", tuple(notes))


def _config(preset: str, overrides: Sequence[str], recipes: Sequence[str]) -> DataConfig:
    for item in overrides:
        if not item.startswith("data."):
            raise ViewError(f"{item}: only data.… changes what is seen, such as data.video.size=96")
    config = build(DataConfig, read(preset, overrides).get("data", {}), "data.")
    # decibels are drawn as they are, so what a file of statistics would divide by plays no part
    audio = replace(config.audio, stats=None, waveform=config.audio.speed_on == "waveform")
    config = replace(config, audio=audio)
    if not recipes:
        return config
    try:
        views = tuple(ViewConfig(recipe) for recipe in recipes)
    except ValueError as error:
        raise ViewError(f"--recipe: {error}") from None
    return replace(config.for_test(1), views=views, moments="same")


def _recording(found: Probe, config: DataConfig) -> Recording:
    """The whole file, as `coaug index` would list it."""
    name = Path(found.path).name
    row = next(recordings(Source(found.path, name, Entry(name)), found, {}, Policy(config.modalities)))
    if isinstance(row, Reject):
        raise ViewError(f"{found.path}: {row.reason}")
    return row


def _fitting(
    config: DataConfig, recording: Recording, start: float | None, *, drop: bool
) -> tuple[DataConfig, list[str]]:
    """The config with the views for which the recording lasts long enough, all of them unless some may be dropped."""
    needs = [replace(config, views=(view,)).needed_seconds for view in config.views]
    least = min(needs) if drop else max(needs)
    latest = recording.end - least
    if latest < recording.start - FITS:
        raise ViewError(f"{recording.path}: lasts {recording.duration:.2f} s, a clip needs {least:.2f} s")
    if start is not None and not recording.start - SLACK <= start <= latest + SLACK:
        raise ViewError(
            f"{recording.path}: a clip can start at {recording.start:.2f} to {latest:.2f} s, not at {start:g}"
        )
    room = recording.end - (recording.start if start is None else min(start, latest))
    fits = [need <= room + FITS for need in needs]
    kept = tuple(view for view, fit in zip(config.views, fits, strict=True) if fit)
    notes = [f"too short for {v.temporal}" for v, fit in zip(config.views, fits, strict=True) if not fit]
    return replace(config, views=kept), notes


def _window(
    recording: Recording, config: DataConfig, seed: int, start: float | None, *, centred: bool
) -> Recording:
    """The part of the recording that moments are drawn from: all of it, or just what the clips need at one moment."""
    if start is None and not centred:
        return recording
    latest = recording.end - config.needed_seconds
    first = recording.start if start is None else max(min(start, latest), recording.start)
    rest = replace(recording, start=first)
    drawn = _plan(rest, config, seed)
    used = [MODALITIES.index(name) for name in config.modalities]
    offset, speed = drawn.offset[0][:, used], drawn.speed[0][:, used]
    seconds = float((offset + speed * config.clip_seconds).max() - offset.min())
    if start is None:
        first += max(recording.duration - seconds, 0.0) / 2
    exact = replace(recording, start=first, end=min(first + seconds, recording.end))
    same = np.array_equal(_plan(exact, config, seed).steps, drawn.steps, equal_nan=True)
    return exact if same else rest  # a speed may be drawn of those that fit: then the room must stay


def _plan(recording: Recording, config: DataConfig, seed: int) -> ClipPlan:
    with _catalog(recording) as catalog:
        return plan(catalog, config, seed=seed, epoch=0, rows=np.array([0]))


def _draw(recording: Recording, config: DataConfig, seed: int) -> tuple[ClipPlan, Batch]:
    """The one batch of a catalog of one recording, and what was planned for it."""
    budget = ErrorBudget(count=0)
    with _catalog(recording) as catalog:
        clips = plan(catalog, config, seed=seed, epoch=0, rows=np.array([0]))
        try:
            with AVLoader(
                catalog, config, batch_size=1, seed=seed, epochs=1, workers=0, budget=budget
            ) as loader:
                return clips, next(iter(loader))
        except LoaderError as error:
            raise ViewError(str(error)) from None


@contextmanager
def _catalog(recording: Recording) -> Iterator[Catalog]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "view.parquet"
        table.write(table_of([recording], []), path)
        yield Catalog.open(path)


def _takes(clips: ClipPlan, batch: Batch, config: DataConfig) -> Iterator[Take]:
    for v, view in enumerate(config.views):
        frames = None if batch.video is None else pixels(batch.video[0, v], config)
        decibels = waveform = None
        if batch.audio is not None:
            decibels = batch.audio[0, v, 0].numpy() * config.audio.std + config.audio.mean
        if batch.waveform is not None:
            waveform = batch.waveform[0, v].numpy()
        yield Take(
            recipe=view.temporal if view.apply == "aligned" else f"{view.apply}: {view.temporal}",
            told=told(clips, v),
            tracks=tracks(clips, v),
            frames=frames,
            pts=batch.video_pts[0, v].numpy(),
            waveform=waveform,
            decibels=decibels,
            audio_pts=batch.audio_pts[0, v].numpy(),
        )


def pixels(video: Tensor, config: DataConfig) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """(T, H, W, 3) uint8 of (3, T, H, W) normalised."""
    mean, std = (np.array(values)[:, None, None, None] for values in (config.video.mean, config.video.std))
    scaled = 255 * (video.numpy() * std + mean)
    return np.asarray(scaled.round().clip(0, 255), np.uint8).transpose(1, 2, 3, 0)
