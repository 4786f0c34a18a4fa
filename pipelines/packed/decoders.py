"""Decoders that wait for the next sample: opening one, and the memory of its first frames, cost a fifth of a clip."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any

IDLE = 8  # a shard's samples share their headers, but where the sources' own packets were copied


class Decoders:
    """Codec contexts by what they were opened with, one for each at a time."""

    def __init__(self) -> None:
        self._idle: OrderedDict[Hashable, Any] = OrderedDict()

    @contextmanager
    def borrow(self, key: Hashable, make: Callable[[], Any]) -> Iterator[Any]:
        """One that knows of nothing it decoded before; `make` opens it where there is none."""
        codec = self._idle.pop(key, None) or make()
        yield codec  # what fails is not used again
        codec.flush_buffers()
        self._idle[key] = codec
        if len(self._idle) > IDLE:
            self._idle.popitem(last=False)
