"""A recording, opened: from its file, or from the shard that it was packed into."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .config import Modality
from .listed import ListedFile
from .listings import Listings
from .media import (
    Convert,
    Deadline,
    Frames,
    MediaError,
    audio_rate,
    open_media,
    read_audio,
    read_frames,
    stream_of,
)
from .packed.index import Sample
from .packed.jpegs import Images
from .packed.shards import Shards
from .recording import Recording
from .slices import Slice, cut


class Media(Protocol):
    """What a clip needs of a recording. Everything raises MediaError."""

    @property
    def rate(self) -> int:
        """Samples of sound a second."""

    def frames(self, instants: NDArray[np.float64], convert: Convert) -> Frames:
        """The frames on screen at `instants` (n,) seconds, see `read_frames`."""

    def near(self, instants: NDArray[np.float64], slack: NDArray[np.float64]) -> NDArray[np.float64]:
        """Moments at most `slack` (n,) seconds from `instants` (n,) whose frames cost less, where that is known."""

    def cut(self, instants: NDArray[np.float64]) -> Slice:
        """The packets that they need, as a small file, see `slices.cut`."""

    def images(self, instants: NDArray[np.float64]) -> Images | None:
        """The JPEGs that they need, joined to one, see `jpegs.joined`; None where that cannot be."""

    def sound(self, first: int, last: int) -> NDArray[np.float32]:
        """Mono sound of the samples [first, last), see `read_audio`."""


class MediaFile:
    """An open media file."""

    def __init__(self, container: Any, deadline: Deadline) -> None:
        self.container, self.deadline = container, deadline

    @property
    def rate(self) -> int:
        """See `Media`."""
        self._check("audio", "sound")
        return audio_rate(self.container)

    def frames(self, instants: NDArray[np.float64], convert: Convert) -> Frames:
        """See `Media`."""
        self._check("video", "picture")
        return read_frames(self.container, instants, self.deadline, convert)

    def near(self, instants: NDArray[np.float64], slack: NDArray[np.float64]) -> NDArray[np.float64]:
        """The instants themselves: nobody knows what a file's frames cost."""
        return instants

    def cut(self, instants: NDArray[np.float64]) -> Slice:
        """See `Media`."""
        self._check("video", "picture")
        return cut(self.container, instants, self.deadline)

    def images(self, instants: NDArray[np.float64]) -> Images | None:
        """None: the JPEGs of a file's video have tables of their own."""
        return None

    def sound(self, first: int, last: int) -> NDArray[np.float32]:
        """See `Media`."""
        self._check("audio", "sound")
        return read_audio(self.container, first, last, self.deadline)

    def _check(self, kind: str, name: str) -> None:
        if stream_of(self.container, kind) is None:
            raise MediaError(f"the {name} that was catalogued is gone")


@contextmanager
def opened(
    recording: Recording,
    modalities: tuple[Modality, ...],
    shards: Shards,
    listings: Listings,
    deadline: Deadline,
) -> Iterator[Media]:
    """The recording's media. Raises MediaError.

    Args:
        modalities: those that will be asked for.
        shards: where packed ones are read.
        listings: what is known of others' packets.
    """
    if recording.member is not None:
        yield shards.media(recording.path, recording.member, deadline)
        return
    with ExitStack() as stack:

        def container() -> MediaFile:
            streams = [getattr(recording, modality) for modality in modalities]
            declared = all(stream is not None and stream.declared for stream in streams)
            media = open_media(recording.path, deadline, probe=not declared)
            return MediaFile(stack.enter_context(media), deadline)

        listed = _listed(recording, modalities, listings, stack)
        yield ListedFile(*listed, deadline, cache(container)) if listed else container()


def _listed(
    recording: Recording, modalities: tuple[Modality, ...], listings: Listings, stack: ExitStack
) -> tuple[Sample, int] | None:
    """The list of a file's packets and the open file; None where it does not list all modalities."""
    try:
        descriptor = os.open(recording.path, os.O_RDONLY | os.O_NONBLOCK)  # opening a pipe would wait
    except (OSError, ValueError):
        return None
    stack.callback(os.close, descriptor)
    sample = listings.sample(recording.path, os.fstat(descriptor).st_size)
    if sample is None or not all(sample.row[f"{modality}_codec"] for modality in modalities):
        return None
    return sample, descriptor
