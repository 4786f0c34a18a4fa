"""The packets of an open file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

from .deadline import Deadline

OFTEN = 16  # packets between two looks at the clock; a read that hangs is interrupted by FFmpeg itself


def packets_of(container: Any, *streams: Any, deadline: Deadline | None = None) -> Iterator[Any]:
    """`container.demux(*streams)` for readers that stop early: PyAV's own generator then leaks a packet, 160 bytes.

    Raises:
        ValueError: a stream that the file's beginning does not announce, which PyAV does not expect.
        av.FFmpegError: the packets cannot be read.
        MediaError: past the deadline.
    """
    with closing(container.demux(*streams)) as packets:
        try:
            if deadline is None:
                yield from packets
                return
            for number, packet in enumerate(packets):
                if number % OFTEN == 0:
                    deadline.check()
                yield packet
        except IndexError:
            raise ValueError("a stream begins in the middle of the file") from None
