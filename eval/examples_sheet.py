"""The contact sheet of examples: a row for each recording, with its positives and those that were turned down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from .bank import Bank
from .examples import Example, Neighbour
from .page import GREY, INK
from .thumbs import Thumb

TILE, SOUND, TEXT = 98, 30, 40  # pixels: a frame, its spectrogram, what is written below
STEP, GAP, EDGE, TOP, DPI = 104, 26, 20, 92, 100
ROW = TILE + SOUND + TEXT
SAME, OTHER = "#16a34a", "#dc2626"


def draw(
    examples: Sequence[Example], bank: Bank, thumbs: Mapping[int, Thumb], names: Sequence[str]
) -> Figure:
    """The sheet; a frame's edge is green where the class is the query's, red where it is another."""
    sheet = _Sheet(examples, bank, thumbs, names)
    sheet.heads()
    for line, example in enumerate(examples):
        sheet.line(line, example)
    return sheet.figure


class _Sheet:
    def __init__(
        self, examples: Sequence[Example], bank: Bank, thumbs: Mapping[int, Thumb], names: Sequence[str]
    ) -> None:
        self.bank, self.thumbs, self.names = bank, thumbs, names
        self.groups = {title: max(len(e.groups[title]) for e in examples) for title in examples[0].groups}
        tiles = 1 + sum(self.groups.values())
        self.width = 2 * EDGE + STEP * tiles + GAP * len(self.groups)
        self.height = TOP + ROW * len(examples) + EDGE // 2
        self.figure = Figure(figsize=(self.width / DPI, self.height / DPI), dpi=DPI, facecolor="white")

    def heads(self) -> None:
        """The titles of the columns."""
        self._text(EDGE, 28, "Whom agreement takes and whom it turns down", size=14, weight="bold")
        legend = (
            "green: of the same class; red: of another.  v, a: cosines of memories of pictures and of sounds"
        )
        self._text(EDGE, 48, legend, size=9, color=GREY)
        self._text(EDGE, TOP - 14, "recording", size=10, color=GREY)
        for title, left in self._lefts():
            self._text(left, TOP - 14, title, size=10, color=GREY)

    def line(self, line: int, example: Example) -> None:
        """One recording and its neighbours."""
        top = TOP + ROW * line
        self._tile(EDGE, top, example.row, None, INK)
        for title, left in self._lefts():
            for place, neighbour in enumerate(example.groups[title]):
                shade = self._shade(example.row, neighbour.row)
                self._tile(left + STEP * place, top, neighbour.row, neighbour, shade)

    def _lefts(self) -> list[tuple[str, float]]:
        """Title and left edge of every group of columns."""
        lefts, left = [], float(EDGE + STEP + GAP)
        for title, count in self.groups.items():
            lefts.append((title, left))
            left += STEP * count + GAP
        return lefts

    def _shade(self, row: int, other: int) -> str:
        labels = self.bank.label
        if labels[row] < 0 or labels[other] < 0:
            return GREY
        return SAME if labels[row] == labels[other] else OTHER

    def _tile(self, left: float, top: float, row: int, neighbour: Neighbour | None, shade: str) -> None:
        thumb = self.thumbs.get(int(self.bank.ids[row]), Thumb(None, None))
        if thumb.frame is not None:
            axes = self._axes(left, top, TILE)
            axes.imshow(thumb.frame, interpolation="nearest", aspect="auto")
            edge = Rectangle((0, 0), 1, 1, transform=axes.transAxes, fill=False, color=shade, lw=4)
            axes.add_patch(edge)
        if thumb.spectrum is not None:
            axes = self._axes(left, top + TILE + 2, SOUND - 2)
            axes.imshow(thumb.spectrum, origin="lower", aspect="auto", cmap="magma")
        label = int(self.bank.label[row])
        name = self.names[label] if 0 <= label < len(self.names) else ""
        self._text(left, top + TILE + SOUND + 12, name[:15], size=8)
        if neighbour:
            told = f"v {_short(neighbour.video)}  a {_short(neighbour.audio)}"
            self._text(left, top + TILE + SOUND + 25, told, size=8, color=GREY)

    def _axes(self, left: float, top: float, height: float) -> Axes:
        place = (left / self.width, 1 - (top + height) / self.height, TILE / self.width, height / self.height)
        axes = self.figure.add_axes(place)
        axes.set_axis_off()
        return axes

    def _text(
        self, x: float, y: float, text: str, size: float, color: str = INK, weight: str = "normal"
    ) -> None:
        self.figure.text(x / self.width, 1 - y / self.height, text, size=size, color=color, weight=weight)


def _short(value: float) -> str:
    return f"{np.round(value, 2) + 0.0:.2f}".replace("0.", ".")
