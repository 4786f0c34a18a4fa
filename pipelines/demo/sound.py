"""Tones, noises and their placing in time: what the demo's events sound like."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from .score import Array, Score

Partials = Sequence[tuple[float, float]]
"""(Frequency ratio, amplitude) of each partial of a tone."""

HARMONIC: Partials = ((1, 1), (2, 0.6), (3, 0.4), (4, 0.25), (5, 0.15))
BELL: Partials = ((0.5, 0.4), (1, 1), (1.19, 0.6), (1.5, 0.4), (2.0, 0.7), (2.74, 0.5), (3.76, 0.3))
WOOD: Partials = ((1, 1), (3.9, 0.5), (9.2, 0.2))


def tone(
    rate: int, hertz: float, ring: float, partials: Partials = ((1, 1),), attack: float = 0.002
) -> Array:
    """A struck tone: (S,) samples, higher partials fading faster, until 1 % is left."""
    t = np.arange(int(rate * (4.6 * ring + attack)), dtype=np.float32) / rate
    wave = np.zeros_like(t)
    for ratio, amplitude in partials:
        if hertz * ratio < 0.45 * rate:
            decay = np.exp(-t / (ring / max(1.0, ratio) ** 0.5))
            wave += amplitude * np.sin((2 * np.pi * hertz * ratio) * t) * decay
    return np.asarray(wave * np.minimum(1, t / attack))


def chirp(rate: int, start: float, end: float, seconds: float) -> Array:
    """A short tone that glides from `start` to `end` hertz and fades."""
    u = np.arange(int(rate * seconds), dtype=np.float32) / (rate * seconds)
    hertz = start * (end / start) ** u
    return np.asarray(glide(rate, hertz) * np.minimum(1, u * 20) * (1 - u) ** 1.5)


def glide(rate: int, hertz: Array) -> Array:
    """A sine whose frequency is given for every sample."""
    return np.sin(np.cumsum(hertz, dtype=np.float64) * (2 * np.pi / rate)).astype(np.float32)


def noise(rate: int, seconds: float, low: float, high: float, rng: np.random.Generator) -> Array:
    """Gaussian noise between two frequencies, of unit variance."""
    size = 2 ** int(np.ceil(np.log2(max(2, rate * seconds))))
    spectrum = np.fft.rfft(rng.standard_normal(size, dtype=np.float32))
    hertz = np.fft.rfftfreq(size, 1 / rate)
    spectrum *= 1 / (1 + (low / np.maximum(hertz, 1)) ** 8) / (1 + (hertz / high) ** 8)
    wave = np.fft.irfft(spectrum)[: round(rate * seconds)].astype(np.float32)
    return np.asarray(wave / max(float(wave.std()), 1e-9))


def burst(rate: int, ring: float, low: float, high: float, rng: np.random.Generator) -> Array:
    """A noise that fades: claps, clicks, crackle."""
    wave = noise(rate, 4.6 * ring, low, high, rng)
    t = np.arange(len(wave), dtype=np.float32) / rate
    return 0.5 * wave * np.exp(-t / ring) * np.minimum(1, t / 0.001)


def mix(first: Array, second: Array) -> Array:
    """The sum of two sounds of different length."""
    long, short = (first, second) if len(first) >= len(second) else (second, first)
    total = long.copy()
    total[: len(short)] += short
    return total


def strike(score: Score, rate: int, grain: Callable[[float], Array]) -> Array:
    """(S,) samples: `grain(step)` at every event, as loud as the event is strong."""
    track = np.zeros(round(score.seconds * rate), np.float32)
    grains = {step: grain(step) for step in np.unique(score.steps)}
    for time, strength, step in zip(score.times, score.strengths, score.steps, strict=True):
        _add(track, round(time * rate), np.float32(strength) * grains[step])
    return track


def _add(track: Array, start: int, wave: Array) -> None:
    first, last = max(0, start), min(len(track), start + len(wave))
    if first < last:
        track[first:last] += wave[first - start : last - start]


def clock(score: Score, rate: int) -> Array:
    """(S,) seconds of every sample."""
    return np.arange(round(score.seconds * rate)) / rate


def fade(score: Score, rate: int) -> Array:
    """(S,) strength of the latest event, fading: the sound's twin of `Score.glow`."""
    t = clock(score, rate)
    i = np.searchsorted(score.times, t, side="right") - 1
    since = t - score.times[i]
    return (score.strengths[i] * np.exp(-since / score.ring) * np.minimum(1, since / 0.004)).astype(
        np.float32
    )
