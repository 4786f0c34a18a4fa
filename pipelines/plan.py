"""What is drawn for every sample of a step: moment, speeds, directions, crop, flip and colour, as plain arrays.

A plan is a pure function of (catalog, config, seed, epoch, step). World size is no argument, so it cannot change
what is drawn; a rank, a worker or a test asks for the rows it wants and gets the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from .catalog import Catalog, Recording
from .config import DataConfig, VideoConfig, ViewConfig
from .rng import Permutation, uniforms
from .timeline import Timeline, compose, reversal, speed

VIDEO, AUDIO = 0, 1
TRIES = 10  # random resized crop: torchvision's number of attempts
SUBSTITUTE = 1  # the `purpose` of draws that choose a stand-in


@dataclass(frozen=True)
class ClipPlan:
    """B samples of V views; seconds are presentation time in the recording's file.

    Attributes:
        row: (B,) catalog rows.  sample_id: (B,) int64.
        start: (B, V) seconds, where a view's window begins, for picture and sound alike.
        speed: (B, V, 2) source seconds per clip second; [..., 0] video, [..., 1] audio.
        direction: (B, V, 2) 1 or -1.
        crop: (B, V, 4) left, top, right, bottom as shares of the displayed picture; left > right mirrors.
        colour: (B, V, 4) factors of brightness, contrast and saturation, and a hue turn in degrees.
    """

    row: NDArray[np.int64]
    sample_id: NDArray[np.int64]
    start: NDArray[np.float64]
    speed: NDArray[np.float64]
    direction: NDArray[np.int8]
    crop: NDArray[np.float32]
    colour: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.row)

    def __getitem__(self, rows: slice) -> ClipPlan:
        return replace(self, **{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    def timeline(self, sample: int, view: int, modality: int) -> Timeline:
        """The timeline of one clip, in clip lengths from its `start`."""
        played = [speed(float(self.speed[sample, view, modality]))]
        backwards = self.direction[sample, view, modality] < 0
        return compose([*played, *([reversal()] if backwards else [])])

    def __repr__(self) -> str:
        shapes = (f"{f.name}={getattr(self, f.name).shape}" for f in fields(self))
        return f"ClipPlan({', '.join(shapes)})"


def epoch_rows(
    catalog: Catalog, seed: int, epoch: int, positions: NDArray[np.int64], *, shuffle: bool = True
) -> NDArray[np.int64]:
    """Catalog rows at the given positions of an epoch's order, same shape; positions beyond the end repeat it."""
    positions = positions % len(catalog)
    return Permutation(len(catalog), seed, epoch)(positions) if shuffle else positions


def plan(
    catalog: Catalog,
    config: DataConfig,
    *,
    seed: int,
    epoch: int,
    rows: NDArray[np.int64],
) -> ClipPlan:
    """Draw the clips of the samples at `rows` (B,) of the catalog for one epoch.

    Every sample's draws are keyed by (seed, epoch, sample id, view): the plan of a slice is the slice of the plan.
    """
    singles = [_plan_sample(catalog[int(row)], int(row), config, seed, epoch) for row in rows]
    return ClipPlan(*(np.stack([getattr(s, f.name) for s in singles]) for f in fields(ClipPlan)))


def substitute_row(catalog: Catalog, seed: int, epoch: int, sample_id: int, attempt: int) -> int:
    """The row whose clip stands in for a sample that cannot be read: the same one in every run."""
    return int(uniforms(seed, epoch, sample_id, attempt, 1, purpose=SUBSTITUTE)[0] * len(catalog))


def _plan_sample(recording: Recording, row: int, config: DataConfig, seed: int, epoch: int) -> ClipPlan:
    views = len(config.views)
    draws = np.stack([uniforms(seed, epoch, recording.id, view, 12 + 2 * TRIES) for view in range(views)])
    speeds = np.array([_speeds(v, d, config, recording) for v, d in zip(config.views, draws, strict=True)])
    crops = [_crop(recording, config.video, d) for d in draws]
    return ClipPlan(
        row=np.int64(row),  # type: ignore[arg-type]  # 0-d here, stacked by plan()
        sample_id=np.int64(recording.id),  # type: ignore[arg-type]
        start=_starts(recording, config, speeds, draws[:, 0]),
        speed=speeds,
        direction=np.array([_directions(v, d) for v, d in zip(config.views, draws, strict=True)], np.int8),
        crop=np.array(crops, np.float32),
        colour=np.array([_colour(config.video, d[6:10]) for d in draws], np.float32),
    )


