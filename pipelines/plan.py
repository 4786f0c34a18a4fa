"""What is drawn for every sample of a step: moments, co-augmentations, crop, flip, colour, blur, as plain arrays.

A plan is a pure function of (catalog, config, seed, epoch, step). World size is no argument, so it cannot change
what is drawn; a rank, a worker or a test asks for the rows it wants and gets the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .catalog import Catalog, Recording
from .config import DataConfig, Modality, VideoConfig, ViewConfig
from .rng import Permutation, uniforms
from .temporal import DRAWS, Clip, Placement, Sound
from .timeline import Timeline, TimeMap

MODALITIES: tuple[Modality, Modality] = ("video", "audio")
VIDEO, AUDIO = range(2)
MOMENT, FLIP, COLOUR, BLUR, CROP = 0, 1, 2, 6, 8  # places of the uniforms of a view
SUBSTITUTE, TEMPORAL = 1, 2  # purposes of draws: stand-ins, co-augmentations
BLUR_SIZE = 224  # pixels of the picture that `blur_sigma` is meant for


@dataclass(frozen=True)
class ClipPlan:
    """B samples of V views; seconds are presentation time in the recording's file.

    Attributes:
        config: what was asked for.
        row: (B,) catalog rows.  sample_id: (B,) int64.
        start: (B, V) seconds, where a view's clip begins, offsets left aside.
        speed: (B, V, 2) source seconds per clip second; [..., 0] video, [..., 1] audio.
        offset: (B, V, 2) seconds after `start`.
        direction: (B, V, 2) 1 or -1.
        steps: (B, V, 2, N, 4) parameters of each transform of the view's recipe, NaN where there are none.
        crop: (B, V, 4) left, top, right, bottom as shares of the displayed picture; left > right mirrors.
        colour: (B, V, 4) factors of brightness, contrast and saturation, and a hue turn in degrees.
        blur: (B, V) standard deviation of a Gaussian in output pixels, or 0.
    """

    config: DataConfig
    row: NDArray[np.int64]
    sample_id: NDArray[np.int64]
    start: NDArray[np.float64]
    speed: NDArray[np.float64]
    offset: NDArray[np.float64]
    direction: NDArray[np.int8]
    steps: NDArray[np.float64]
    crop: NDArray[np.float32]
    colour: NDArray[np.float32]
    blur: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.row)

    def __getitem__(self, rows: slice) -> ClipPlan:
        return replace(self, **{name: getattr(self, name)[rows] for name in _ARRAYS})

    def clip(self, modality: int, sound: Sound | None = None) -> Clip:
        """What transforms know of a clip."""
        return _clip(self.config, MODALITIES[modality], sound)

    def timeline(self, sample: int, view: int, modality: int, sound: Sound | None = None) -> Timeline:
        """The timeline of one clip, in clip lengths (`config.clip_seconds`) from its `start`.

        Args:
            sound: the window of the recording that is played, for transforms that go by its loudness or waveform.
        """
        at = (sample, view, modality)
        clip = self.clip(modality, sound)
        timeline = Timeline(TimeMap.affine(float(self.offset[at]) / clip.seconds, float(self.speed[at])))
        for step, parameters in zip(self.config.views[view].steps, self.steps[at], strict=False):
            if step.applies(MODALITIES[modality]):
                drawn = tuple(parameters[~np.isnan(parameters)].tolist())
                later = step.what.timeline(drawn, clip, timeline.time)
                timeline = timeline.then(later)
        return timeline

    def __repr__(self) -> str:
        shapes = (f"{name}={getattr(self, name).shape}" for name in _ARRAYS)
        return f"ClipPlan({', '.join(shapes)})"


_ARRAYS = tuple(f.name for f in fields(ClipPlan) if f.name != "config")


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
    return ClipPlan(config, **{name: np.stack([single[name] for single in singles]) for name in _ARRAYS})


def substitute_row(catalog: Catalog, seed: int, epoch: int, sample_id: int, attempt: int) -> int:
    """The row whose clip stands in for a sample that cannot be read: the same one in every run."""
    return int(uniforms(seed, epoch, sample_id, attempt, 1, purpose=SUBSTITUTE)[0] * len(catalog))


def _plan_sample(
    recording: Recording, row: int, config: DataConfig, seed: int, epoch: int
) -> dict[str, NDArray[Any]]:
    """The arrays of one sample, by name."""
    views, count = range(len(config.views)), CROP + config.video.cropping.draws
    draws = np.stack([uniforms(seed, epoch, recording.id, view, count) for view in views])
    steps = np.full((len(views), 2, max(len(view.steps) for view in config.views), DRAWS), np.nan)
    places = np.zeros((len(views), 2, 3))
    for v, view in enumerate(config.views):
        if view.steps:
            of_steps = uniforms(seed, epoch, recording.id, v, 2 * len(view.steps) * DRAWS, purpose=TEMPORAL)
            _draw_steps(view, config, recording, of_steps.reshape(2, -1, DRAWS), steps[v])
        places[v] = [_placement(view, steps[v, m], m) for m in (VIDEO, AUDIO)]
    crops = [_crop(recording, config.video, v, d) for v, d in enumerate(draws)]
    return {
        "row": np.int64(row),  # type: ignore[dict-item]  # 0-d here, stacked by plan()
        "sample_id": np.int64(recording.id),  # type: ignore[dict-item]
        "start": _starts(recording, config, places, draws[:, MOMENT]),
        "speed": places[..., 0],
        "offset": places[..., 1],
        "direction": places[..., 2].astype(np.int8),
        "steps": steps,
        "crop": np.array(crops, np.float32),
        "colour": np.array([_colour(config.video, d[COLOUR : COLOUR + 4]) for d in draws], np.float32),
        "blur": np.array([_blur(config.video, *d[BLUR : BLUR + 2]) for d in draws], np.float32),
    }


def _clip(config: DataConfig, modality: Modality, sound: Sound | None = None) -> Clip:
    seconds = config.clip_seconds
    rate = config.video.fps if modality == "video" else config.audio.rate
    return Clip(modality, seconds, rate * seconds, sound)


def _draw_steps(
    view: ViewConfig,
    config: DataConfig,
    recording: Recording,
    draws: NDArray[np.float64],
    out: NDArray[np.float64],
) -> None:
    """Fill `out` (2, N, 4) from uniforms (2, N, 4): one draw for both modalities where a step is aligned."""
    room = [recording.duration / config.clip_seconds] * 2
    for n, step in enumerate(view.steps):
        used = [m for m in (VIDEO, AUDIO) if step.applies(MODALITIES[m])]
        for m in used:
            if step.scope == "aligned" and m != used[0]:
                out[m, n] = out[used[0], n]
                continue
            shared = min(room) if step.scope == "aligned" else room[m]
            drawn = step.what.draw(draws[m, n], _clip(config, MODALITIES[m]), shared)
            out[m, n, : len(drawn)] = drawn
        for m in used:
            room[m] /= step.what.place(tuple(out[m, n])).speed


def _placement(view: ViewConfig, parameters: NDArray[np.float64], modality: int) -> Placement:
    """All steps' placements together."""
    speed, offset, direction = Placement()
    for step, drawn in zip(view.steps, parameters, strict=False):
        if step.applies(MODALITIES[modality]):
            one = step.what.place(tuple(drawn))
            speed, offset, direction = speed * one.speed, offset + one.offset, direction * one.direction
    return Placement(speed, offset, direction)


