"""The panels of one view of `coaug view`, one above the other on the clip's time axis.

`panels` says which ones a view has and how high they are; each is drawn into axes of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.transforms import blended_transform_factory
from numpy.typing import NDArray

from ..pipelines.config import Modality
from .bands import column_edges, hertz, ticks
from .page import GREY, INK, INSIDE, PALE, PICTURE, SOUND, aside, plain
from .take import CLOSE, NAMES, Sheet, Take, Track

TILES, TILE, SMALLEST, CAPTION = 10, 150, 84, 20  # frames in a strip, and their sizes in pixels
MAP, LANE, WAVE, SPECTRUM = 58, 24, 44, 116
RANGE_DB = 70.0  # below the loudest point, which is where the colours begin
LABEL = 16  # pixels from one frequency label to the next, at least
COLOURS: Mapping[Modality, str] = {"video": PICTURE, "audio": SOUND}


class Panel(NamedTuple):
    """A height in pixels, the gap above it, and what draws it."""

    height: float
    gap: float
    draw: Callable[[Axes], None]


def panels(take: Take, sheet: Sheet, colour: str) -> Iterator[Panel]:
    """From the top: map, gain and fill where there is something to see, frames, waveform, spectrogram."""
    if not take.agree("source") or not all(track.straight for track in take.tracks.values()):
        yield Panel(MAP, 4, partial(_map, take=take, sheet=sheet))
    for name, track in _lanes(take).items():
        yield Panel(LANE, 8, partial(_lane, track=track, name=name, sheet=sheet))
    if take.frames is not None:
        yield Panel(tile(sheet) + CAPTION, 6, partial(_frames, take=take, sheet=sheet))
    if take.waveform is not None:
        yield Panel(WAVE, 2, partial(_waveform, take=take, sheet=sheet))
    if take.decibels is not None:
        yield Panel(SPECTRUM, 4, partial(_spectrogram, take=take, sheet=sheet, colour=colour))


def tiles(sheet: Sheet) -> int:
    """Frames in a strip: as many as can be seen in the time that they last."""
    room = INSIDE * sheet.config.video.seconds / sheet.config.clip_seconds
    return max(min(TILES, sheet.config.video.frames, int(room / SMALLEST)), 1)


def tile(sheet: Sheet) -> float:
    """Their size in pixels."""
    share = sheet.config.video.seconds / sheet.config.clip_seconds
    return min(TILE, max(INSIDE * share / tiles(sheet) - 4, 8))


def _map(axes: Axes, take: Take, sheet: Sheet) -> None:
    """Which moment of the recording is played at each of the clip; jumps are left open."""
    low = min(track.span[0] for track in take.tracks.values())
    high = max(track.span[1] for track in take.tracks.values())
    single = take.agree("source")
    for name, track in list(take.tracks.items())[: 1 if single else 2]:
        source = track.source.copy()
        source[1:][np.abs(np.diff(source)) > 0.3 * (high - low)] = np.nan
        style: dict[str, Any] = {"color": COLOURS[name], "linewidth": 1.5 if name == "video" else 2.6}
        axes.plot(track.times, source, solid_capstyle="butt", zorder=3 if name == "video" else 2, **style)
    if single:
        aside(axes, 0.5, "\nand ".join(NAMES[name] for name in take.tracks))
    else:
        for index, name in enumerate(take.tracks):
            aside(axes, 0.7 - 0.4 * index, NAMES[name], color=COLOURS[name], weight="bold")
    axes.set(xlim=(0, sheet.config.clip_seconds), ylim=(low, high), yticks=[low, high])
    axes.set_yticklabels([f"{low:.2f} s", f"{high:.2f} s"])
    plain(axes, labels=False)
    axes.set_facecolor("#f8fafc")


def _lanes(take: Take) -> dict[str, Track]:
    """Gain and fill to show, by name: those of both where they are the same, else of each that is not plain."""
    toned = {name: track for name, track in take.tracks.items() if track.toned}
    if not toned:
        return {}
    if take.agree("gain", "fill", "noise"):
        return {"gain": max(toned.values(), key=lambda track: track.times[-1])}
    return {f"gain, {NAMES[name]}": track for name, track in toned.items()}


def _lane(axes: Axes, track: Track, name: str, sheet: Sheet) -> None:
    """Gain as an area, noise hatched, a constant as a box of its own grey."""
    top = max(1.0, float(track.gain.max()))
    axes.axhspan(0, 1, xmax=track.times[-1] / sheet.config.clip_seconds, color=PALE, linewidth=0)
    axes.fill_between(track.times, track.gain, color="#94a3b8", linewidth=0)
    axes.plot(track.times, track.gain, color=INK, linewidth=1.1)
    for a, b in _runs(track.noise):
        _box(axes, track, a, b, "noise", facecolor="none" if track.gain[a] else "white", hatch="////")
    for a, b in _runs(track.fill > 0):
        level = float(np.clip(track.fill[a:b].mean(), 0, 1))
        _box(axes, track, a, b, f"{level:.2g}", facecolor=str(level))
    axes.set(xlim=(0, sheet.config.clip_seconds), ylim=(0, 1.04 * top), yticks=[])
    plain(axes, labels=False)
    highest, steady = float(track.gain.max()), float(np.ptp(track.gain)) < CLOSE
    number = f"gain {'' if steady else '≤ '}{highest:.2f}" if abs(highest - 1) > CLOSE else "gain"
    aside(axes, 0.5, name.replace("gain", number).replace(", ", ",\n" if number != "gain" else ", "))


def _runs(mask: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """(first, end) of each stretch of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(np.int8), [0]])))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def _box(axes: Axes, track: Track, first: int, end: int, text: str, **style: Any) -> None:
    left, right = track.times[first], track.times[end - 1]
    axes.axvspan(left, right, edgecolor=GREY, linewidth=0, **style)
    box = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}
    axes.text((left + right) / 2, 0.5, text, size=8.5, ha="center", va="center", color=INK, bbox=box)


