"""A source process: what it does before it reads anything, and when it ends."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

from .memory import keep_memory
from .scheduling import BEHIND


def serve(parent: Any) -> None:
    """What a worker process of `parent` does first."""
    os.nice(BEHIND)
    keep_memory()  # pictures come and go
    # Ctrl-C reaches workers too, but whether to go on is the trainer's choice
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # a killed trainer must leave no worker behind (PR_SET_PDEATHSIG goes by the *thread* that started it)
    threading.Thread(target=_follow, args=(parent,), daemon=True).start()


def _follow(parent: Any) -> None:
    parent.join()
    os._exit(1)
