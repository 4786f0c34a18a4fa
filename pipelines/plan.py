"""What is drawn for every sample of a step: moments, co-augmentations, crop, flip, colour, blur, as plain arrays.

A plan is a pure function of (catalog, config, seed, epoch, step). World size is no argument, so it cannot change
what is drawn; a rank, a worker or a test asks for the rows it wants and gets the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .catalog import Catalog
from .config import DataConfig, Modality, VideoConfig, ViewConfig
from .order import ByShard, Shuffled
from .recording import Recording
from .rng import uniforms
from .temporal import DRAWS, Clip, Placement, Sound
from .timeline import Timeline, TimeMap

Numbers = Sequence[float]

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
        for step, parameters in zip(self.config.views[view].steps, self.steps[at].tolist(), strict=False):
            if step.applies(MODALITIES[modality]):
                drawn = tuple(number for number in parameters if not math.isnan(number))
                timeline = timeline.then(step.what.timeline(drawn, clip, timeline.time))
        return timeline

    def __repr__(self) -> str:
        shapes = (f"{name}={getattr(self, name).shape}" for name in _ARRAYS)
        return f"ClipPlan({', '.join(shapes)})"


_ARRAYS: dict[str, type] = {
    "row": np.int64,
    "sample_id": np.int64,
    **dict.fromkeys(("start", "speed", "offset"), np.float64),
    "direction": np.int8,
    "steps": np.float64,
    **dict.fromkeys(("crop", "colour", "blur"), np.float32),
}


def epoch_rows(
    catalog: Catalog,
    seed: int,
    epoch: int,
    positions: NDArray[np.int64],
    *,
    shuffle: bool = True,
    pool: int = 0,
) -> NDArray[np.int64]:
    """Catalog rows at the given positions of an epoch's order, same shape; positions beyond the end repeat it.

    Args:
        shuffle: a new order each epoch, else the catalog's.
        pool: shards that rows come from at a time, see `ByShard`; 0: all.
    """
    positions = positions % len(catalog)
    return epoch_order(catalog, seed, epoch, pool)(positions) if shuffle else positions


def epoch_row(
    catalog: Catalog, seed: int, epoch: int, position: int, *, shuffle: bool = True, pool: int = 0
) -> int:
    """`epoch_rows` of a single position, in a tenth of the time."""
    position %= len(catalog)
    return epoch_order(catalog, seed, epoch, pool).place(position) if shuffle else position


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
    singles = [_plan_sample(catalog[row], row, config, seed, epoch) for row in rows.tolist()]
    arrays: dict[str, Any] = {
        name: np.array([one[name] for one in singles], dtype) for name, dtype in _ARRAYS.items()
    }
    return ClipPlan(config, **arrays)


def substitute_row(catalog: Catalog, seed: int, epoch: int, sample_id: int, attempt: int) -> int:
    """The row whose clip stands in for a sample that cannot be read: the same one in every run."""
    return int(uniforms(seed, epoch, sample_id, attempt, 1, purpose=SUBSTITUTE)[0] * len(catalog))


@lru_cache(maxsize=4)  # an epoch's samples all ask for the same one
def epoch_order(catalog: Catalog, seed: int, epoch: int, pool: int) -> Shuffled | ByShard:
    """The order of an epoch's rows."""
    return _by_shard(catalog, seed, pool).at(epoch) if pool else Shuffled(len(catalog), seed, epoch)


@lru_cache(maxsize=2)
def _by_shard(catalog: Catalog, seed: int, pool: int) -> ByShard:
    return ByShard(catalog.file_numbers, seed, 0, pool)


def _plan_sample(recording: Recording, row: int, config: DataConfig, seed: int, epoch: int) -> dict[str, Any]:
    """What is drawn for one sample, by name, in lists: NumPy takes ten times as long for a few numbers as Python."""
    video, clips = config.video, [_clip(config, name) for name in MODALITIES]
    room = recording.duration / config.clip_seconds
    steps = np.full((len(config.views), 2, max(len(view.steps) for view in config.views), DRAWS), np.nan)
    places, draws, crops = [], [], []
    for v, view in enumerate(config.views):
        of_steps = uniforms(seed, epoch, recording.id, v, 2 * len(view.steps) * DRAWS, purpose=TEMPORAL)
        drawn = of_steps.reshape(2, -1, DRAWS).tolist()
        places.append(_draw_steps(view, clips, room, drawn, steps[v]))
        of_view = uniforms(seed, epoch, recording.id, v, CROP + video.cropping.draws)
        crops.append(_crop(recording, video, v, of_view))
        draws.append(of_view[:CROP].tolist())
    return {
        "row": row,
        "sample_id": recording.id,
        "start": _starts(recording, config, places, [d[MOMENT] for d in draws]),
        "speed": [[place.speed for place in both] for both in places],
        "offset": [[place.offset for place in both] for both in places],
        "direction": [[place.direction for place in both] for both in places],
        "steps": steps,
        "crop": crops,
        "colour": [_colour(video, d[COLOUR:BLUR]) for d in draws],
        "blur": [_blur(video, *d[BLUR:CROP]) for d in draws],
    }


