"""Memory that a process frees stays with it: the system's fresh pages cost more than filling them."""

from __future__ import annotations

import ctypes


def keep_memory() -> None:
    """Has glibc keep what this process frees, and use it again, instead of returning it to the system.

    Batches, activations and decoded pictures are large and freed soon; glibc gives such blocks back at once, and each
    page of the next one is cleared and mapped anew: 1 to 10 us, 5 to 25 % of a training step on a CPU.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(-4, 0)  # M_MMAP_MAX: no block of its own for each large array
        libc.mallopt(-1, -1)  # M_TRIM_THRESHOLD: never
