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
    """For each of `instants` (n,) seconds a moment at most `slack` (n,) away at which a frame of a lower level than its
    own begins: of the lowest that there is, the nearest; else the instant itself.

    Instants twice their slack apart never share a frame that is not on screen at both.

    Args:
        level: (packets,) how far a picture is from those that everything refers to.
    """
    places = np.flatnonzero(table.shown)
    places = places[np.argsort(table.pts[places], kind="stable")]
    pts = np.asarray(table.pts[places] * table.tick, np.float64)
    levels = level[places]
    own = np.maximum(np.searchsorted(pts, instants + EPSILON, side="right") - 1, 0)
    low, high = (np.searchsorted(pts, at - EPSILON) for at in (instants - slack, instants + slack))
    chosen = instants.copy()
    for n, (mine, first, end) in enumerate(zip(own.tolist(), low.tolist(), high.tolist(), strict=True)):
        near = np.arange(first, end)
        best = near[levels[near] < levels[mine]]
        if len(best):
            best = best[levels[best] == levels[best].min()]
            chosen[n] = pts[best[np.abs(pts[best] - instants[n]).argmin()]]
    return chosen