def _frames(axes: Axes, take: Take, sheet: Sheet) -> None:
    """Frames where they stand in clip time, captioned with their presentation times."""
    assert take.frames is not None
    size, count, frames = tile(sheet), tiles(sheet), len(take.frames)
    seconds, shown = sheet.config.clip_seconds, sheet.config.video.seconds
    half = size / INSIDE * seconds / 2
    bottom = CAPTION / (size + CAPTION)
    for place in range(count):
        index = int((place + 0.5) * frames / count)
        middle = (place + 0.5) / count * shown
        extent = (middle - half, middle + half, bottom, 1)
        axes.imshow(take.frames[index], extent=extent, aspect="auto", interpolation="antialiased")
        caption = f"{take.pts[index]:.2f}" + (" s" if place == 0 else "")
        axes.text(middle, bottom / 2, caption, ha="center", va="center", size=9, color=GREY)
    if shown < 0.9 * seconds:
        text = f"the picture ends here, after {shown:.2g} s"
        axes.text(shown + 0.01 * seconds, (1 + bottom) / 2, text, va="center", size=9, color=GREY)
    axes.set(xlim=(0, seconds), ylim=(0, 1))
    axes.axis("off")


def _waveform(axes: Axes, take: Take, sheet: Sheet) -> None:
    """Lowest and highest sample of every pixel, all views on one scale."""
    assert take.waveform is not None
    peak = max((float(np.abs(t.waveform).max()) for t in sheet.takes if t.waveform is not None), default=0.0)
    seconds = sheet.config.audio.seconds
    columns = min(round(INSIDE * seconds / sheet.config.clip_seconds), len(take.waveform))
    edges = np.linspace(0, len(take.waveform), columns, endpoint=False).astype(int)
    low, high = (op.reduceat(take.waveform, edges) for op in (np.minimum, np.maximum))
    axes.fill_between((edges + 0.5) / len(take.waveform) * seconds, low, high, color="#475569", linewidth=0.6)
    axes.set(xlim=(0, sheet.config.clip_seconds), ylim=(-(peak or 1), peak or 1), yticks=[])
    plain(axes, labels=False)


def _spectrogram(axes: Axes, take: Take, sheet: Sheet, colour: str) -> None:
    """Log power over clip time; a mark at the right edge names the loudest band."""
    assert take.decibels is not None
    audio, bands = sheet.config.audio, sheet.bands
    top = max(float(t.decibels.max()) for t in sheet.takes if t.decibels is not None)
    extent = (*column_edges(audio), -0.5, len(bands) - 0.5)
    style: dict[str, Any] = {"cmap": "magma", "vmin": max(audio.floor_db, top - RANGE_DB), "vmax": top}
    axes.imshow(take.decibels, extent=extent, origin="lower", aspect="auto", interpolation="nearest", **style)
    shown = ticks(audio, SPECTRUM // LABEL)
    axes.set(xlim=(0, sheet.config.clip_seconds), yticks=list(shown.values()))
    axes.set_yticklabels([hertz(hz) for hz in shown])
    plain(axes, labels=False)
    if take.decibels.max() > audio.floor_db + 1:
        place = blended_transform_factory(axes.transAxes, axes.transData)
        mark: dict[str, Any] = {"color": colour, "size": 9.5, "weight": "bold", "transform": place}
        aside(axes, take.loudest, f"◂ {hertz(bands[take.loudest])}", **mark)
