"""The contact sheet of `coaug view`: what the loader made of one recording at several speeds, drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.transforms import blended_transform_factory
from numpy.typing import NDArray

from ..pipelines.catalog import Recording
from ..pipelines.config import DataConfig

WIDTH, DPI = 1400, 100  # pixels; all lengths below are pixels too
LEFT, RIGHT = 206, 92  # margins beside the time axes
TOP, BAR, FOOT, GAP = 76, 18, 66, 34
TILES, TILE, CAPTION, SOUND = 10, 150, 20, 120
TICKS = (250, 500, 1000, 2000, 4000, 8000, 16000)  # Hz
INK, GREY, PALE = "#1b1f24", "#6b7280", "#e5e7eb"
COLOURS = ("#2563eb", "#0d9488", "#d97706", "#be185d")
RANGE_DB = 70.0  # below the loudest point, which is where the colours begin


@dataclass(frozen=True)
class Take:
    """One view, T frames and F bands by L frames of sound; what is absent is None.

    Attributes:
        speed: source seconds per clip second, of picture and sound.
        frames: (T, H, W, 3) uint8.  pts: (T,) seconds in the recording.
        decibels: (F, L).  audio_pts: (2,) seconds in the recording, of the first and last sample.
    """

    speed: float
    frames: NDArray[np.uint8] | None
    pts: NDArray[np.float64]
    decibels: NDArray[np.floating] | None
    audio_pts: NDArray[np.float64]

    @property
    def loudest(self) -> int:
        """The band with most power over the whole clip."""
        assert self.decibels is not None
        return int((10 ** (self.decibels / 10)).mean(axis=1).argmax())


@dataclass(frozen=True)
class Sheet:
    """A recording and the takes of it, slowest first; all begin at `start`, in seconds of the file's presentation time.

    `bands`: (F,) Hz, centres of the mel bands. `notes` say what is not shown, and why.
    """

    recording: Recording
    config: DataConfig
    start: float
    takes: tuple[Take, ...]
    bands: NDArray[np.float64]
    notes: tuple[str, ...] = ()

    @property
    def facts(self) -> str:
        """The file in one line."""
        parts = [f"{self.recording.duration:.2f} s"]
        if v := self.recording.video:
            turned = f", turned {v.rotation}°" if v.rotation else ""
            rhythm = ", uneven" if v.vfr else ""
            parts.append(f"{v.codec} {v.width}×{v.height}{turned}, {v.fps:.4g} frames/s{rhythm}")
        if a := self.recording.audio:
            channels = {1: "mono", 2: "stereo"}.get(a.channels, f"{a.channels} channels")
            parts.append(f"{a.codec} {a.rate / 1000:g} kHz {channels}")
        return "   ·   ".join((*parts, *self.notes))

    @property
    def shapes(self) -> str:
        """What an encoder is given, in one line."""
        v, a = self.config.video, self.config.audio
        picture = f"{v.frames} frames of {v.size}×{v.size}, {v.fps:g} a second"
        sound = f"{a.mels} mel bands × {a.frames}, {1000 * a.hop:g} ms apart"
        given = {"video": picture, "audio": sound}
        return "   ·   ".join(given[name] for name in self.config.modalities)


def draw(sheet: Sheet) -> Figure:
    """The sheet, 1400 pixels wide: where the clips lie in the recording, then a row of picture and sound for each."""
    tile = _tile(sheet)
    strip = tile + CAPTION if "video" in sheet.config.modalities else 0
    sound = SOUND if "audio" in sheet.config.modalities else 0
    row = strip + sound + GAP
    bars = TOP + BAR * len(sheet.takes) + 44
    page = _Page(round(bars + row * len(sheet.takes) - GAP + FOOT))
    page.text(24, 30, sheet.recording.key, size=17, weight="bold")
    page.text(24, 54, sheet.facts, size=10.5, color=GREY)
    _windows(page.axes(TOP + 22, BAR * len(sheet.takes)), sheet)
    for index, take in enumerate(sheet.takes):
        top, colour = bars + row * index, COLOURS[index]
        _label(page, top, row - GAP, take, sheet, colour)
        if take.frames is not None:
            _strip(page.axes(top, strip), take, sheet, tile)
        if take.decibels is not None:
            _spectrogram(page.axes(top + strip, sound), take, sheet, colour)
    _clip_axis(page, sheet)
    return page.figure


class _Page:
    """A figure laid out in pixels from the top left corner."""

    def __init__(self, height: float) -> None:
        self.height = height
        self.figure = Figure(figsize=(WIDTH / DPI, height / DPI), dpi=DPI, facecolor="white")

    def axes(self, top: float, height: float) -> Axes:
        """Axes between the side margins."""
        width, bottom = WIDTH - LEFT - RIGHT, self.height - top - height
        return self.figure.add_axes((LEFT / WIDTH, bottom / self.height, width / WIDTH, height / self.height))

    def text(self, x: float, y: float, text: str, **style: Any) -> None:
        """Text whose base line stands at `y`."""
        self.figure.text(x / WIDTH, 1 - y / self.height, text, **({"color": INK} | style))

    def line(self, x: float, y: float, height: float, colour: str) -> None:
        """An upright bar."""
        place = (x / WIDTH, 1 - (y + height) / self.height)
        size = (4 / WIDTH, height / self.height)
        self.figure.add_artist(Rectangle(place, *size, color=colour, linewidth=0))


def _tile(sheet: Sheet) -> float:
    count = min(TILES, sheet.config.video.frames)
    share = sheet.config.video.seconds / sheet.config.clip_seconds
    return min(TILE, (WIDTH - LEFT - RIGHT) * share / count - 4)


def _windows(axes: Axes, sheet: Sheet) -> None:
    """Bars over source time: the part of the recording that each take plays."""
    start, seconds = sheet.start, sheet.config.clip_seconds
    longest = sheet.takes[-1].speed * seconds
    low = max(sheet.recording.start, start - longest)
    high = min(sheet.recording.end, start + 2 * longest)
    for index, take in enumerate(sheet.takes):
        axes.barh(index, high - low, left=low, height=0.62, color=PALE)
        axes.barh(index, take.speed * seconds, left=start, height=0.62, color=COLOURS[index])
        place = blended_transform_factory(axes.transAxes, axes.transData)
        style: dict[str, Any] = {
            "ha": "right",
            "va": "center",
            "color": COLOURS[index],
            "weight": "bold",
            "size": 10,
        }
        axes.text(-0.008, index, f"{take.speed:g}×", transform=place, **style)
    axes.set(xlim=(low, high), ylim=(len(sheet.takes) - 0.5, -0.5), yticks=[])
    axes.xaxis.tick_top()
    _plain(axes, labels=True)
    axes.text(1.016, 1.0, "s in the\nrecording", transform=axes.transAxes, size=9, color=GREY, va="top")


def _label(page: _Page, top: float, height: float, take: Take, sheet: Sheet, colour: str) -> None:
    page.line(24, top, height, colour)
    page.text(40, top + 24, f"{take.speed:g}×", size=20, weight="bold", color=colour)
    said = "as recorded" if take.speed == 1 else f"{take.speed:g} times as fast"
    page.text(40, top + 44, said, size=10)
    end = sheet.start + take.speed * sheet.config.clip_seconds
    page.text(40, top + 62, f"{sheet.start:.2f} – {end:.2f} s", size=10, color=GREY)


def _strip(axes: Axes, take: Take, sheet: Sheet, tile: float) -> None:
    """Frames where they stand in clip time, captioned with their presentation times."""
    assert take.frames is not None
    frames, seconds = sheet.config.video.frames, sheet.config.clip_seconds
    count = min(TILES, frames)
    half = tile / (WIDTH - LEFT - RIGHT) * seconds / 2
    bottom = CAPTION / (tile + CAPTION)
    for place in range(count):
        index = int((place + 0.5) * frames / count)
        middle = (place + 0.5) / count * sheet.config.video.seconds
        extent = (middle - half, middle + half, bottom, 1)
        axes.imshow(take.frames[index], extent=extent, aspect="auto", interpolation="antialiased")
        caption = f"{take.pts[index]:.2f}" + (" s" if place == 0 else "")
        axes.text(middle, bottom / 2, caption, ha="center", va="center", size=9, color=GREY)
    axes.set(xlim=(0, seconds), ylim=(0, 1))
    axes.axis("off")


def _spectrogram(axes: Axes, take: Take, sheet: Sheet, colour: str) -> None:
    """Log-mel power over clip time; a mark at the right edge names the loudest band."""
    assert take.decibels is not None
    audio, bands = sheet.config.audio, sheet.bands
    top = max(float(t.decibels.max()) for t in sheet.takes if t.decibels is not None)
    left = (audio.window - audio.hop) / 2  # a column stands for the hop around the middle of its window
    extent = (left, left + audio.frames * audio.hop, -0.5, len(bands) - 0.5)
    style: dict[str, Any] = {"cmap": "magma", "vmin": max(audio.floor_db, top - RANGE_DB), "vmax": top}
    axes.imshow(take.decibels, extent=extent, origin="lower", aspect="auto", interpolation="nearest", **style)
    shown = [hz for hz in TICKS if bands[0] <= hz <= bands[-1]][-5:]
    names = [f"{hz / 1000:g} kHz" if hz >= 1000 else f"{hz} Hz" for hz in shown]
    axes.set(xlim=(0, sheet.config.clip_seconds), yticks=np.interp(shown, bands, np.arange(len(bands))))
    axes.set_yticklabels(names)
    _plain(axes, labels=False)
    place = blended_transform_factory(axes.transAxes, axes.transData)
    hz = bands[take.loudest]
    text = f"◂ {hz / 1000:.1f} kHz" if hz >= 1000 else f"◂ {hz:.0f} Hz"
    mark: dict[str, Any] = {
        "color": colour,
        "size": 9.5,
        "weight": "bold",
        "va": "center",
        "transform": place,
    }
    axes.text(1.003, take.loudest, text, **mark)


def _clip_axis(page: _Page, sheet: Sheet) -> None:
    """The one axis of clip time that all rows share."""
    axes = page.axes(page.height - FOOT + 6, 1)
    axes.set(xlim=(0, sheet.config.clip_seconds), yticks=[])
    _plain(axes, labels=True)
    axes.text(1.016, 0, "s in the\nclip", transform=axes.transAxes, size=9, color=GREY, va="top")
    foot = "each row as an encoder is given it:   " + sheet.shapes
    if "audio" in sheet.config.modalities:
        foot += "   ·   ◂ loudest band"
    page.text(LEFT, page.height - 14, foot, size=9.5, color=GREY)


def _plain(axes: Axes, *, labels: bool) -> None:
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(length=3, color=GREY, labelcolor=GREY, labelsize=9)
    if not labels:
        axes.tick_params(bottom=False, labelbottom=False)
