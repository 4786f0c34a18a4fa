"""Things that go on: bubbles, wheel, rain, fan, spark."""

from __future__ import annotations

from math import cos, pi, sin

import numpy as np

from ..canvas import Canvas
from ..score import Array, Score
from ..sound import burst, chirp, clock, fade, glide, mix, noise, strike
from .event import Event


def _paint_bubbles(canvas: Canvas, score: Score, t: float) -> None:
    """Bubbles rise and pop at the surface, one an event."""
    first = score.last(t)
    canvas.line(-0.5, -0.28, 0.5, -0.28, 0.02, body=1)
    for k in range(first, min(first + 5, len(score.times))):
        ahead = float(score.times[k]) - t
        x, r = 0.8 * float(score.steps[k]), 0.13 * score.size * (0.6 + 0.4 * float(score.strengths[k]))
        if ahead >= 0:
            canvas.ring(x, -0.28 + r + 0.4 * ahead, r, 0.03)
        else:
            canvas.ring(x, -0.28, r * (1 + 3 * -ahead), 0.03, body=2, alpha=min(1.0, score.glow(t)))


def _play_bubbles(score: Score, rate: int) -> Array:
    """A blip that rises in pitch; small bubbles are high."""

    def blip(step: float) -> Array:
        low = score.hertz(320, 2.2, 0.6 * step)
        return chirp(rate, low, 2.5 * low, 0.06 + 0.4 * score.ring)

    return strike(score, rate, blip)


def _paint_wheel(canvas: Canvas, score: Score, t: float) -> None:
    """A spoke passes the peg at every tick; one spoke is marked."""
    r, spokes = 0.36 * score.size**0.5, 4
    angle = -pi / 2 + 2 * pi * float(score.beats(t)) / spokes
    canvas.ring(0, 0, r, 0.035)
    for k in range(spokes):
        turn = angle + 2 * pi * k / spokes
        canvas.line(0, 0, r * cos(turn), r * sin(turn), 0.045 if k else 0.09)
    canvas.wedge(0, -r - 0.14, 0.15, pi / 2, 0.4, body=1, glow=score.glow(t))


def _play_wheel(score: Score, rate: int) -> Array:
    """Ticks of a ratchet over a soft rumble that follows the turning."""
    rng = np.random.default_rng(score.seed)
    middle = score.hertz(700, 2.2)
    tick = mix(burst(rate, 0.006, middle, middle * 4, rng), chirp(rate, middle, 0.7 * middle, 0.05))
    angle = 2 * np.pi * score.beats(clock(score, rate))
    rumble = noise(rate, score.seconds, 60, 200, rng)[: len(angle)] * (1 + np.cos(angle))
    return np.asarray(strike(score, rate, lambda step: tick) + 0.1 * rumble, np.float32)


def _paint_rain(canvas: Canvas, score: Score, t: float) -> None:
    """Drops fall in gusts: an event throws many, then few come."""
    rng = np.random.default_rng(score.seed)
    glow, length = score.glow(t), 0.08 * score.size
    for k in range(16):
        x, lane, order = rng.uniform(-0.5, 0.5), rng.random(), (k + 0.5) / 16
        if order < glow**0.7:
            y = (lane + 1.6 * t) % 1.0 - 0.5
            canvas.line(x, y - length, x - 0.03, y + length, 0.03, body=2)
    canvas.box(0, 0.45, 0.5, 0.05, body=1, glow=0.5 * glow)


def _play_rain(score: Score, rate: int) -> Array:
    """Hiss in gusts; short drops are brighter."""
    rng = np.random.default_rng(score.seed)
    low = score.hertz(1200, 1.8)
    hiss = noise(rate, score.seconds, low, 3 * low, rng)
    return hiss[: round(score.seconds * rate)] * (0.05 + fade(score, rate))


def _paint_fan(canvas: Canvas, score: Score, t: float) -> None:
    """Three blades, one passing the top at every event."""
    angle = -pi / 2 + 2 * pi * float(score.beats(t)) / 3
    for k in range(3):
        canvas.wedge(0, 0, 0.38 * score.size**0.5, angle + 2 * pi * k / 3, 0.35, body=0)
    canvas.disc(0, 0, 0.08, body=1)


def _play_fan(score: Score, rate: int) -> Array:
    """A hum and a breeze that swell with every blade."""
    t = clock(score, rate)
    swell = 0.15 + (0.5 + 0.5 * np.cos(2 * pi * score.beats(t))) ** 2
    low = score.hertz(65, 1.6)
    hum = sum(glide(rate, np.full(len(t), low * k)) / k for k in (1, 2, 3, 4))
    breeze = noise(rate, score.seconds, 3 * low, 12 * low, np.random.default_rng(score.seed))[: len(t)]
    return (swell * (hum + 0.4 * breeze)).astype(np.float32)


def _paint_spark(canvas: Canvas, score: Score, t: float) -> None:
    """A bolt leaps between two poles and dies away; wide gaps crackle low."""
    i = score.last(t)
    rng = np.random.default_rng([score.seed, i])
    glow, half = score.glow(t), 0.28 * score.size
    xs = np.linspace(-half, half, 6)
    ys = np.concatenate([[0], rng.uniform(-0.16, 0.16, 4), [0]])
    for side in (-1, 1):
        canvas.disc(side * half, 0, 0.09, body=1)
        canvas.line(side * half, 0, side * half, 0.45, 0.03, body=1)
    for k in range(5) if glow > 0.08 else ():
        canvas.line(xs[k], ys[k], xs[k + 1], ys[k + 1], 0.05 * min(1.0, 1.5 * glow), body=2)


def _play_spark(score: Score, rate: int) -> Array:
    """Noise cut to pieces at the mains' rhythm."""
    t = clock(score, rate)
    rng = np.random.default_rng(score.seed)
    low = score.hertz(420, 2.1)
    crackle = noise(rate, score.seconds, low, 10 * low, rng)[: len(t)]
    gate = (np.sin(2 * pi * 60 * t) > sin(0.6)).astype(np.float32)
    return crackle * gate * fade(score, rate)


TEXTURES = (
    Event("bubbles", _paint_bubbles, _play_bubbles),
    Event("wheel", _paint_wheel, _play_wheel),
    Event("rain", _paint_rain, _play_rain),
    Event("fan", _paint_fan, _play_fan),
    Event("spark", _paint_spark, _play_spark),
)
