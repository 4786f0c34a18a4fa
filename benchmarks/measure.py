"""Rows side by side: interleaved passes, medians, and intervals that two runs should agree within."""

from __future__ import annotations

import math
import platform
import re
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from operator import attrgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import av
import numpy as np
import torch
from rows import settings
from rows.feed import FEEDS
from rows.ffmpeg_names import ffmpeg_folder
from rows.worker import Job, Passed, Unavailable, running
from scipy.stats import bootstrap

LONG = 1.0  # seconds of a pass
MOST = 64  # batches of one
Row = dict[str, Any]
Say = Callable[[str], None]


class Running:
    """A row's process, with the setting that it runs with."""

    def __init__(self, job: Job, pipe: Any) -> None:
        self.job, self.pipe = job, pipe
        self.setting: Row = {}
        self.steps = 1

    def choose(self, steps: int, say: Say) -> None:
        """Take the fastest of the row's settings: the least of three passes each, in turns."""
        tried = settings(self.job.row, FEEDS if self.job.workers else ())
        cost = attrgetter("wall" if self.job.workers else "cpu")
        costs = [min(cost(self.passed(steps, each)) for _ in range(3)) for each in tried if len(tried) > 1]
        if costs:
            self.setting = tried[int(np.argmin(costs))]
            said = ", ".join(f"{key} {value}" for key, value in self.setting.items())
            most = max(costs) / min(costs)
            say(f"{self.job.row}: {said}; the slowest of {len(tried)} settings takes {most:.2f} x as long")

    def warm(self, steps: int) -> None:
        """A pass that is not counted; those that are take `LONG`, for what is short is at the mercy of chance."""
        wall = self.passed(steps).wall / steps
        self.steps = min(max(steps, math.ceil(LONG / wall)), MOST)

    def passed(self, steps: int, setting: Row | None = None) -> Passed:
        """Raises Unavailable where the row fails."""
        try:
            self.pipe.send((self.setting if setting is None else setting, steps))
            found: Passed = self.pipe.recv()
        except (EOFError, OSError):
            raise Unavailable("its process ended in the middle of a pass") from None
        return found


def measured(jobs: Mapping[str, Job], repeats: int, steps: int, say: Say) -> dict[str, list[Passed]]:
    """Passes of every job that can run here, one of each after the other, after one that warms up."""
    passes: dict[str, list[Passed]] = {}
    with TemporaryDirectory() as folder, ExitStack() as stack:
        libraries, rows = ffmpeg_folder(Path(folder)), dict[str, Running]()
        for name, job in jobs.items():
            with left_out(name, say):
                rows[name] = Running(job, stack.enter_context(running(job, libraries)))
                rows[name].choose(steps, say)
                rows[name].warm(steps)
                passes[name] = []
        for _ in range(repeats):
            for name in list(passes):
                found = passes.pop(name)
                with left_out(name, say):
                    passes[name] = [*found, rows[name].passed(rows[name].steps)]
    return passes


@contextmanager
def left_out(name: str, say: Say) -> Iterator[None]:
    """Says why a row is not there, and goes on without it."""
    try:
        yield
    except Unavailable as problem:
        say(f"{name}: left out: {problem}")


def row_of(name: str, passes: Sequence[Passed]) -> Row:
    """One line of the report."""
    waits = 1e3 * np.concatenate([p.waits for p in passes])
    decoded = [p.decoded for p in passes if p.decoded is not None]
    return {
        "name": name,
        "clips_per_s": statistics.median(p.clips / p.wall for p in passes),
        "clips_per_cpu_s": statistics.median(rates(passes)),
        "decoded_per_shown": statistics.fmean(decoded) if decoded else None,
        "p50_ms": float(np.percentile(waits, 50)),
        "p99_ms": float(np.percentile(waits, 99)),
        "rss_mb": max(p.rss_mb for p in passes),
    }


def rates(passes: Iterable[Passed], wall: bool = False) -> list[float]:
    """Clips per CPU second, or per second, pass by pass."""
    return [p.clips / (p.wall if wall else p.cpu) for p in passes]


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """Median of the ratios of passes that ran one after the other, and its 95 % interval.

    What disturbs the machine disturbs both of a pair. The interval is the percentile bootstrap's, and at least the
    median's standard error for normal logarithms: few passes have too few medians to draw.
    """
    logs = np.log(np.array(ours) / np.array(theirs))
    middle = float(np.median(logs))
    if len(logs) < 2 or np.ptp(logs) == 0:
        return (float(np.exp(middle)),) * 3
    found = bootstrap(
        (logs,), np.median, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    margin = 1.96 * (np.pi / 2 / len(logs)) ** 0.5 * float(np.std(logs, ddof=1))
    low, high = min(found.low, middle - margin), max(found.high, middle + margin)
    return float(np.exp(middle)), float(np.exp(low)), float(np.exp(high))


def machine() -> Row:
    """What all of this ran on."""
    info = Path("/proc/cpuinfo")
    name = re.search(r"model name\s*: (.+)", info.read_text()) if info.exists() else None
    return {
        "machine": platform.platform(),
        "processor": name[1] if name else platform.processor(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "libavcodec": ".".join(map(str, av.library_versions["libavcodec"])),
    }
