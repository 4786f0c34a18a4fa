"""Which of the frames near a moment costs least to decode: layered streams have a few that everything refers to."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..packets import EPSILON, PacketTable


def cheapest(
    table: PacketTable,
    level: NDArray[np.uint8],
    instants: NDArray[np.float64],
    slack: NDArray[np.float64],
) -> NDArray[np.float64]:
    """For each of `instants` (n,) seconds a moment at most `slack` (n,) away, whose frame is of the lowest level there
    is, and the nearest of those; the instant itself where its own frame is one.

    Args:
        level: (packets,) how far a picture is from those that everything refers to.
    """
    places = np.flatnonzero(table.shown)
    places = places[np.argsort(table.pts[places], kind="stable")]
    pts = np.asarray(table.pts[places] * table.tick, np.float64)
    levels = level[places]
    low, own, high = (
        np.maximum(np.searchsorted(pts, at + EPSILON, side="right") - 1, 0)
        for at in (instants - slack, instants, instants + slack)
    )
    chosen = instants.copy()
    for n, (first, last) in enumerate(zip(low.tolist(), high.tolist(), strict=True)):
        best = first + np.flatnonzero(levels[first : last + 1] == levels[first : last + 1].min())
        if own[n] not in best:
            chosen[n] = _nearest(pts, best, instants[n])
    return chosen


def _nearest(pts: NDArray[np.float64], frames: NDArray[np.intp], instant: float) -> float:
    """The moment nearest to `instant` at which one of `frames` is on screen."""
    ends = np.append(pts, np.inf)[frames + 1] - 2 * EPSILON
    moments = np.clip(instant, pts[frames], np.maximum(ends, pts[frames]))
    return float(moments[np.abs(moments - instant).argmin()])
