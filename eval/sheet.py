"""The contact sheet of `coaug view`: where each view lies in the recording, then a row of panels for each."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import blended_transform_factory

from .page import GREY, INSIDE, LEFT, PALE, Page, aside, colour, plain
from .strip import Panel, panels
from .take import Sheet, Take, Track

TOP, BAR, FOOT, GAP = 76, 18, 66, 34
HEADLINE, LINE, SMALL = 46, 18, 15  # heights of a row's label, of its lines, and of those of its recipe
LETTERS, CODE = 23, 25  # in a line
LABEL = 40  # where labels begin


def draw(sheet: Sheet) -> Figure:
    """The sheet, 1400 pixels wide."""
    bars = list(_bars(sheet))
    rows = [list(panels(take, sheet, colour(v))) for v, take in enumerate(sheet.takes)]
    heights = [
        max(_height(row), _label_height(take, sheet)) for row, take in zip(rows, sheet.takes, strict=True)
    ]
    top = float(TOP + BAR * len(bars) + 44)
    page = Page(round(top + sum(heights) + GAP * (len(rows) - 1) + FOOT))
    page.text(24, 30, sheet.recording.key, size=17, weight="bold")
    page.text(24, 54, sheet.facts, size=10.5, color=GREY)
    _windows(page.axes(TOP + 22, BAR * len(bars)), sheet, bars)
    for v, (take, row, height) in enumerate(zip(sheet.takes, rows, heights, strict=True)):
        page.bar(24, top, height, colour(v))
        _label(page, top, take, sheet, colour(v))
        below = top
        for panel in row:
            panel.draw(page.axes(below + panel.gap, panel.height))
            below += panel.gap + panel.height
        top += height + GAP
    _clip_axis(page, sheet)
    return page.figure


def _height(row: list[Panel]) -> float:
    return sum(panel.gap + panel.height for panel in row)


def _bars(sheet: Sheet) -> Iterator[tuple[str, str, Track]]:
    """(text, colour, track): one for a view whose picture and sound play the same part the same way, else two."""
    for v, take in enumerate(sheet.takes):
        for name, track in take.parts.items():
            yield f"{_speed(track)} {name}".strip(), colour(v), track


def _speed(track: Track) -> str:
    return ("◂ " if track.direction < 0 else "") + f"{_short(track.speed)}×"


def _short(speed: float) -> str:
    return f"{round(speed, 2):g}"


def _windows(axes: Axes, sheet: Sheet, bars: list[tuple[str, str, Track]]) -> None:
    """Bars over source time: the part of the recording that each view plays; white arrows where it is backwards."""
    first, last = min(t.span[0] for *_, t in bars), max(t.span[1] for *_, t in bars)
    low = min(max(sheet.recording.start, 2 * first - last), first)
    high = max(min(sheet.recording.end, 2 * last - first), last)
    place = blended_transform_factory(axes.transAxes, axes.transData)
    style: dict[str, Any] = {"ha": "right", "va": "center", "weight": "bold", "size": 10, "transform": place}
    for index, (text, shade, track) in enumerate(bars):
        start, end = track.span
        axes.barh(index, high - low, left=low, height=0.62, color=PALE)
        axes.barh(index, end - start, left=start, height=0.62, color=shade)
        if track.direction < 0:
            arrows = max(int((end - start) / (high - low) * INSIDE / 40), 1)
            middles = [start + (end - start) * (k + 0.5) / arrows for k in range(arrows)]
            axes.scatter(middles, [index] * arrows, marker="<", s=16, color="white", linewidths=0, zorder=3)
        axes.text(-0.008, index, text, color=shade, **style)
    axes.set(xlim=(low, high), ylim=(len(bars) - 0.5, -0.5), yticks=[])
    axes.xaxis.tick_top()
    plain(axes, labels=True)
    aside(axes, 1.0, "s in the\nrecording", va="top")


def _label(page: Page, top: float, take: Take, sheet: Sheet, shade: str) -> None:
    title = " / ".join(dict.fromkeys(_speed(track) for track in take.tracks.values()))
    page.text(LABEL, top + 24, title, size=20 if len(title) < 9 else 15, weight="bold", color=shade)
    below = top + HEADLINE
    for line in _phrases(take):
        page.text(LABEL, below, line, size=10)
        below += LINE
    for line in _spans(take):
        page.text(LABEL, below, line, size=10, color=GREY)
        below += LINE
    for line in _code(take):
        page.text(LABEL, below + 4, line, size=8.5, color=GREY, family="monospace")
        below += SMALL


def _label_height(take: Take, sheet: Sheet) -> float:
    return HEADLINE + LINE * (len(_phrases(take)) + len(_spans(take))) + SMALL * len(_code(take)) - 4


def _phrases(take: Take) -> list[str]:
    """What was drawn, in lines."""
    return [line for phrase in take.told or ("as recorded",) for line in textwrap.wrap(phrase, LETTERS)]


def _spans(take: Take) -> list[str]:
    """The part of the recording, of each modality where they differ."""
    return [f"{name} {t.span[0]:.2f} – {t.span[1]:.2f} s".strip() for name, t in take.parts.items()]


def _code(take: Take) -> list[str]:
    return textwrap.wrap(take.recipe, CODE)


def _clip_axis(page: Page, sheet: Sheet) -> None:
    """The one axis of clip time that all rows share."""
    axes = page.axes(page.height - FOOT + 6, 1)
    axes.set(xlim=(0, sheet.config.clip_seconds), yticks=[])
    plain(axes, labels=True)
    axes.text(1.016, 0, "s in the\nclip", transform=axes.transAxes, size=9, color=GREY, va="top")
    foot = "each row as an encoder is given it:   " + sheet.shapes
    if "audio" in sheet.config.modalities:
        foot += "   ·   ◂ loudest band"
    page.text(LEFT, page.height - 14, foot, size=9.5, color=GREY)
