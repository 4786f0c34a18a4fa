"""Encoders may not change how the machine schedules us: SVT-AV1 makes a real-time process of one that root runs.

A real-time process is never interrupted by an ordinary one, and its children inherit that: on few cores, a loop
that waits for another process then waits forever.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

THREADS = "/proc/self/task"


@contextmanager
def ordinary_scheduling() -> Iterator[None]:
    """Open encoders in here: the threads of this process, new ones too, then have the policy they had before.

    Does nothing where there is no Linux that says so.
    """
    if not os.path.isdir(THREADS):
        yield
        return
    caller, before = os.sched_getscheduler(0), _policies()
    try:
        yield
    finally:
        for thread, policy in _policies().items():
            wanted = before.get(thread, caller)
            ordinary = wanted & ~os.SCHED_RESET_ON_FORK in (os.SCHED_OTHER, os.SCHED_BATCH, os.SCHED_IDLE)
            if policy != wanted and ordinary:
                with suppress(OSError):  # it may have ended meanwhile
                    os.sched_setscheduler(thread, wanted, os.sched_param(0))


def _policies() -> dict[int, int]:
    """The scheduling policy of each thread of this process."""
    found = {}
    for name in os.listdir(THREADS):
        with suppress(OSError):
            found[int(name)] = os.sched_getscheduler(int(name))
    return found
