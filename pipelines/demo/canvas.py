"""Anti-aliased shapes on a float picture, each painted only where it can be seen."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .score import Array

Distance = Callable[[Array, Array], Array]


class Canvas:
    """A picture in units of its shorter side; (0, 0) is the stage's centre, x to the right, y downwards.

    Args:
        height, width: Pixels.
        palette: (3, 3) float32 RGB in [0, 1]: body, tool, light.
        centre: Where the stage's origin lies, from the picture's middle.
        scale: Factor on all lengths.
        tilt: Turn of the stage in radians.
    """

    def __init__(
        self,
        height: int,
        width: int,
        palette: Array,
        centre: tuple[float, float] = (0.0, 0.0),
        scale: float = 1.0,
        tilt: float = 0.0,
    ) -> None:
        side = min(height, width)
        self.pixels = np.zeros((height, width, 3), np.float32)
        self.palette, self.scale, self.tilt = palette, scale, tilt
        self._centre = complex(*centre)
        self._turn = scale * np.exp(1j * tilt)
        self._soft = np.float32(side)  # a distance of one pixel takes coverage from 0 to 1
        self._x = ((np.arange(width) + 0.5 - width / 2) / side).astype(np.float32)
        self._y = ((np.arange(height) + 0.5 - height / 2) / side).astype(np.float32)

    def disc(
        self, x: float, y: float, r: float, body: int = 0, glow: float = 0.0, alpha: float = 1.0
    ) -> None:
        """A filled circle."""
        r *= self.scale
        self._fill(x, y, r, lambda dx, dy: np.sqrt(dx * dx + dy * dy) - r, body, glow, alpha)

    def ring(
        self, x: float, y: float, r: float, w: float, body: int = 0, glow: float = 0.0, alpha: float = 1.0
    ) -> None:
        """A circle line of half width `w`."""
        r, w = r * self.scale, w * self.scale
        self._fill(x, y, r + w, lambda dx, dy: abs(np.sqrt(dx * dx + dy * dy) - r) - w, body, glow, alpha)

    def ellipse(
        self, x: float, y: float, a: float, b: float, turn: float = 0.0, body: int = 0, glow: float = 0.0
    ) -> None:
        """A filled ellipse of half axes `a`, `b`."""
        a, b = a * self.scale, b * self.scale

        def distance(dx: Array, dy: Array) -> Array:
            p, q = _rotate(dx, dy, turn + self.tilt)
            return np.asarray((np.sqrt((p / a) ** 2 + (q / b) ** 2) - 1) * min(a, b))

        self._fill(x, y, max(a, b), distance, body, glow)

    def box(
        self, x: float, y: float, a: float, b: float, turn: float = 0.0, body: int = 0, glow: float = 0.0
    ) -> None:
        """A filled rectangle of half sides `a`, `b`."""
        a, b = a * self.scale, b * self.scale

        def distance(dx: Array, dy: Array) -> Array:
            p, q = _rotate(dx, dy, turn + self.tilt)
            return np.asarray(np.maximum(abs(p) - a, abs(q) - b))

        self._fill(x, y, float(np.hypot(a, b)), distance, body, glow)

    def line(
        self, x0: float, y0: float, x1: float, y1: float, w: float, body: int = 0, glow: float = 0.0
    ) -> None:
        """A stroke of half width `w` with round ends."""
        half = complex(x1 - x0, y1 - y0) / 2 * self._turn
        square, w = max(abs(half) ** 2, 1e-9), w * self.scale

        def distance(dx: Array, dy: Array) -> Array:
            along = np.clip((dx * half.real + dy * half.imag) / square, -1, 1)
            across = np.sqrt((dx - along * half.real) ** 2 + (dy - along * half.imag) ** 2)
            return np.asarray(across - w)

        self._fill((x0 + x1) / 2, (y0 + y1) / 2, abs(half) + w, distance, body, glow)

    def wedge(
        self, x: float, y: float, r: float, turn: float, half: float, body: int = 0, glow: float = 0.0
    ) -> None:
        """A sector of radius `r` around the direction `turn`, `half` radians (< pi/2) to either side."""
        r = r * self.scale
        cos, sin = float(np.cos(half)), float(np.sin(half))

        def distance(dx: Array, dy: Array) -> Array:
            p, q = _rotate(dx, dy, turn + self.tilt)
            return np.asarray(np.maximum(np.sqrt(dx * dx + dy * dy) - r, abs(q) * cos - p * sin))

        self._fill(x, y, r, distance, body, glow)

    def lens(
        self, x: float, y: float, half: float, swing: float, w: float, body: int = 0, glow: float = 0.0
    ) -> None:
        """A string from x - half to x + half, blurred by an amplitude `swing`; half width `w` at rest."""
        half, swing, w = half * self.scale, swing * self.scale, w * self.scale

        def distance(dx: Array, dy: Array) -> Array:
            p, q = _rotate(dx, dy, self.tilt)
            belly = w + swing * np.cos(np.clip(p / half, -1, 1) * (np.pi / 2))
            return np.asarray(np.maximum(abs(q) - belly, abs(p) - half))

        self._fill(x, y, half + swing + w, distance, body, glow)

    def spot(self, x: float, y: float, r: float, colour: Array) -> None:
        """A circle of any colour at a place of the picture, not of the stage."""
        self._blend(complex(x, y), r, lambda dx, dy: np.sqrt(dx * dx + dy * dy) - r, colour)

    def _fill(
        self, x: float, y: float, reach: float, distance: Distance, body: int, glow: float, alpha: float = 1.0
    ) -> None:
        """Paint a shape of the stage in a colour of the palette, mixed with its light."""
        colour = self.palette[body] + (self.palette[2] - self.palette[body]) * np.float32(min(glow, 1.0))
        self._blend(self._centre + complex(x, y) * self._turn, reach, distance, colour, alpha)

    def _blend(
        self, at: complex, reach: float, distance: Distance, colour: Array, alpha: float = 1.0
    ) -> None:
        """Blend a colour in where `distance` (of offsets from `at`, in picture units) is negative."""
        reach += 1.0 / float(self._soft)
        x0, x1 = np.searchsorted(self._x, (at.real - reach, at.real + reach))
        y0, y1 = np.searchsorted(self._y, (at.imag - reach, at.imag + reach))
        if x0 >= x1 or y0 >= y1:
            return
        dx = self._x[None, x0:x1] - np.float32(at.real)
        dy = self._y[y0:y1, None] - np.float32(at.imag)
        cover = np.clip(0.5 - distance(dx, dy) * self._soft, 0, 1).astype(np.float32) * np.float32(alpha)
        patch = self.pixels[y0:y1, x0:x1]
        patch += cover[..., None] * (colour - patch)


def _rotate(dx: Array, dy: Array, turn: float) -> tuple[Array, Array]:
    """Coordinates along and across a direction."""
    cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    return dx * cos + dy * sin, dy * cos - dx * sin
