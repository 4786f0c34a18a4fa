"""Feeds runs of packets to a video decoder and says which of its frames is on screen when."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .deadline import Deadline
from .groups import Run
from .packets import EPSILON

DRAIN = (None,)  # what makes a decoder give the frames that it holds back


class Late(Exception):
    """A run's first frame comes after the first instant that it should show (gradual refresh, damaged key frames)."""


class Decoder:
    """A codec context that is fed packets timed in ticks of `tick` seconds; `decoded` counts them, one a frame."""

    def __init__(self, codec: Any, tick: float, deadline: Deadline) -> None:
        self.codec, self.tick, self.deadline, self.decoded = codec, tick, deadline, 0

    def frames(self, runs: Iterable[Run]) -> Iterator[Any]:
        """Frames in presentation order. Raises `Late`, what FFmpeg raises, or MediaError at the deadline."""
        decode, at = self.codec.decode, self.deadline.at
        for run in runs:
            self.codec.flush_buffers()  # nothing of the run before may be referred to
            due = np.inf if run.opening else run.first + EPSILON
            for packet in chain(run.packets, DRAIN):
                at("video")
                self.decoded += packet is not None
                for frame in decode(packet):
                    if frame.pts is None:
                        continue
                    if due < np.inf:
                        if self.seconds(frame) > due:
                            raise Late
                        due = np.inf
                    yield frame
            if due < np.inf:
                raise Late

    def seconds(self, frame: Any) -> float:
        """When `frame` is shown first. (Frames from a drained decoder carry no time base of their own.)"""
        return float(frame.pts * self.tick)


def shown(
    frames: Iterable[Any], decoder: Decoder, wanted: NDArray[np.float64]
) -> Iterator[tuple[int, int, Any]]:
    """(first, last, frame): `frame` is on screen at the ascending instants wanted[first:last]."""
    done, held, times = 0, None, [*wanted.tolist(), np.inf]
    for frame in frames:
        passed = decoder.seconds(frame) - EPSILON
        if times[done] < passed and held is not None:
            until = bisect_left(times, passed, done)
            yield done, until, held
            done = until
            if done == len(wanted):
                return
        held = frame
    if held is not None:
        yield done, len(wanted), held  # the last frame stays on screen
