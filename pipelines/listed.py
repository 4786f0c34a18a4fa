"""A media file, read by the list of its packets (`listing`): no container is opened, and only what is needed is read.

Frames and sound are, bit for bit, those that come out by way of the container. That is also where everything goes that
the list cannot do, so that a damaged file says the same either way.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from itertools import chain
from typing import TYPE_CHECKING

import av
import numpy as np
from numpy.typing import NDArray

from .media import Convert, Deadline, Frames, MediaError, reason
from .mono import MonoBuffer
from .packed.index import Sample
from .packed.jpegs import Images
from .packed.stored import Stored, packet_of
from .pcm import priming
from .samples import slack
from .slices import Slice

if TYPE_CHECKING:
    from .opened import MediaFile


class ListedFile(Stored):
    """See `Media`.

    Args:
        descriptor: of the open file.
        container: opens it as `MediaFile`; called where the list does not do.
    """

    def __init__(
        self, sample: Sample, descriptor: int, deadline: Deadline, container: Callable[[], MediaFile]
    ) -> None:
        # new decoders for each clip: AAC's noise, and what hides damage, depend on what was decoded before
        super().__init__(sample, lambda at, size: _read(descriptor, at, size), deadline)
        self.container = container

    def frames(self, instants: NDArray[np.float64], convert: Convert) -> Frames:
        """See `Media`."""
        try:
            return super().frames(instants, convert)
        except MediaError:
            return self._opened().frames(instants, convert)

    def near(self, instants: NDArray[np.float64], slack: NDArray[np.float64]) -> NDArray[np.float64]:
        """The instants themselves, as of any file."""
        return instants

    def cut(self, instants: NDArray[np.float64]) -> Slice:
        """See `Media`."""
        return self._opened().cut(instants)

    def images(self, instants: NDArray[np.float64]) -> Images | None:
        """None, as of any file."""
        return None

    def sound(self, first: int, last: int) -> NDArray[np.float32]:
        """See `Media`."""
        self.deadline.at("audio")
        out = np.zeros(last - first, np.float32)
        try:
            position, data = self._heard(first, last)
        except MediaError:
            return self._opened().sound(first, last)
        low = max(position, first, self.sample.row["audio_origin"])
        high = min(position + len(data), last)
        if high > low:
            out[low - first : high - first] = data[low - position : high - position]
        return out

    def _opened(self) -> MediaFile:
        self.deadline.at("open")
        return self.container()

    def _heard(self, first: int, last: int) -> tuple[int, NDArray[np.float32]]:
        """Number of the first one, and (n,) samples that hold those of [first, last) that there are."""
        lists, codec = self.sample.lists, self.decoder("audio")
        ends = self.sample.row["audio_first"] + np.cumsum(lists["audio_samples"], dtype=np.int64)
        begins = ends - lists["audio_samples"]
        # from the very packet that `pcm.runs` begins with
        early = first - slack(1.0, self.rate) - priming(codec) * self.rate
        low = max(int(np.searchsorted(begins, math.floor(early), "right")) - 1, 0)
        high = max(int(np.searchsorted(begins, last, "left")), low + 1)
        buffer = MonoBuffer()
        try:
            data = self.parts(lists["audio_at"][low:high], lists["audio_size"][low:high])
            for frame in chain.from_iterable(map(codec.decode, map(packet_of, data))):
                buffer.write(frame)
        except (av.FFmpegError, ValueError) as error:
            raise MediaError(f"audio does not decode: {reason(error)}") from None
        over = buffer.samples - int(ends[high - 1] - begins[low])
        # only a track's last packet may hold more than it is meant to
        if not 0 <= over < int(lists["audio_samples"].max()) or (over and high < len(ends)):
            raise MediaError("audio does not decode: samples are missing")
        return int(begins[low]), buffer.read()


def _read(descriptor: int, at: int, size: int) -> bytes:
    try:
        data = os.pread(descriptor, size, at)
    except OSError as error:
        raise MediaError(reason(error)) from None
    if len(data) < size:
        raise MediaError("the file is shorter than it was")
    return data
