"""How the machine shares its cores among us.

Loaders step back for training: where there are more busy threads than cores, a loader that is ahead anyway would take
turns with the thread that trains. On two cores that cost training a seventh of its speed (docs/benchmarks.md).

Encoders may not change anything: SVT-AV1 makes a real-time process of one that root runs. Such a process is never
interrupted by an ordinary one, and its children inherit that: on few cores, a loop that waits for another process then
waits forever.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

THREADS = "/proc/self/task"
BEHIND = 10  # how nice a loader is: a tenth of a training thread's turns, where all cores are busy


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


@contextmanager
def behind() -> Iterator[None]:
    """Threads that start in here are `BEHIND` the caller; they stay so. Does nothing where there is no Linux."""
    before = _threads()
    yield
    for thread in _threads() - before:
        with suppress(OSError):  # it may have ended meanwhile
            os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, 0) + BEHIND)


def _threads() -> set[int]:
    return set(map(int, os.listdir(THREADS))) if os.path.isdir(THREADS) else set()


def _policies() -> dict[int, int]:
    """The scheduling policy of each thread of this process."""
    found = {}
    for thread in _threads():
        with suppress(OSError):
            found[thread] = os.sched_getscheduler(thread)
    return found
