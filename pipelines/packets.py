"""Which packets of a stream show what, and which of them a decoder needs for it: arithmetic on their times.

A group starts with a key frame. A picture belongs to the latest key frame that is not shown after it, so the leading
pictures of an open group (decoded after its key frame, shown before it) count as the end of the group before:

    decoded   I0 P3 B1 B2 | I6 B4 B5 P9 B7 B8 | I12 B10 B11 P15 ...     (numbers are presentation times)
    wanted           1                     7  |                            groups of I0 and I6
    needed    I0 P3 B1      I6       P9 B7
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

EPSILON = (
    1e-6  # seconds: an instant this close below a frame's time shows that frame; time bases are no finer
)
Places = NDArray[np.intp]


@dataclass(frozen=True)
class Span:
    """`places` (m,) of packets to decode one after the other, the first a key frame; `first` is the earliest instant
    (seconds) that they show, `opening` says that the stream has nothing before them."""

    places: Places
    first: float
    opening: bool


@dataclass(frozen=True)
class PacketTable:
    """Packets in decoding order: `pts` (n,) int64 in ticks of `tick` seconds, whether each is a `key` frame and whether
    its picture is ever `shown`, (n,) bool."""

    pts: NDArray[np.int64]
    key: NDArray[np.bool_]
    shown: NDArray[np.bool_]
    tick: float

    def __len__(self) -> int:
        return len(self.pts)

    def on_screen(self, instants: NDArray[np.float64]) -> Places:
        """Which packet is on screen at each of `instants` (k,) seconds: the first one also before its time."""
        places = np.flatnonzero(self.shown) if self.shown.any() else np.arange(len(self.pts))
        pts = self.pts[places]
        order = np.argsort(pts, kind="stable")
        after = np.searchsorted(pts[order] * self.tick, instants + EPSILON, side="right")
        return np.asarray(places[order[np.maximum(after - 1, 0)]])

    def spans(
        self, seen: Places, instants: NDArray[np.float64], *, opening: bool, since: int | None = None
    ) -> list[Span]:
        """What a decoder needs for `seen` (k,), the packets on screen at the ascending `instants`.

        Args:
            opening: the stream has nothing before these packets.
            since: a key frame; one span of everything from there to the last of them, of use or not.
        """
        keys = np.flatnonzero(self.key)
        group = keys[np.maximum(np.searchsorted(self.pts[keys], self.pts[seen], side="right") - 1, 0)]
        spans = []
        for key, last in [(since, int(seen.max()))] if since is not None else _merged(group, seen):
            alone, places = opening and key == 0, np.arange(key, last + 1)
            # leading pictures refer to the group before; at a stream's start they are all there is
            if not alone:
                places = places[self.pts[key : last + 1] >= self.pts[key]]
            first = instants[0] if since is not None else instants[group >= key][0]
            spans.append(Span(places, float(first), alone))
        return spans


def _merged(group: Places, seen: Places) -> list[tuple[int, int]]:
    """(first, last) packets to decode, from the key frame and the place of every wanted picture."""
    spans: list[tuple[int, int]] = []
    for key in np.unique(group):
        last = int(seen[group == key].max())
        if spans and spans[-1][1] >= key - 1:  # nothing to leave out between these groups
            spans[-1] = (spans[-1][0], max(last, spans[-1][1]))
        else:
            spans.append((int(key), last))
    return spans
