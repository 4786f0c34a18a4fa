"""Temporal co-augmentation as functions of clip time: one object for picture and sound.

Clip time u runs over [0, 1). A timeline plays the source x as

    y(u) = g(u) · x(m(u)) + f(u)

with a *time map* m (where to look, in clip lengths of the source), a *gain* g and a *fill* f. Playing timeline 1
and then timeline 2 is again a timeline:

    m = m₁∘m₂        g = g₁(m₂) · g₂        f = f₁(m₂) · g₂ + f₂

so any sequence of transforms costs one pass over the clip. Nothing here knows frames, samples or files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Curve = Callable[[Array], Array]


@dataclass(frozen=True)
class Stage:
    """A piecewise affine function, fed with u or with u held still for `hold` at a time.

    v = source[i] + slope[i] · (q - start[i]) on the piece i with start[i] <= q < start[i+1], where
    q = hold · ⌊u / hold⌋, or u itself when `hold` is 0. The outer pieces reach to infinity.
    """

    start: tuple[float, ...] = (0.0,)
    source: tuple[float, ...] = (0.0,)
    slope: tuple[float, ...] = (1.0,)
    hold: float = 0.0

    def __post_init__(self) -> None:
        if not len(self.start) == len(self.source) == len(self.slope) > 0:
            raise ValueError(f"a stage needs as many starts as sources and slopes: {self}")
        if any(b <= a for a, b in zip(self.start, self.start[1:], strict=False)) or self.hold < 0:
            raise ValueError(f"a stage needs ascending starts and a hold of at least 0: {self}")

    def __call__(self, u: ArrayLike) -> Array:
        """The map's values at `u`, same shape."""
        q = np.asarray(u, np.float64)
        if self.hold:
            q = self.hold * np.floor(q / self.hold)
        start, source, slope = map(np.asarray, (self.start, self.source, self.slope))
        piece = np.searchsorted(start[1:], q, side="right")
        return np.asarray(source[piece] + slope[piece] * (q - start[piece]), np.float64)

    def after(self, inner: Stage) -> Stage:
        """self∘inner as one stage; needs self.hold == 0. Equal at every u but, at most, the breakpoints."""
        found = [q for value in self.start[1:] for q in inner._preimages(value)]
        first = min([inner.start[0], *(q - 1.0 for q in found)])
        cuts = np.unique([first, *inner.start[1:], *found])
        # each new piece lies within one piece of both: read the pieces off at a point inside it
        inside = np.append((cuts[:-1] + cuts[1:]) / 2, cuts[-1] + 1.0)
        i = np.searchsorted(np.asarray(inner.start[1:]), inside, side="right")
        a, b, k = (np.asarray(x)[i] for x in (inner.start, inner.source, inner.slope))
        middle = b + k * (inside - a)
        j = np.searchsorted(np.asarray(self.start[1:]), middle, side="right")
        c, d, n = (np.asarray(x)[j] for x in (self.start, self.source, self.slope))
        value = d + n * (b + k * (cuts - a) - c)
        return Stage(tuple(cuts.tolist()), tuple(value.tolist()), tuple((n * k).tolist()), inner.hold)

    def _preimages(self, value: float) -> list[float]:
        """Every q at which an (endless) piece of this stage passes through `value`."""
        ends = (*self.start[1:], np.inf)
        pieces = zip((-np.inf, *self.start[1:]), ends, self.start, self.source, self.slope, strict=True)
        found = [(a + (value - b) / k, low, high) for low, high, a, b, k in pieces if k]
        return [q for q, low, high in found if low < q < high]


