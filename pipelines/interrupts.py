"""A Ctrl-C that arrives while a graph is built or given up is not lost, and does not wait for ever."""

from __future__ import annotations

import gc
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.util import Finalize


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Ctrl-C in here is acted upon at the end, whole; only the main thread gets any."""
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is None:  # None: a handler that is not Python's
        yield
        return
    late: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: late.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if late:
            signal.raise_signal(signal.SIGINT)


def sweep() -> None:
    """Free what compiling a graph left behind, now rather than in the middle of training.

    Python forgets a KeyboardInterrupt that is raised in the callback of a weak reference, and Numba's compiler leaves
    so many of those that the collection that frees them is the likeliest place for one.
    """
    with interrupts_held():
        gc.collect()


def close_at_exit(owner: object, close: Callable[[], object]) -> None:
    """Call `close` when `owner` goes, or when the interpreter ends, before multiprocessing waits for its children.

    DALI leaves that to `weakref.finalize`, which runs too late where something used it before multiprocessing was
    imported: the interpreter then waits for workers that nobody told to end.
    """
    Finalize(owner, close, exitpriority=1)
