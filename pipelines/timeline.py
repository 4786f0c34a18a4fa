"""Temporal co-augmentation as functions of clip time: one object for picture and sound.

Clip time u runs over [0, 1). A timeline plays the source x as

    y(u) = g(u) · x(m(u)) + f(u)

with a *time map* m (where to look, in clip lengths of the source), a *gain* g and a *fill* f. Playing timeline 1
and then timeline 2 is again a timeline:

    m = m₁∘m₂        g = g₁(m₂) · g₂        f = f₁(m₂) · g₂ + f₂

so any sequence of transforms costs one pass over the clip. Nothing here knows frames, samples or files.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .curves import Curve
from .timemap import Array, Stage, TimeMap

__all__ = ["Factor", "Product", "Stage", "TimeMap", "Timeline", "compose", "instants"]

AS_IT_IS = TimeMap()


@dataclass(frozen=True)
class Factor:
    """A curve read at mapped time: u -> curve(time(u))."""

    curve: Curve
    time: TimeMap = AS_IT_IS

    def __call__(self, u: ArrayLike) -> Array:
        """The factor's values at `u`, same shape."""
        return self.curve(self.time(u))


Product = tuple[Factor, ...]


@dataclass(frozen=True)
class Timeline:
    """Map, gain (a product of factors) and fill (a sum of products). The default plays the source as it is."""

    time: TimeMap = AS_IT_IS
    gain: Product = ()
    fill: tuple[Product, ...] = ()

    def then(self, later: Timeline) -> Timeline:
        """This timeline first, `later` after it, by the law of composition above."""
        gain, *fills = _seen((self.gain, *self.fill), later.time.unspliced())
        fill = tuple(product + later.gain for product in fills) + later.fill
        return Timeline(self.time.after(later.time), gain + later.gain, fill)

    def gains(self, u: ArrayLike) -> Array:
        """g(u)."""
        return _product(self.gain, u)

    def fills(self, u: ArrayLike) -> Array:
        """f(u)."""
        return sum((_product(product, u) for product in self.fill), np.zeros(np.shape(u)))


def _seen(products: tuple[Product, ...], inner: TimeMap) -> tuple[Product, ...]:
    """The products seen through a later map. Most factors share theirs, so each different one is composed once."""
    if not inner.stages:
        return products
    maps = {time: time.after(inner) for time in {factor.time for product in products for factor in product}}
    return tuple(tuple(Factor(f.curve, maps[f.time]) for f in product) for product in products)


def _product(factors: Product, u: ArrayLike) -> Array:
    return reduce(np.multiply, (factor(u) for factor in factors), np.ones(np.shape(u)))


def compose(timelines: Iterable[Timeline]) -> Timeline:
    """The timelines played one after the other, first to last."""
    return reduce(Timeline.then, timelines, Timeline())


def instants(count: int) -> NDArray[np.float64]:
    """Clip times of `count` frames or samples: the centres of as many equal parts of [0, 1), shape (count,).

    Centres, because they are the same set played backwards, and because a frame shown for a span of time then
    shows what the source shows in the middle of that span at every speed.
    """
    return np.asarray((np.arange(count) + 0.5) / count)
