"""`coaug view`: one file as the encoders see it, as recorded and sped up (Fig. 1 and 4 of SpeedAug).

Everything on the sheet has gone through the loader that training uses: the same source, graph and numbers.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..config import build, read
from ..pipelines import table
from ..pipelines.batch import Batch
from ..pipelines.catalog import Recording, table_of
from ..pipelines.config import DataConfig, ViewConfig
from ..pipelines.cut import Policy, Source, recordings
from ..pipelines.datasets import Entry
from ..pipelines.loader import AVLoader, ErrorBudget, LoaderError
from ..pipelines.probe import Probe, Reject, probe
from .sheet import Sheet, Take, draw

SPEEDS = (1.0, 2.0, 4.0)
FORMATS = (".png", ".pdf", ".svg")
SLACK = 0.01  # seconds by which a typed start may miss the recording's own


class ViewError(ValueError):
    """A sheet that cannot be made; one line says why."""


def view(
    file: str | Path,
    preset: str = "svaclr",
    out: str | Path | None = None,
    start: float | None = None,
    overrides: Iterable[str] = (),
) -> Path:
    """Draws frames and spectrograms of `file` at speeds 1, 2 and 4 on one time axis.

    Args:
        file: a video or a sound.
        preset: whose `data:` section says what a clip is; or a YAML file.
        out: the sheet, .png, .pdf or .svg; default: `<name>.png` in the current folder.
        start: where the clips begin, seconds of the file's presentation time; default: they lie in its middle.
        overrides: `data.key=value`, laid over the preset.

    Returns:
        The sheet's path.

    Raises:
        ViewError: nothing to show, a start outside the recording, or a sheet that cannot be written.
        ConfigError: no such preset or key.
    """
    path = Path(out) if out is not None else Path(f"{Path(file).stem}.png")
    if path.suffix.lower() not in FORMATS:
        raise ViewError(f"{path}: a sheet is a {', '.join(FORMATS)} file")
    figure = draw(look(file, preset, start, overrides))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
    except OSError as error:
        raise ViewError(f"{path}: cannot be written ({error.strerror or error})") from None
    return path


def look(
    file: str | Path, preset: str = "svaclr", start: float | None = None, overrides: Iterable[str] = ()
) -> Sheet:
    """What the sheet of `file` shows, as arrays. Arguments and errors as for `view`."""
    wanted = _config(preset, list(overrides))
    found = probe(str(file))
    if isinstance(found, Reject):
        raise ViewError(f"{file}: {found.reason}" + (f" ({found.detail})" if found.detail else ""))
    missing = {"video": found.no_video, "audio": found.no_audio}
    present = tuple(name for name in wanted.modalities if not missing[name])
    if not present:
        raise ViewError(f"{file}: {' and '.join(missing[name] for name in wanted.modalities)}")
    config = replace(wanted.for_test(1), modalities=present, moments="same")
    recording = _recording(found, config)
    window, speeds = _window(recording, config.clip_seconds, start)
    config = replace(config, views=tuple(ViewConfig((s,), (s,)) for s in speeds))
    batch = _load(window, config)
    notes = [missing[name] for name in wanted.modalities if missing[name]]
    notes += [f"too short for {s:g}×" for s in SPEEDS if s not in speeds]
    takes = tuple(_takes(batch, config))
    return Sheet(recording, config, window.start, takes, mel_centres(config), tuple(notes))


def mel_centres(config: DataConfig) -> NDArray[np.float64]:
    """(F,) Hz: centres of the mel bands on Slaney's scale, linear up to 1 kHz and logarithmic from there."""
    step, ratio = 200 / 3, np.log(6.4) / 27
    nyquist = config.audio.rate / 2
    top = nyquist / step if nyquist < 1000 else 15 + np.log(nyquist / 1000) / ratio
    mels = np.linspace(0, top, config.audio.mels + 2)[1:-1]
    return np.where(mels < 15, mels * step, 1000 * np.exp((mels - 15) * ratio))


def _config(preset: str, overrides: Sequence[str]) -> DataConfig:
    for item in overrides:
        if not item.startswith("data."):
            raise ViewError(f"{item}: only data.… changes what is seen, such as data.video.size=96")
    return build(DataConfig, read(preset, overrides).get("data", {}), "data.")


def _recording(found: Probe, config: DataConfig) -> Recording:
    """The whole file, as `coaug index` would list it."""
    name = Path(found.path).name
    row = next(recordings(Source(found.path, name, Entry(name)), found, {}, Policy(config.modalities)))
    if isinstance(row, Reject):
        raise ViewError(f"{found.path}: {row.reason}")
    return row


def _window(recording: Recording, seconds: float, start: float | None) -> tuple[Recording, tuple[float, ...]]:
    """The part that the longest clip covers, where the loader then has no choice, and the speeds that fit."""
    latest = recording.end - seconds
    if latest < recording.start - 1e-6:
        raise ViewError(f"{recording.path}: lasts {recording.duration:.2f} s, a clip needs {seconds:.2f} s")
    if start is not None and not recording.start - SLACK <= start <= latest + SLACK:
        raise ViewError(
            f"{recording.path}: a clip can start at {recording.start:.2f} to {latest:.2f} s, not at {start:g}"
        )
    first = recording.start if start is None else max(min(start, latest), recording.start)
    speeds = tuple(s for s in SPEEDS if s * seconds <= recording.end - first + 1e-6)
    longest = speeds[-1] * seconds
    if start is None:
        first += max(recording.duration - longest, 0.0) / 2
    return replace(recording, start=first, end=first + longest), speeds


def _load(recording: Recording, config: DataConfig) -> Batch:
    """The one batch of a catalog of one recording."""
    with tempfile.TemporaryDirectory() as folder:
        catalog = Path(folder) / "view.parquet"
        table.write(table_of([recording], []), catalog)
        budget = ErrorBudget(count=0)
        try:
            with AVLoader(catalog, config, batch_size=1, epochs=1, workers=0, budget=budget) as loader:
                return next(iter(loader))
        except LoaderError as error:
            raise ViewError(str(error)) from None


def _takes(batch: Batch, config: DataConfig) -> Iterator[Take]:
    mean, std = (np.array(values)[:, None, None, None] for values in (config.video.mean, config.video.std))
    for v in range(len(config.views)):
        frames = decibels = None
        if batch.video is not None:
            pixels = 255 * (batch.video[0, v].numpy() * std + mean)
            frames = pixels.round().clip(0, 255).astype(np.uint8).transpose(1, 2, 3, 0)
        if batch.audio is not None:
            decibels = batch.audio[0, v, 0].numpy() * config.audio.std + config.audio.mean
        speed = config.views[v].video_speeds[0]
        yield Take(speed, frames, batch.video_pts[0, v].numpy(), decibels, batch.audio_pts[0, v].numpy())
