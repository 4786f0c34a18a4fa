"""Which file each worker process is reading: one that hangs or crashes its worker can be named, and left out."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.process import BaseProcess

from .shared import SharedTable

HINTS = {"SIGBUS": ": is /dev/shm full?", "SIGKILL": ": out of memory?"}
PIDS = 1 << 22  # Linux has no larger ones; only the table's pages in use take memory


class Watch:
    """Workers say what they are at; the kernel ends one that takes too long, whatever native code it hangs in."""

    def __init__(self) -> None:
        self._table, self._maker = SharedTable(PIDS), os.getpid()

    @contextmanager
    def over(self, sample_id: int, step: int, seconds: float) -> Iterator[None]:
        """While this process reads a recording for a global step; a worker ends after `seconds`, by SIGALRM."""
        if os.getpid() == self._maker:  # the trainer itself must not be ended
            yield
            return
        row = self._table.rows[os.getpid()]
        row[:] = sample_id, step + 1
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            row[1] = 0

    def at(self, pid: int) -> tuple[int, int] | None:
        """(sample id, global step) of what a process, dead or alive, is reading; None if it reads nothing."""
        sample_id, step = self._table.rows[pid].tolist()
        return (sample_id, step - 1) if step else None


def ended(workers: Sequence[BaseProcess], patience: float = 10.0) -> dict[int, str]:
    """Process id -> how it ended, of the workers that nobody told to end; when one does, DALI ends the others."""
    until = time.monotonic() + patience
    while any(worker.exitcode is None for worker in workers) and time.monotonic() < until:
        time.sleep(0.01)  # another thread may be the one to be told the exit status
    return {w.pid or 0: _how(w.exitcode) for w in workers if w.exitcode not in (None, 0, -signal.SIGTERM)}


def _how(status: int | None) -> str:
    if status == -signal.SIGALRM:
        return "hung beyond its deadline, and its worker process was ended"
    by = signal.Signals(-status).name if status and status < 0 else f"exit status {status}"
    return f"took its worker process down ({by}{HINTS.get(by, '')})"
