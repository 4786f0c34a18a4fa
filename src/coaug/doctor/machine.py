"""The machine itself: interpreter, cores, memory, shared memory, open files."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import sys
from pathlib import Path

from .check import Examination, Missing

GIB = 2**30


def python() -> str:
    """The interpreter's version, and whether the heavy packages import together."""
    if not (3, 10) <= sys.version_info[:2] < (3, 14):
        raise Missing(f"Python {platform.python_version()}")
    import av
    import numba
    import nvidia.dali
    import torch

    packages = {"torch": torch, "DALI": nvidia.dali, "Numba": numba, "PyAV": av}
    versions = (f"{name} {package.__version__}" for name, package in packages.items())
    return f"Python {platform.python_version()}, {', '.join(versions)}"


def cores() -> str:
    """Cores that this process may use, a container's quota counted."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, period = (_cgroup("cpu.max") or "max 1").split()[:2]
    share = allowed if quota == "max" else min(allowed, int(quota) / int(period))
    if share < 2:
        raise Missing(f"{share:g} core")
    return f"{share:g} cores"


def memory() -> str:
    """Memory that is free for us, a container's limit counted."""
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    limit = _cgroup("memory.max") or "max"
    total = pages * size if limit == "max" else min(pages * size, int(limit))
    if total < 6 * GIB:
        raise Missing(f"{total / GIB:.1f} GiB")
    return f"{total / GIB:.0f} GiB"


def shared_memory() -> str:
    """Where workers hand their clips over."""
    free = shutil.disk_usage("/dev/shm").free
    if free < GIB:
        raise Missing(f"{free / 2**20:.0f} MiB free in /dev/shm")
    return f"{free / GIB:.0f} GiB free in /dev/shm"


def open_files() -> str:
    """The limit on open descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 1024:
        raise Missing(f"{soft} at a time", f"ulimit -n {hard if hard != resource.RLIM_INFINITY else 65536}")
    return "unlimited" if soft == resource.RLIM_INFINITY else f"{soft} at a time"


def _cgroup(name: str) -> str | None:
    """A limit of the control group (version 2) that we run in."""
    path = Path("/sys/fs/cgroup") / name
    return path.read_text().strip() if path.is_file() else None


MACHINE = {
    "packages": Examination(
        python, "Python 3.10 to 3.13; then: pip install --force-reinstall coaug", required=True
    ),
    "cores": Examination(cores, "give the container or job two cores or more: decoding wants them"),
    "memory": Examination(memory, "give the container or job 8 GiB or more, or lower train.batch"),
    "shared memory": Examination(shared_memory, "containers: docker run --shm-size=8g (or --ipc=host)"),
    "open files": Examination(open_files, "ulimit -n 65536"),
}
