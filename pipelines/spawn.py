"""Worker processes that start without running the caller's script again, each with one thread."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


@contextmanager
def without_main() -> Iterator[None]:
    """Processes spawned in here do not import `__main__`.

    Python's spawn does, for functions defined there. Ours are not, and a training script would load torch into every
    worker, or, without an `if __name__ == "__main__"`, start itself over.
    """
    main = sys.modules["__main__"]
    names = [name for name in ("__spec__", "__file__") if name in main.__dict__]
    hidden: dict[str, Any] = {name: main.__dict__.pop(name) for name in names}
    main.__spec__ = None
    try:
        yield
    finally:
        main.__dict__.update(hidden)


@contextmanager
def single_threaded() -> Iterator[None]:
    """Processes started in here do algebra on one thread: parallelism is across samples, and idle threads spin."""
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
