"""SIGTERM, Ctrl-C and the time budget: finish the step, save, leave."""

from __future__ import annotations

import os
import signal
import time
from enum import IntEnum
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

STOP_FILE = "COAUG_STOP_FILE"  # set by `launch`: torchrun cannot pass a signal on without killing the workers


class Verdict(IntEnum):
    """What to do after a step; the largest of all ranks counts."""

    GO_ON = 0
    FINISH = 1
    """Time is up: end training and evaluate."""
    LEAVE = 2
    """Save and exit."""


class StopRequest:
    """Remembers that the run was asked to stop; a second signal ends the process at once.

    Attributes:
        signal: the signal received, if any.
    """

    def __init__(self, max_minutes: float | None = None) -> None:
        self.signal: signal.Signals | None = None
        self._file = os.environ.get(STOP_FILE)
        self._deadline = time.monotonic() + 60 * max_minutes if max_minutes else None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            os._exit(128 + number)
        self.signal = signal.Signals(number)

    @property
    def verdict(self) -> Verdict:
        """What this process knows."""
        if self.signal is not None or (self._file is not None and Path(self._file).exists()):
            return Verdict.LEAVE
        late = self._deadline is not None and time.monotonic() > self._deadline
        return Verdict.FINISH if late else Verdict.GO_ON

    @property
    def name(self) -> str:
        """Who asked, for a message."""
        if self.signal is not None:
            return self.signal.name
        return Path(self._file).read_text() if self._file and Path(self._file).exists() else "another process"

    @property
    def code(self) -> int:
        """Exit status: 128 + signal; 0 under `launch`, which returns its own."""
        return 128 + self.signal if self.signal is not None else 0