@dataclass(frozen=True)
class TimeMap:
    """Stages applied one after the other; neighbours are fused wherever no hold stands between them."""

    stages: tuple[Stage, ...] = ()

    @classmethod
    def affine(cls, source: float, slope: float) -> TimeMap:
        """u -> source + slope · u."""
        return cls((Stage((0.0,), (source,), (slope,)),))

    def __call__(self, u: ArrayLike) -> Array:
        """The map's values at `u`, same shape."""
        return reduce(lambda v, stage: stage(v), self.stages, np.asarray(u, np.float64))

    def after(self, inner: TimeMap) -> TimeMap:
        """self∘inner."""
        if not inner.stages or not self.stages:
            return self if self.stages else inner
        (*before, last), (first, *rest) = inner.stages, self.stages
        middle = (last, first) if first.hold else (first.after(last),)
        return TimeMap((*before, *middle, *rest))

    def table(self, samples: int, origin: float, scale: float) -> Array:
        """The map between arrays, as rows (stage, hold, start, source, slope) that a device can walk: (rows, 5).

        Args:
            samples: output samples a clip; output position i + 0.5 is the centre of sample i.
            origin: position of clip time 0 in the source array, where sample k covers [k, k + 1).
            scale: source samples a clip length of the source.
        """
        *inner, last = self.stages or (Stage(),)
        rows = [
            (i, stage.hold * samples, a * samples, b * samples, k)
            for i, stage in enumerate(inner)
            for a, b, k in zip(stage.start, stage.source, stage.slope, strict=True)
        ]
        rows += [
            (len(inner), last.hold * samples, a * samples, origin + b * scale, k * scale / samples)
            for a, b, k in zip(last.start, last.source, last.slope, strict=True)
        ]
        return np.array(rows, np.float64)


@dataclass(frozen=True)
class Factor:
    """A curve read at mapped time: u -> curve(time(u))."""

    curve: Curve
    time: TimeMap = TimeMap()

    def __call__(self, u: ArrayLike) -> Array:
        """The factor's values at `u`, same shape."""
        return self.curve(self.time(u))

    def at(self, inner: TimeMap) -> Factor:
        """The same factor seen through a later map."""
        return Factor(self.curve, self.time.after(inner))


Product = tuple[Factor, ...]


@dataclass(frozen=True)
class Timeline:
    """Map, gain (a product of factors) and fill (a sum of products). The default plays the source as it is."""

    time: TimeMap = TimeMap()
    gain: Product = ()
    fill: tuple[Product, ...] = ()

    def then(self, later: Timeline) -> Timeline:
        """This timeline first, `later` after it, by the law of composition above."""
        seen = [tuple(f.at(later.time) for f in product) for product in (self.gain, *self.fill)]
        fills = tuple(product + later.gain for product in seen[1:])
        return Timeline(self.time.after(later.time), seen[0] + later.gain, fills + later.fill)

    def gains(self, u: ArrayLike) -> Array:
        """g(u)."""
        return _product(self.gain, u)

    def fills(self, u: ArrayLike) -> Array:
        """f(u)."""
        return sum((_product(product, u) for product in self.fill), np.zeros(np.shape(u)))


def _product(factors: Product, u: ArrayLike) -> Array:
    return reduce(np.multiply, (factor(u) for factor in factors), np.ones(np.shape(u)))


def compose(timelines: Iterable[Timeline]) -> Timeline:
    """The timelines played one after the other, first to last."""
    return reduce(Timeline.then, timelines, Timeline())


def instants(count: int) -> Array:
    """Clip times of `count` frames or samples: the centres of as many equal parts of [0, 1), shape (count,).

    Centres, because they are the same set played backwards, and because a frame shown for a span of time then
    shows what the source shows in the middle of that span at every speed.
    """
    return np.asarray((np.arange(count) + 0.5) / count)


def speed(factor: float) -> Timeline:
    """Play `factor` times as fast; the clip keeps its length and covers `factor` times as much source."""
    if factor <= 0:
        raise ValueError(f"a speed is positive, and backwards is reversal(): {factor = }")
    return Timeline(TimeMap.affine(0.0, factor))


def reversal() -> Timeline:
    """Play the clip backwards."""
    return Timeline(TimeMap.affine(1.0, -1.0))