def _starts(
    recording: Recording, config: DataConfig, places: NDArray[np.float64], draws: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(V,) seconds: the clips of both modalities lie inside the recording wherever they fit."""
    used = [MODALITIES.index(name) for name in config.modalities]
    speed, offset = places[:, used, 0], places[:, used, 1]
    low, high = offset.min(axis=1), (offset + speed * config.clip_seconds).max(axis=1)
    if config.moments in ("same", "decreasing"):
        low, high = np.full_like(low, low.min()), np.full_like(high, high.max())
    room = np.maximum(recording.duration - (high - low), 0.0)
    return np.asarray(recording.start - low + _moments(config, draws, room))


def _moments(
    config: DataConfig, draws: NDArray[np.float64], room: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(V,) seconds of the `room` (V,) that each view has."""
    if config.moments == "same":
        return np.asarray(draws[0] * room)
    if (
        config.moments == "decreasing"
    ):  # CVRL (Qian et al., 2021): density of the distance t falls linearly to 0
        later = np.concatenate([[0.0], room[1:] * (1 - np.sqrt(1 - draws[1:]))])
        return np.asarray(draws[0] * (room - later.max()) + later)
    if config.moments == "uniform":
        repeats = config.video.cropping.per_moment
        count = max(len(room) // repeats, 1)
        shares = np.linspace(0, 1, count) if count > 1 else np.array([0.5])
        return np.asarray(np.repeat(shares, repeats)[: len(room)] * room)
    return np.asarray(draws * room)


def _crop(recording: Recording, video: VideoConfig, view: int, draw: NDArray[np.float64]) -> list[float]:
    """Shares of the displayed picture; mirrored by swapped sides."""
    if recording.video is None:
        return [0.0, 0.0, 1.0, 1.0]
    width, height = recording.video.width, recording.video.height
    if recording.video.rotation in (90, 270):
        width, height = height, width
    left, top, w, h = video.cropping.box(width, height, draw[CROP:], view)
    x0, x1 = left / width, (left + w) / width
    if draw[FLIP] < video.flip:
        x0, x1 = x1, x0
    return [x0, top / height, x1, (top + h) / height]


def _colour(video: VideoConfig, draw: NDArray[np.float64]) -> list[float]:
    spread = np.array([video.brightness, video.contrast, video.saturation, 360.0 * video.hue])
    return list(np.array([1.0, 1.0, 1.0, 0.0]) + (2 * draw - 1) * spread)


def _blur(video: VideoConfig, chance: float, strength: float) -> float:
    low, high = video.blur_sigma
    sigma = (low + (high - low) * strength) * video.size / BLUR_SIZE
    return float(sigma) if chance < video.blur else 0.0
