"""Things that hit things: bounce, pendulum, drum, clap, typing, xylophone."""

from __future__ import annotations

from math import cos, exp, pi, sin

import numpy as np

from ..canvas import Canvas
from ..score import Array, Score
from ..sound import WOOD, burst, chirp, mix, strike, tone
from .event import Event


def _paint_bounce(canvas: Canvas, score: Score, t: float) -> None:
    """A ball flies a parabola from hit to hit; longer gaps fly higher, big balls are low."""
    i, u = score.phase(t)
    r = 0.15 * score.size
    squash = 0.35 * exp(-score.since(t) / 0.07)
    height = 0.62 * min(1.0, 1.3 * score.gap(i)) * 4 * u * (1 - u)
    canvas.box(0, 0.42, 0.5, 0.04, body=1)
    canvas.ellipse(0, 0.38 - r - height, r * (1 + squash), r * (1 - squash), glow=0.7 * score.glow(t))


def _play_bounce(score: Score, rate: int) -> Array:
    """A thump that falls in pitch."""
    rng = np.random.default_rng(score.seed)
    low = score.hertz(90, 2.4)
    thump = chirp(rate, 2.2 * low, low, 0.1 + score.ring)
    return strike(score, rate, lambda step: mix(thump, burst(rate, 0.01, 300, 3000, rng)))


def _paint_pendulum(canvas: Canvas, score: Score, t: float) -> None:
    """A bob flies between two posts; short pendulums are high."""
    i, u = score.phase(t)
    length = 0.42 + 0.25 * (score.size - 0.5)
    angle = (0.75 if i % 2 else -0.75) * (1 - 2 * u)
    glow = score.glow(t)
    x, y = length * sin(angle), -0.42 + length * cos(angle)
    for side in (-1, 1):
        post = side * (length * sin(0.75) + 0.14)
        hit = glow if (i % 2 == 1) == (side == 1) else 0.0
        canvas.box(post, -0.42 + length * cos(0.75), 0.05, 0.2, body=1, glow=hit)
    canvas.line(0, -0.42, x, y, 0.018, body=1)
    canvas.disc(x, y, 0.1)


def _play_pendulum(score: Score, rate: int) -> Array:
    """Wooden knocks."""
    knock = tone(rate, score.hertz(240, 2.2), 0.03 + 0.12 * score.ring, WOOD)
    return strike(score, rate, lambda step: knock)


def _paint_drum(canvas: Canvas, score: Score, t: float) -> None:
    """Two sticks in turn fall on a skin that lights up and throws a ring."""
    i, u = score.phase(t)
    r = 0.28 * score.size
    canvas.ellipse(0, 0.25, r, 0.5 * r, glow=score.glow(t))
    canvas.ring(0, 0.25, r + 0.5 * score.since(t), 0.02, body=2, alpha=min(1.0, score.glow(t)))
    for side in (-1, 1):
        next_to_fall = (i % 2 == 1) == (side == 1)
        lift = abs(2 * u - 1) if not next_to_fall else 1 - max(0.0, 2 * u - 1)
        lift = 1 - u if next_to_fall else min(1.0, 2 * u)
        canvas.line(side * 0.42, -0.1 - 0.3 * lift, side * 0.08, 0.2 - 0.5 * lift, 0.03, body=1)


def _play_drum(score: Score, rate: int) -> Array:
    """A low tone with the rattle of a skin."""
    rng = np.random.default_rng(score.seed)
    low = score.hertz(50, 2.0)
    rattle = burst(rate, 0.05 + 0.3 * score.ring, 8 * low, 32 * low, rng)
    return strike(score, rate, lambda step: mix(chirp(rate, 2 * low, low, 0.25), 0.8 * rattle))


def _paint_clap(canvas: Canvas, score: Score, t: float) -> None:
    """Two hands fly apart and meet."""
    i, u = score.phase(t)
    apart = 0.36 * min(1.0, 1.5 * score.gap(i)) * sin(pi * u) ** 0.7
    a = 0.2 * score.size
    for side in (-1, 1):
        canvas.ellipse(
            side * (0.06 + apart), 0.05, 0.32 * a, a, turn=side * (0.1 + apart), glow=0.8 * score.glow(t)
        )
        canvas.line(side * (0.1 + apart), 0.05 + a, side * (0.3 + apart), 0.5, 0.05, body=1)


def _play_clap(score: Score, rate: int) -> Array:
    """Short noise around one band; small hands clap brightly."""
    rng = np.random.default_rng(score.seed)
    middle = score.hertz(600, 2.2)
    clap = burst(rate, 0.015 + 0.1 * score.ring, middle / 1.4, middle * 1.4, rng)
    return strike(score, rate, lambda step: clap)


def _paint_typing(canvas: Canvas, score: Score, t: float) -> None:
    """A row of five keys, two rows deep; the one that is struck goes down and lights up."""
    pitch, key = 0.13 + 0.05 * score.size, score.steps[score.last(t)]
    glow = score.glow(t)
    for column in range(-2, 3):
        for row in (0, 1):
            down = glow if row == 0 and abs(key - column / 4) < 0.13 else 0.0
            half = 0.4 * pitch * (1 + 0.35 * down)
            canvas.box(column * pitch, (row - 0.5) * 1.2 * pitch + 0.1 * down, half, half, glow=1.2 * down)


def _play_typing(score: Score, rate: int) -> Array:
    """Down-click and a fainter up-click."""
    rng = np.random.default_rng(score.seed)

    def click(step: float) -> Array:
        middle = score.hertz(1600, 1.6, step)
        down = burst(rate, 0.008, middle / 1.2, middle * 1.2, rng)
        up = np.concatenate([np.zeros(int(0.08 * rate), np.float32), 0.5 * down])
        return mix(down, up)

    return strike(score, rate, click)


def _paint_xylophone(canvas: Canvas, score: Score, t: float) -> None:
    """Five bars from long to short; a mallet leaps from one to the next."""
    i, u = score.phase(t)
    here, there = score.steps[i], score.steps[i + 1]
    for k in range(-2, 3):
        hit = score.glow(t) if abs(here - k / 4) < 0.13 else 0.0
        canvas.box(0.19 * k, 0.15, 0.075, (0.26 - 0.04 * k) * score.size**0.7, glow=hit)
    x = 0.76 * (here + (there - here) * u)
    y = 0.1 - 0.42 * 4 * u * (1 - u) * min(1.0, 1.5 * score.gap(i))
    canvas.disc(x, y, 0.07, body=1)
    canvas.line(x, y, x + 0.12, y - 0.3, 0.02, body=1)


def _play_xylophone(score: Score, rate: int) -> Array:
    """Bars ring at twice and four times their tone."""
    partials = ((1, 1), (4, 0.4), (10, 0.1))
    return strike(
        score, rate, lambda step: tone(rate, score.hertz(360, 2.0, step), 0.6 * score.ring, partials)
    )


IMPACTS = (
    Event("bounce", _paint_bounce, _play_bounce),
    Event("pendulum", _paint_pendulum, _play_pendulum),
    Event("drum", _paint_drum, _play_drum),
    Event("clap", _paint_clap, _play_clap),
    Event("typing", _paint_typing, _play_typing),
    Event("xylophone", _paint_xylophone, _play_xylophone),
)
