"""Things that sing: string, bell, siren, whistle, bar."""

from __future__ import annotations

from math import cos, pi, sin

import numpy as np

from ..canvas import Canvas
from ..score import Array, Score
from ..sound import BELL, HARMONIC, clock, fade, glide, noise, strike, tone
from .event import Event


def _paint_string(canvas: Canvas, score: Score, t: float) -> None:
    """A stretched string; long is low. It swings when plucked, the swing dies with the tone."""
    half, glow = 0.32 * score.size, score.glow(t)
    i, u = score.phase(t)
    for side in (-1, 1):
        canvas.box(side * half, 0, 0.03, 0.16, body=1)
    canvas.lens(0, 0, half, 0.2 * glow, 0.022, glow=0.6 * glow)
    x = 1.2 * half * score.steps[i]
    canvas.wedge(x, 0.02 - 0.3 * min(1.0, 3 * u, 4 * (1 - u)), 0.16, -pi / 2, 0.4, body=1)


def _play_string(score: Score, rate: int) -> Array:
    """A harmonic tone."""
    pluck = tone(rate, score.hertz(110, 2.6), 1.3 * score.ring, HARMONIC)
    return strike(score, rate, lambda step: pluck)


def _paint_bell(canvas: Canvas, score: Score, t: float) -> None:
    """A bell swings, its tongue meets the wall at every turn; big bells are low."""
    i, u = score.phase(t)
    angle = (0.6 if i % 2 else -0.6) * cos(pi * u) * float(score.strengths[i]) ** 0.5
    r, glow = 0.3 * score.size, score.glow(t)
    down = angle + pi / 2
    canvas.wedge(0, -0.35, 1.7 * r, down, 0.45, glow=0.8 * glow)
    rim = 1.7 * r
    canvas.line(
        rim * cos(down - 0.5),
        -0.35 + rim * sin(down - 0.5),
        rim * cos(down + 0.5),
        -0.35 + rim * sin(down + 0.5),
        0.04,
    )
    tongue = pi / 2 + 1.5 * angle
    canvas.disc(1.85 * r * cos(tongue), -0.35 + 1.85 * r * sin(tongue), 0.07, body=1)


def _play_bell(score: Score, rate: int) -> Array:
    """Inharmonic partials."""
    stroke = tone(rate, score.hertz(280, 2.2), 1.6 * score.ring, BELL)
    return strike(score, rate, lambda step: stroke)


def _turns(score: Score, t: Array | float) -> Array:
    return 0.5 * score.beats(t)


def _paint_siren(canvas: Canvas, score: Score, t: float) -> None:
    """A lamp turns; wide beams sweep far."""
    angle = 2 * pi * float(_turns(score, t))
    canvas.wedge(0, 0, 0.6, angle, 0.25 + 0.3 * score.ring * score.tempo, body=2)
    canvas.disc(0, 0, 0.16 * score.size, body=0)


def _play_siren(score: Score, rate: int) -> Array:
    """One sweep up and down a turn."""
    turn = 2 * pi * _turns(score, clock(score, rate))
    depth = 0.25 + 0.5 * score.ring * score.tempo
    wave = glide(rate, score.hertz(400, 1.8) * 2 ** (depth * np.sin(turn)))
    return np.tanh(2.0 * wave).astype(np.float32)


def _paint_whistle(canvas: Canvas, score: Score, t: float) -> None:
    """A kettle whose spout steams while it whistles."""
    glow, r = score.glow(t), 0.2 * score.size
    canvas.disc(-0.12, 0.2, r)
    canvas.line(-0.12 + 0.6 * r, 0.2 - 0.4 * r, -0.12 + 1.4 * r, 0.2 - 1.2 * r, 0.04)
    for k in range(4):
        puff = (0.05 + 0.045 * k) * min(1.0, 2.0 * glow)
        canvas.disc(
            -0.1 + 1.5 * r + 0.09 * k, 0.16 - 1.4 * r - 0.1 * k, puff, body=2, alpha=min(1.0, 1.5 * glow)
        )


def _play_whistle(score: Score, rate: int) -> Array:
    """A wavering high tone with breath in it."""
    t, loud = clock(score, rate), fade(score, rate)
    hertz = score.hertz(1200, 1.8) * (1 + 0.02 * np.sin(2 * pi * 6 * t) - 0.1 * (1 - loud))
    breath = noise(rate, score.seconds, 2000, 8000, np.random.default_rng(score.seed))[: len(t)]
    return loud * (glide(rate, hertz) + 0.15 * breath)


def _bar_place(score: Score, t: Array | float) -> Array:
    """In [-1, 1]: to and fro, turning at every event."""
    beats = np.mod(score.beats(t), 2.0)
    return 1 - 2 * abs(beats - 1)


def _paint_bar(canvas: Canvas, score: Score, t: float) -> None:
    """A bar rises and falls across the picture."""
    reach = 0.15 + 0.25 * score.ring * score.tempo
    canvas.box(0, -reach * float(_bar_place(score, t)), 0.34 * score.size, 0.05, body=0)
    for side in (-1, 1):
        canvas.box(0.5 * side, 0, 0.03, reach + 0.05, body=1)


def _play_bar(score: Score, rate: int) -> Array:
    """The tone follows the bar, as far as the bar goes."""
    depth = 0.3 + 0.8 * score.ring * score.tempo
    hertz = score.hertz(180, 2.0) * 2 ** (depth * _bar_place(score, clock(score, rate)))
    return glide(rate, hertz) + 0.4 * glide(rate, 2 * hertz) + 0.2 * glide(rate, 3 * hertz)


TONES = (
    Event("string", _paint_string, _play_string),
    Event("bell", _paint_bell, _play_bell),
    Event("siren", _paint_siren, _play_siren),
    Event("whistle", _paint_whistle, _play_whistle),
    Event("bar", _paint_bar, _play_bar),
)