def _clip(config: DataConfig, modality: Modality, sound: Sound | None = None) -> Clip:
    seconds = config.clip_seconds
    rate = config.video.fps if modality == "video" else config.audio.rate
    return Clip(modality, seconds, rate * seconds, sound)


def _draw_steps(
    view: ViewConfig,
    clips: Sequence[Clip],
    room: float,
    draws: Sequence[Sequence[Numbers]],
    out: NDArray[np.float64],
) -> list[Placement]:
    """Fill `out` (2, N, DRAWS): one draw for both modalities where a step is aligned. Returns where both are placed.

    Args:
        room: clips that the recording is long.
    """
    places, rooms = [Placement(), Placement()], [room, room]
    for n, step in enumerate(view.steps):
        drawn: tuple[float, ...] | None = None
        aligned, shared = step.scope == "aligned", min(rooms)
        for m in (m for m in (VIDEO, AUDIO) if step.applies(MODALITIES[m])):
            if drawn is None or not aligned:
                drawn = step.what.draw(draws[m][n], clips[m], shared if aligned else rooms[m])
            out[m, n, : len(drawn)] = drawn
            placed = step.what.place(drawn)
            places[m], rooms[m] = places[m].then(placed), rooms[m] / placed.speed
    return places


def _starts(
    recording: Recording, config: DataConfig, places: Sequence[Sequence[Placement]], draws: Numbers
) -> list[float]:
    """(V,) seconds: the clips of both modalities lie inside the recording wherever they fit."""
    seconds, used = config.clip_seconds, [MODALITIES.index(name) for name in config.modalities]
    low = [min(both[m].offset for m in used) for both in places]
    high = [max(both[m].offset + both[m].speed * seconds for m in used) for both in places]
    if config.moments in ("same", "decreasing"):
        low, high = [min(low)] * len(low), [max(high)] * len(high)
    room = [max(recording.duration - (end - begin), 0.0) for begin, end in zip(low, high, strict=True)]
    moments = _moments(config, draws, room)
    return [recording.start - begin + moment for begin, moment in zip(low, moments, strict=True)]


def _moments(config: DataConfig, draws: Numbers, room: Numbers) -> list[float]:
    """(V,) seconds of the `room` (V,) that each view has."""
    if config.moments == "same":
        draws = [draws[0]] * len(room)
    if config.moments == "decreasing":
        # CVRL (Qian et al., 2021): density of the distance t falls linearly to 0
        later = [0.0, *(r * (1 - math.sqrt(1 - d)) for r, d in zip(room[1:], draws[1:], strict=True))]
        return [draws[0] * (r - max(later)) + delay for r, delay in zip(room, later, strict=True)]
    if config.moments == "uniform":
        repeats = config.video.cropping.per_moment
        count = max(len(room) // repeats, 1)
        shares = np.linspace(0, 1, count) if count > 1 else np.array([0.5])
        draws = np.repeat(shares, repeats).tolist()
    return [draw * r for draw, r in zip(draws, room, strict=False)]


def _crop(recording: Recording, video: VideoConfig, view: int, draw: NDArray[np.float64]) -> list[float]:
    """Shares of the displayed picture; mirrored by swapped sides."""
    if recording.video is None:
        return [0.0, 0.0, 1.0, 1.0]
    width, height = recording.video.upright
    left, top, w, h = video.cropping.box(width, height, draw[CROP:], view)
    x0, x1 = left / width, (left + w) / width
    if draw[FLIP] < video.flip:
        x0, x1 = x1, x0
    return [x0, top / height, x1, (top + h) / height]


def _colour(video: VideoConfig, draws: Numbers) -> list[float]:
    spread = (video.brightness, video.contrast, video.saturation, 360.0 * video.hue)
    centre = (1.0, 1.0, 1.0, 0.0)
    return [c + (2 * draw - 1) * s for c, draw, s in zip(centre, draws, spread, strict=True)]


def _blur(video: VideoConfig, chance: float, strength: float) -> float:
    low, high = video.blur_sigma
    sigma = (low + (high - low) * strength) * video.size / BLUR_SIZE
    return float(sigma) if chance < video.blur else 0.0
