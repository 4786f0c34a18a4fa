"""A page laid out in pixels, its colours, and axes without frames."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

WIDTH, DPI = 1400, 100  # pixels; all lengths are pixels too
LEFT, RIGHT = 284, 96  # margins beside the time axes
INSIDE = WIDTH - LEFT - RIGHT
INK, GREY, PALE = "#1b1f24", "#6b7280", "#e5e7eb"
PICTURE, SOUND = "#0f172a", "#e11d48"  # where the two differ
VIEWS = ("#2563eb", "#0d9488", "#d97706", "#7c3aed", "#65a30d", "#0891b2")


class Page:
    """A figure whose places are pixels from its top left corner."""

    def __init__(self, height: float) -> None:
        self.height = height
        self.figure = Figure(figsize=(WIDTH / DPI, height / DPI), dpi=DPI, facecolor="white")

    def axes(self, top: float, height: float) -> Axes:
        """Axes between the side margins."""
        bottom = self.height - top - height
        return self.figure.add_axes(
            (LEFT / WIDTH, bottom / self.height, INSIDE / WIDTH, height / self.height)
        )

    def text(self, x: float, y: float, text: str, **style: Any) -> None:
        """Text whose base line stands at `y`."""
        self.figure.text(x / WIDTH, 1 - y / self.height, text, **({"color": INK} | style))

    def bar(self, x: float, y: float, height: float, colour: str) -> None:
        """An upright bar."""
        place = (x / WIDTH, 1 - (y + height) / self.height)
        size = (4 / WIDTH, height / self.height)
        self.figure.add_artist(Rectangle(place, *size, color=colour, linewidth=0))


def colour(view: int) -> str:
    """The colour of a view."""
    return VIEWS[view % len(VIEWS)]


def plain(axes: Axes, *, labels: bool) -> None:
    """No frame, small grey numbers; `labels`: also those of the time axis."""
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(length=3, color=GREY, labelcolor=GREY, labelsize=9)
    if not labels:
        axes.tick_params(bottom=False, labelbottom=False)


def aside(axes: Axes, y: float, text: str, **style: Any) -> None:
    """Text in the right margin, at the share `y` of the axes' height."""
    settings: dict[str, Any] = {"size": 9, "color": GREY, "va": "center", "transform": axes.transAxes}
    axes.text(1 + 6 / INSIDE, y, text, **(settings | style))
