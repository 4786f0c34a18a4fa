"""The look of one recording: size, rate, place, colours, background, noise. Nothing of it is heard."""

from __future__ import annotations

import colorsys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from .canvas import Canvas
from .events.event import Event
from .score import Array, Score

SIZES = ((96, 128), (120, 160), (128, 96), (96, 96), (112, 144))  # height, width
RATES = (Fraction(30), Fraction(25), Fraction(30000, 1001), Fraction(24))


@dataclass(frozen=True)
class Look:
    """How a recording looks, drawn independently of its score."""

    height: int
    width: int
    rate: Fraction
    palette: Array
    centre: tuple[float, float]
    scale: float
    tilt: float
    background: Array
    blobs: Array
    grain: Array

    def canvas(self) -> Canvas:
        """A fresh canvas with the stage in its place."""
        return Canvas(self.height, self.width, self.palette, self.centre, self.scale, self.tilt)


def design(rng: np.random.Generator, held_out: bool, dark: bool) -> Look:
    """Draw a look: light things on a dark stage, or dark ones on a light stage.

    Held-out hues lie in the gaps between those of training.
    """
    height, width = SIZES[rng.integers(len(SIZES))]
    back = [_colour(rng, held_out, dark) for _ in range(4)]
    palette = np.array([_colour(rng, held_out, not dark, far) for far in (0.0, 0.0, 1.0)], np.float32)
    return Look(
        height=height,
        width=width,
        rate=RATES[rng.choice(len(RATES), p=(0.4, 0.25, 0.2, 0.15))],
        palette=palette,
        centre=(rng.uniform(-0.14, 0.14), rng.uniform(-0.11, 0.11)),
        scale=rng.uniform(0.75, 1.05),
        tilt=rng.uniform(-0.45, 0.45),
        background=_background(rng, height, width, back[:2]),
        blobs=_blobs(rng, back[2:]),
        grain=rng.normal(0, rng.uniform(1, 4), (4, height, width, 1)).astype(np.float32),
    )


def film(event: Event, score: Score, look: Look) -> Iterator[Array]:
    """The recording's frames, (H, W, 3) uint8; frame n shows the instant n / rate."""
    canvas = look.canvas()
    for n in range(round(score.seconds * look.rate)):
        t = float(n / look.rate)
        canvas.pixels[:] = look.background
        _distract(canvas, look, t)
        event.paint(canvas, score, t)
        shift = (7 * n) % look.width, (n // 4) % look.height
        grain = np.roll(look.grain[n % 4], shift, (1, 0))
        yield np.clip(canvas.pixels * 255 + grain, 0, 255).astype(np.uint8)


def _colour(
    rng: np.random.Generator, held_out: bool, light: bool, far: float = 0.7
) -> tuple[float, float, float]:
    """A light or a dark colour, of any hue; `far` is how near to white or black it may lie."""
    half = rng.uniform(0.5, 1.0) if held_out else rng.uniform(0.0, 0.5)
    hue = (rng.integers(6) + half) / 6
    depth = rng.uniform(0.0, 0.15) + 0.25 * far
    lightness = 0.58 + depth if light else 0.38 - depth
    return colorsys.hls_to_rgb(hue, lightness, rng.uniform(0.2, 0.9))


def _background(
    rng: np.random.Generator, height: int, width: int, colours: Sequence[tuple[float, ...]]
) -> Array:
    """A gradient between two colours under a soft texture of waves."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) / min(height, width)
    turn = rng.uniform(0, 2 * np.pi)
    blend = 0.5 + 0.6 * ((x - 0.6) * np.cos(turn) + (y - 0.5) * np.sin(turn))
    for _ in range(3):
        wave = rng.normal(0, 8, 2)
        blend += 0.15 * np.sin(wave[0] * x + wave[1] * y + rng.uniform(0, 2 * np.pi))
    first, second = np.array(colours, np.float32)
    blend = np.clip(blend, 0, 1)[..., None]
    return np.asarray(first + (second - first) * blend, np.float32)


def _blobs(rng: np.random.Generator, colours: Sequence[tuple[float, ...]]) -> Array:
    """(K, 8): place, slow drift, radius and colour of soft shapes behind the stage."""
    count = int(rng.integers(1, 3))
    place, drift = rng.uniform(-0.6, 0.6, (count, 2)), rng.normal(0, 0.04, (count, 2))
    radius = rng.uniform(0.05, 0.14, (count, 1))
    return np.hstack([place, drift, radius, np.resize(colours, (count, 3))]).astype(np.float32)


def _distract(canvas: Canvas, look: Look, t: float) -> None:
    """Shapes that move, but neither in time with the sound nor because of it."""
    for x, y, dx, dy, r, *colour in look.blobs:
        canvas.spot(float(x + dx * t), float(y + dy * t), float(r), np.array(colour, np.float32))