def _speeds(
    view: ViewConfig, draw: NDArray[np.float64], config: DataConfig, recording: Recording
) -> list[float]:
    """One speed a modality, uniform over those of its library whose clip fits the recording."""
    lengths = {"video": config.video.seconds, "audio": config.audio.seconds}
    if view.aligned:  # one speed, at which the longer clip fits
        lengths = dict.fromkeys(lengths, config.clip_seconds)
    video = _choose(view.video_speeds, draw[1], recording.duration / lengths["video"])
    audio = _choose(view.audio_speeds, draw[2], recording.duration / lengths["audio"])
    return [video, video if view.aligned else audio]


def _choose(library: tuple[float, ...], draw: float, longest: float) -> float:
    fitting = [s for s in library if s <= longest + 1e-6] or [min(library)]
    return fitting[int(draw * len(fitting))]


def _directions(view: ViewConfig, draw: NDArray[np.float64]) -> list[int]:
    video, audio = (-1 if d < view.reverse else 1 for d in draw[3:5])
    return [video, video if view.aligned else audio]


def _starts(
    recording: Recording, config: DataConfig, speeds: NDArray[np.float64], draws: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(V,) seconds: windows lie inside the recording wherever they fit."""
    lengths = [config.video.seconds, config.audio.seconds]
    used = [i for i, name in enumerate(("video", "audio")) if name in config.modalities]
    spans = (speeds * lengths)[:, used].max(axis=1)
    if config.moments == "same":
        spans, draws = np.full_like(spans, spans.max()), np.full_like(draws, draws[0])
    if config.moments == "uniform":
        draws = np.linspace(0, 1, len(spans)) if len(spans) > 1 else np.array([0.5])
    return np.asarray(recording.start + draws * np.maximum(recording.duration - spans, 0.0))


def _crop(recording: Recording, video: VideoConfig, draw: NDArray[np.float64]) -> list[float]:
    """Inception's random resized crop (Szegedy et al., 2015), as torchvision draws it; mirrored by swapped sides."""
    if recording.video is None:
        return [0.0, 0.0, 1.0, 1.0]
    width, height = recording.video.width, recording.video.height
    if recording.video.rotation in (90, 270):
        width, height = height, width
    w, h, drawn = _crop_size(width, height, video, draw[12:])
    across, down = draw[10:12] if drawn else (0.5, 0.5)
    left, top = across * (width - w), down * (height - h)
    x0, x1 = left / width, (left + w) / width
    if draw[5] < video.flip:
        x0, x1 = x1, x0
    return [x0, top / height, x1, (top + h) / height]


def _crop_size(
    width: int, height: int, video: VideoConfig, draw: NDArray[np.float64]
) -> tuple[float, float, bool]:
    """Width, height and whether they were drawn: what never fits gives way to the largest crop, at the centre."""
    low, high = np.log(video.crop_aspect)
    areas = width * height * np.interp(draw[:TRIES], [0, 1], video.crop_area)
    aspects = np.exp(low + draw[TRIES : 2 * TRIES] * (high - low))
    w, h = np.sqrt(areas * aspects), np.sqrt(areas / aspects)
    fits = np.flatnonzero((w <= width) & (h <= height))
    if len(fits) and video.crop_area != (1.0, 1.0):
        return float(w[fits[0]]), float(h[fits[0]]), True
    aspect = min(max(width / height, video.crop_aspect[0]), video.crop_aspect[1])
    return min(width, height * aspect), min(height, width / aspect), False


def _colour(video: VideoConfig, draw: NDArray[np.float64]) -> list[float]:
    spread = np.array([video.brightness, video.contrast, video.saturation, 360.0 * video.hue])
    return list(np.array([1.0, 1.0, 1.0, 0.0]) + (2 * draw - 1) * spread)
