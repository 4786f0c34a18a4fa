"""The packets of an open file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any


def packets_of(container: Any, *streams: Any) -> Iterator[Any]:
    """`container.demux(*streams)` for readers that stop early: PyAV's own generator then leaks a packet, 160 bytes.

    Raises:
        ValueError: a stream that the file's beginning does not announce, which PyAV does not expect.
        av.FFmpegError: the packets cannot be read.
    """
    with closing(container.demux(*streams)) as packets:
        try:
            yield from packets
        except IndexError:
            raise ValueError("a stream begins in the middle of the file") from None
