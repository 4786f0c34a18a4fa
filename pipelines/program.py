"""A timeline compiled to the small arrays that a device walks: tables for sound, four numbers a frame for pictures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .curves import NOISE, Curve
from .timeline import Factor, Timeline
from .timemap import Array, TimeMap


class Program(NamedTuple):
    """What `play.py` evaluates for every sample.

    Attributes:
        maps: (R, 6) `TimeMap.rows`: first the clip's own map, into its PCM, then the factors', into curves.
        curves: (1 + factors, 7): (product, kind, a, b, level, first, end), where [first, end) are rows of `maps`.
            Row 0 is the clip itself; product 0 is the gain, each other one a summand of the fill.
        noise: (m,) float32, the samples of all noises, one after the other.
    """

    maps: NDArray[np.float64]
    curves: NDArray[np.float64]
    noise: NDArray[np.float32]


def sound_program(timeline: Timeline, samples: float, origin: float, scale: float) -> Program:
    """The program of a clip's sound; arguments as for `TimeMap.rows`."""
    maps = timeline.time.rows(samples, origin, scale)
    curves = [(-1.0, 0.0, 0.0, 0.0, 0.0, 0.0, float(len(maps)))]
    noises, filled, places = [np.zeros(1, np.float32)], 1, dict[TimeMap, tuple[int, int]]()
    for product, factor in _factors(timeline):
        if factor.time not in places:  # most factors share their map with others
            first = len(maps)
            maps += factor.time.rows(samples, 0.0, 1.0)
            places[factor.time] = first, len(maps)
        curve, a = factor.curve, factor.curve.a
        if curve.kind == NOISE:
            a, filled = float(filled), filled + int(curve.b)
            noises.append(curve.samples())
        curves.append((product, curve.kind, a, curve.b, curve.level, *places[factor.time]))
    noise = np.concatenate(noises) if len(noises) > 1 else noises[0]
    return Program(np.array(maps, np.float64), np.array(curves, np.float64), noise)


def picture_tone(timeline: Timeline, u: NDArray[np.float64]) -> NDArray[np.float64]:
    """Gain and fill of a clip's frames at clip times `u` (T,): (T, 4) rows (gain, constant fill, noise, key).

    Constants are in shares of white, noise is its standard deviation in those of the normalised picture. At most one
    noise is heard at a time: it stands where a gain of 0 has removed all before it.
    """
    tone = np.zeros((len(u), 4))
    times = {time: time(u) for time in {factor.time for _, factor in _factors(timeline)}}
    tone[:, 0] = _product(timeline.gain, times, len(u))
    for product in timeline.fill:
        level = _product((factor for factor in product if factor.curve.kind != NOISE), times, len(u))
        noisy = next((factor for factor in product if factor.curve.kind == NOISE), None)
        if noisy is None:
            tone[:, 1] += level
            continue
        keys, shown = _cells(noisy.curve, times[noisy.time]), level != 0
        tone[shown, 2], tone[shown, 3] = (noisy.curve.level * level)[shown], keys[shown]
    return tone


def _product(factors: Iterable[Factor], times: Mapping[TimeMap, Array], count: int) -> Array:
    out = [1.0] * count
    for factor in factors:
        factor.curve.multiply(out, times[factor.time].tolist())
    return np.array(out)


def _cells(curve: Curve, v: Array) -> Array:
    """A key for the noise picture on screen at each of `v`: the same cell of the same noise is the same picture."""
    cell = np.clip(np.floor(v * curve.b + 1e-6), 0, curve.b - 1)
    return np.asarray((curve.key * 1_000_003 + cell) % 2.0**53)


def _factors(timeline: Timeline) -> Iterator[tuple[float, Factor]]:
    """(product, factor) of the gain, 0, and of each summand of the fill, 1, 2, …"""
    for product, factors in enumerate((timeline.gain, *timeline.fill)):
        yield from ((float(product), factor) for factor in factors)
