"""Mean and standard deviation of every band over a training set: what per-frequency Z-normalisation divides by.

AVID-CMA normalises each frequency with statistics of its training set (its text, section 4; a file in its code).
`coaug stats` makes such a file from a catalog; `load_stats` reads it where the graph is built.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .config import AudioConfig, DataConfig
from .table import replace as replace_file

BATCH = 16
STILL = 1e-3  # dB: less than this is rounding
SETTINGS = ("rate", "window_samples", "n_fft", "floor_db")  # what else the level in a band depends on


class StatsError(ValueError):
    """Statistics that cannot be used or computed; the message says why and what to do."""


@dataclass(frozen=True)
class Moments:
    """Running mean and sum of squared deviations of F bands, float64.

    Merged pairwise (Chan, Golub and LeVeque, 1979), which does not cancel as sums of squares would.
    """

    count: int
    mean: NDArray[np.float64]
    squares: NDArray[np.float64]

    @classmethod
    def of(cls, values: NDArray[Any]) -> Moments:
        """Of the rows of (n, F)."""
        values = values.astype(np.float64)
        mean = values.mean(axis=0)
        return cls(len(values), mean, ((values - mean) ** 2).sum(axis=0))

    def __add__(self, other: Moments) -> Moments:
        count, apart = self.count + other.count, other.mean - self.mean
        mean = self.mean + apart * (other.count / count)
        between = apart**2 * (self.count * other.count / count)
        return Moments(count, mean, self.squares + other.squares + between)

    @property
    def std(self) -> NDArray[np.float64]:
        """Standard deviation of the values seen (divided by their number)."""
        return np.asarray(np.sqrt(self.squares / self.count))


def measure(
    catalog: str | Path,
    config: DataConfig,
    out: Path,
    *,
    clips: int = 2048,
    split: str | None = "train",
    seed: int = 0,
    workers: int | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Writes the statistics of `clips` clips as the training loader draws them, views and augmentation included.

    Args:
        catalog: written by `coaug index`.
        config: what a clip is; its own mean, std, stats and resize play no part.
        out: JSON, replaced atomically: mean, std (F numbers, dB), clips, and the front end they belong to.
        clips: views heard; those of samples that failed do not count.
        split: recordings to use; None: all.
        seed, workers: see `AVLoader`.
        progress: a bar on stderr, if that is a terminal.

    Returns:
        What was written.

    Raises:
        StatsError: sound is not in use, or a band never changes.
        LoaderError: no recordings, or too many that fail.
    """
    if "audio" not in config.modalities:
        raise StatsError("data.modalities has no audio: there is nothing to take statistics of")
    moments = _moments(_bar(_heard(catalog, config, clips, split, seed, workers), clips, progress))
    if len(still := np.flatnonzero(moments.std < STILL)):
        raise StatsError(
            f"band(s) {_few(still)} of {len(moments.mean)} have the same level in all {clips} clips: lower "
            f"data.audio.floor_db ({config.audio.floor_db:g}), or data.audio.rate if the files hold no such pitch"
        )
    found = {
        "mean": moments.mean.tolist(),
        "std": moments.std.tolist(),
        "clips": clips,
        **_identity(config.audio),
    }
    _write(out, found)
    return found


def load_stats(audio: AudioConfig) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and standard deviation (F,), dB, from the file `audio.stats`.

    Raises:
        StatsError: no such file, not statistics, of another front end, or a deviation that is not positive.
    """
    path, found = _read(audio)
    mine = _identity(audio)
    differ = [f"{key} {found.get(key)!r}, here {mine[key]!r}" for key in mine if found.get(key) != mine[key]]
    if differ:
        raise StatsError(
            f"{path} (data.audio.stats) is of another front end: {'; '.join(differ)}. {_remedy(path)}"
        )
    try:
        mean, std = (np.array(found[key], dtype=np.float32) for key in ("mean", "std"))
    except (KeyError, TypeError, ValueError) as error:
        raise StatsError(f"{path} (data.audio.stats): mean or std is missing or not numbers") from error
    sound = np.isfinite([mean, std]).all() and (std > 0).all() if mean.shape == std.shape else False
    if mean.shape != (mine["bands"],) or not sound:
        raise StatsError(
            f"{path} (data.audio.stats): mean and a positive std of each of {mine['bands']} bands are expected"
        )
    return mean, std


def _read(audio: AudioConfig) -> tuple[Path, dict[str, Any]]:
    path = Path(str(audio.stats))
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        raise StatsError(f"data.audio.stats: no file {path}. {_remedy(path)}") from None
    except (OSError, ValueError) as error:
        raise StatsError(f"data.audio.stats: {path} cannot be read ({error}). {_remedy(path)}") from None
    if not isinstance(found, dict):
        raise StatsError(f"data.audio.stats: {path} holds no statistics. {_remedy(path)}")
    return path, found


def _write(path: Path, found: dict[str, Any]) -> None:
    def fill(name: str) -> None:
        Path(name).write_text(json.dumps(found, indent=1) + "\n")

    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, fill)


def _identity(audio: AudioConfig) -> dict[str, Any]:
    """The part of a front end that its statistics depend on. (More or fewer windows, or centred ones, change none.)"""
    settings = {name: getattr(audio, name) for name in SETTINGS}
    return {"spectrum": audio.spectrum, "bands": audio.stft_bands, **settings}


def _remedy(path: Path) -> str:
    return f"Make it with `coaug stats CATALOG --preset PRESET --out {path}`"


def _few(bands: NDArray[Any]) -> str:
    return ", ".join(map(str, bands[:5])) + ("…" if len(bands) > 5 else "")


def _heard(
    catalog: str | Path, config: DataConfig, clips: int, split: str | None, seed: int, workers: int | None
) -> Iterator[NDArray[np.float32]]:
    """(n, F, L) decibels of valid rows, `clips` in all."""
    from .catalog import Catalog
    from .loader import AVLoader

    audio = replace(config.audio, stats=None, mean=0.0, std=1.0, resize=None, waveform=False)
    # the recordings that training will see, but only their sound
    chosen = Catalog.open(catalog).where(split, config.modalities, config.needed_seconds)
    sound = replace(config, audio=audio, modalities=("audio",))
    size = max(min(BATCH, len(chosen)), 1)
    with AVLoader(chosen, sound, batch_size=size, seed=seed, split=split, workers=workers) as loader:
        while clips > 0:
            for batch in loader:
                assert batch.audio is not None
                rows = batch.audio[batch.valid].flatten(0, 2)[:clips]
                clips -= len(rows)
                yield rows.numpy()
                if not clips:
                    return


def _moments(blocks: Iterable[NDArray[np.float32]]) -> Moments:
    """Of every band of (n, F, L) blocks."""
    total: Moments | None = None
    for block in blocks:
        if len(block):
            new = Moments.of(block.transpose(0, 2, 1).reshape(-1, block.shape[1]))
            total = new if total is None else total + new
    assert total is not None
    return total


def _bar(blocks: Iterable[NDArray[np.float32]], clips: int, show: bool) -> Iterator[NDArray[np.float32]]:
    """Passes `blocks` on while a bar on stderr shows how far they are; silent off a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("listening"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not (show and console.is_terminal)) as progress:
        task = progress.add_task("", total=clips)
        for block in blocks:
            progress.advance(task, len(block))
            yield block
