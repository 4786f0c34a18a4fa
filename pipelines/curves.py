"""Curves over clip time, of which gains and fills are made: one number each at every instant.

A curve is a few numbers, so that a device can evaluate it; `shade` is that evaluation, compiled in `play.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

CONSTANT, INSIDE, OUTSIDE, NOISE = range(4)
LINEAR, EXPONENTIAL, LOGARITHMIC, QUARTER_SINE, HALF_SINE = RAMPS = range(4, 9)
TIE = 1e-6  # of a cell: a moment this close below the next one belongs to it
COLOURS = {"white": 0.0, "pink": 1.0, "brown": 2.0}  # power falls with frequency to this power


def ramp(kind: int, x: float) -> float:
    """The five shapes of torchaudio's fade, from 0 at x = 0 to 1 at x = 1."""
    if kind == EXPONENTIAL:
        return math.pow(2.0, x - 1.0) * x
    if kind == LOGARITHMIC:
        return min(math.log10(0.1 + x) + 1.0, 1.0)
    if kind == QUARTER_SINE:
        return math.sin(x * math.pi / 2)
    if kind == HALF_SINE:
        return math.sin(x * math.pi - math.pi / 2) / 2 + 0.5
    return x


def shade(
    v: Any, n: int, kind: int, a: float, b: float, level: float, noise: Any, ramp: Any, out: Any
) -> None:
    """Multiply out[:n] by the curve's values at the times v[:n]. Plain Python, to be compiled.

    Constant: level. Inside: level on [a, b), else 0; outside: the reverse. Noise: level times the sample of `noise`
    for the cell that v lies in, of b cells a clip, the first one at index a. A ramp rises from 0 at a to level at b
    (b < a: it falls).
    """
    if kind == CONSTANT:
        for i in range(n):
            out[i] *= level
    elif kind in (INSIDE, OUTSIDE):
        inside, outside = (level, 0.0) if kind == INSIDE else (0.0, level)
        for i in range(n):
            out[i] *= inside if a <= v[i] < b else outside
    elif kind == NOISE:
        first, last = int(a), int(b) - 1
        for i in range(n):
            out[i] *= level * noise[first + min(max(int(math.floor(v[i] * b + TIE)), 0), last)]  # noqa: RUF046
    else:
        scale = 1.0 / (b - a)
        for i in range(n):
            x = (v[i] - a) * scale
            if x <= 0.0:
                out[i] = 0.0
            else:
                out[i] *= level * ramp(kind, x) if x < 1.0 else level


@dataclass(frozen=True)
class Curve:
    """`shade` with its numbers; a noise has a key and a colour instead of the place of its samples.

    Attributes:
        span: shares of the clip [first, last) outside which nobody hears a noise, so that it is not drawn there.
    """

    kind: int = CONSTANT
    a: float = 0.0
    b: float = 1.0
    level: float = 1.0
    key: int = 0
    colour: str = "white"
    span: tuple[float, float] = (0.0, 1.0)

    def __call__(self, v: ArrayLike) -> NDArray[np.float64]:
        """The curve's values at `v`, same shape."""
        times: list[float] = np.ravel(v).tolist()
        self.multiply(out := [1.0] * len(times), times)
        return np.array(out, np.float64).reshape(np.shape(v))

    def multiply(self, out: list[float], v: list[float]) -> None:
        """Multiply `out` by the curve's values at `v`, in lists: Python reads their numbers faster than arrays'."""
        noise = self.samples() if self.kind == NOISE else None
        shade(v, len(v), self.kind, self.a, self.b, self.level, noise, ramp, out)

    def samples(self) -> NDArray[np.float32]:
        """(cells,) of a noise: Gaussian, standard deviation 1; zeros outside its span."""
        out = np.zeros(int(self.b), np.float32)
        first, last = int(self.span[0] * self.b), int(self.span[1] * self.b + TIE) + 1
        out[first:last] = normals(self.key, len(out), self.colour, first, min(last, len(out)))
        return out


def constant(level: float) -> Curve:
    """The same everywhere."""
    return Curve(CONSTANT, level=level)


def segment(a: float, b: float, *, level: float = 1.0, outside: bool = False) -> Curve:
    """`level` on [a, b) and 0 elsewhere, or the reverse."""
    return Curve(OUTSIDE if outside else INSIDE, a, b, level)


def white(
    key: int, cells: float, level: float, colour: str = "white", span: tuple[float, float] = (0.0, 1.0)
) -> Curve:
    """Gaussian noise of standard deviation `level`, one value for each of `cells` equal parts of the clip."""
    return Curve(NOISE, 0.0, float(math.ceil(cells)), level, key, colour, span)


@lru_cache
def quantiles() -> NDArray[np.float32]:
    """The normal distribution as 65,536 equally likely numbers: the middles of as many parts of its mass."""
    normal, count = NormalDist(), 1 << 16
    return np.array([normal.inv_cdf((i + 0.5) / count) for i in range(count)], np.float32)


def normals(key: int, count: int, colour: str, first: int, last: int) -> NDArray[np.float32]:
    """[first, last) of `count` Gaussian numbers that belong to `key`, with mean 0 and standard deviation 1."""
    return _white(key, count, first, last) if colour == "white" else _coloured(key, count, colour)[first:last]


def _white(key: int, count: int, first: int, last: int) -> NDArray[np.float32]:
    """As in pictures, 16 random bits choose one of 65,536 equally likely normal numbers: a fifth of the usual work."""
    skipped, before = divmod(first, 16)  # each count of the generator's gives 16 draws
    bits = np.random.Philox(key=[key, count], counter=skipped)
    draws = bits.random_raw((last - 16 * skipped + 3) // 4).view(np.uint16)
    return np.asarray(quantiles().take(draws[before : last - 16 * skipped]))


@lru_cache(maxsize=8)
def _coloured(key: int, count: int, colour: str) -> NDArray[np.float32]:
    """(count,) noise whose power is proportional to 1 / f^p.

    p is 1 for pink and 2 for brown noise (Timmer & König, 1995: a spectrum of Gaussian numbers, shaped).
    """
    spectrum = np.fft.rfft(_white(key, count, 0, count))
    frequency = np.arange(len(spectrum))
    shaped = spectrum * np.concatenate([[0.0], frequency[1:] ** (-COLOURS[colour] / 2)])
    out = np.fft.irfft(shaped, count)
    return np.asarray(out / max(out.std(), 1e-12), np.float32)
