"""Time maps: where in the source each moment of a clip looks, as a few affine pieces."""

from __future__ import annotations

import math
import operator
from bisect import bisect_right
from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Row = tuple[float, ...]
TIE = 1e-9  # a moment this close below the next holding period belongs to it, on every device


@dataclass(frozen=True)
class Stage:
    """A piecewise affine function, fed with u or with u held still for `hold` at a time.

    v = source[i] + slope[i] · (q - start[i]) on the piece i with start[i] <= q < start[i+1], where q is the middle of
    the holding period that u lies in, hold · (⌊u / hold⌋ + ½), or u itself when `hold` is 0. The outer pieces reach
    to infinity. With an `overlap`, each piece is faded in over the end of the one before it: a splice of sounds.
    """

    start: tuple[float, ...] = (0.0,)
    source: tuple[float, ...] = (0.0,)
    slope: tuple[float, ...] = (1.0,)
    hold: float = 0.0
    overlap: float = 0.0

    def __post_init__(self) -> None:
        if not len(self.start) == len(self.source) == len(self.slope) > 0:
            raise ValueError(f"a stage needs as many starts as sources and slopes: {self}")
        if self.hold < 0 or any(map(operator.le, self.start[1:], self.start)):
            raise ValueError(f"a stage needs ascending starts and a hold of at least 0: {self}")

    def __call__(self, u: ArrayLike) -> Array:
        """The map's values at `u`, same shape; where pieces overlap, those of the later one."""
        q = np.asarray(u, np.float64)
        if self.hold:
            q = self.hold * (np.floor(q / self.hold + TIE) + 0.5)
        if len(self.start) == 1:  # most are, and NumPy takes ten times as long to look up one piece
            return np.asarray(self.source[0] + self.slope[0] * (q - self.start[0]))
        start, source, slope = map(np.asarray, (self.start, self.source, self.slope))
        piece = np.searchsorted(start[1:], q, side="right")
        return np.asarray(source[piece] + slope[piece] * (q - start[piece]), np.float64)

    def _piece(self, q: float) -> tuple[float, float, float]:
        """(start, source, slope) of the piece that `q` lies in."""
        i = bisect_right(self.start, q, 1) - 1
        return self.start[i], self.source[i], self.slope[i]

    def fuses(self, inner: Stage) -> bool:
        """Whether self∘inner is one stage again."""
        return not (self.hold or self.overlap or inner.overlap)

    def after(self, inner: Stage) -> Stage:
        """self∘inner as one stage, where it `fuses`. Equal at every u but, at most, the breakpoints."""
        found = [q for value in self.start[1:] for q in inner._preimages(value)]
        first = min([inner.start[0], *(q - 1.0 for q in found)])
        cuts = sorted({first, *inner.start[1:], *found})
        pieces = []
        for cut, following in zip(cuts, [*cuts[1:], cuts[-1] + 2.0], strict=True):
            # each new piece lies within one piece of both: read the pieces off at a point inside it
            inside = (cut + following) / 2
            a, b, k = inner._piece(inside)
            c, d, n = self._piece(b + k * (inside - a))
            pieces.append((d + n * (b + k * (cut - a) - c), n * k))
        source, slope = zip(*pieces, strict=True)
        return Stage(tuple(cuts), source, slope, inner.hold)

    def _preimages(self, value: float) -> list[float]:
        """Every q at which an (endless) piece of this stage passes through `value`."""
        ends = (*self.start[1:], math.inf)
        pieces = zip((-math.inf, *self.start[1:]), ends, self.start, self.source, self.slope, strict=True)
        found = [(a + (value - b) / k, low, high) for low, high, a, b, k in pieces if k]
        return [q for q, low, high in found if low < q < high]


@dataclass(frozen=True)
class TimeMap:
    """Stages applied one after the other; neighbours are fused wherever no hold or splice stands between them."""

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
        middle = (first.after(last),) if first.fuses(last) else (last, first)
        return TimeMap((*before, *middle, *rest))

    def unspliced(self) -> TimeMap:
        """Without its splices, which move sound by milliseconds and time not at all."""
        kept = tuple(stage for stage in self.stages if not stage.overlap)
        return self if len(kept) == len(self.stages) else TimeMap(kept)

    @property
    def steepest(self) -> float:
        """The greatest speed at which the source is passed through anywhere, holds left aside."""
        return math.prod((max(map(abs, stage.slope)) for stage in self.stages), start=1.0)

    def rows(self, samples: float, origin: float, scale: float) -> list[Row]:
        """The map between arrays, as rows that a device can walk.

        A row is a piece: (pieces of its stage, hold, overlap, start, source, slope). Stages stand in the order in
        which a moment passes through them.

        Args:
            samples: output samples a clip length; output position i + 0.5 is the centre of sample i.
            origin: position of clip time 0 in the source array, where sample k covers [k, k + 1).
            scale: source samples a clip length of the source.
        """
        *inner, last = self.stages or (Stage(),)
        rows = [row for stage in inner for row in _rows(stage, samples, 0.0, samples)]
        return rows + _rows(last, samples, origin, scale)


def _rows(stage: Stage, samples: float, origin: float, scale: float) -> list[Row]:
    common = (float(len(stage.start)), stage.hold * samples, stage.overlap * samples)
    return [
        (*common, a * samples, origin + b * scale, k * scale / samples)
        for a, b, k in zip(stage.start, stage.source, stage.slope, strict=True)
    ]
