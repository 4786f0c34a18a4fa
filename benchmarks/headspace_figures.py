"""What timed segments of training and loading say: rates, shares, bounds, and their table (`headspace.py`)."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Column, Table

DRAWS = 10_000  # of the bootstrap
WIDTH = 120
Row = dict[str, Any]


@dataclass(frozen=True)
class Segment:
    """Steps that were timed: wall seconds of each; seconds of waiting, CPU seconds and MiB of all of them; cores that
    other processes kept busy meanwhile, or that the host took away."""

    seconds: list[float]
    waited: float
    cpu: float
    rss: float
    others: float = 0.0


def figures(segments: Sequence[Segment], clips: int) -> Row:
    """Rates and times of one way; `clips` are those of a step."""
    seconds = [second for segment in segments for second in segment.seconds]
    return {
        "clips_per_s": clips / step_seconds(segments),
        "clips_per_cpu_s": clips / step_cpu(segments),
        "p50_ms": 1e3 * float(np.percentile(seconds, 50)),
        "p99_ms": 1e3 * float(np.percentile(seconds, 99)),
        "rss_mb": max(segment.rss for segment in segments),
        "data_wait": sum(segment.waited for segment in segments) / sum(seconds),
    }


def step_seconds(segments: Sequence[Segment]) -> float:
    """Wall seconds a step: the median pass's mean."""
    return statistics.median(statistics.fmean(segment.seconds) for segment in segments)


def step_cpu(segments: Sequence[Segment]) -> float:
    """CPU seconds a step: the median pass's mean."""
    return statistics.median(segment.cpu / len(segment.seconds) for segment in segments)


def share(segments: Sequence[Segment], best: Sequence[Segment]) -> Row:
    """The rate over that of `best`, pass by pass: their median, and a 95 % interval of it by bootstrap over passes."""
    pairs = zip(segments, best, strict=True)
    ratios = np.array([statistics.fmean(b.seconds) / statistics.fmean(a.seconds) for a, b in pairs])
    drawn = np.random.default_rng(0).choice(ratios, (DRAWS, len(ratios)))
    low, high = np.percentile(np.median(drawn, axis=1), [2.5, 97.5])
    return {"share": float(np.median(ratios)), "low": float(low), "high": float(high)}


def bound(seconds: float, training: float, loading: float, cores: int) -> float:
    """The largest share that any scheduling could reach.

    Args:
        seconds: wall seconds of a step of training alone.
        training, loading: CPU seconds that a step's training and a step's batch take. Training on every core has
            `training` = `seconds` · `cores`, and the bound is training / (training + loading).
        cores: that both run on.
    """
    return seconds / max(seconds, (training + loading) / cores)


def report(rows: Sequence[Row], title: str) -> None:
    """A table, and the CPU seconds that the bounds come from."""
    heads = ("clips/s", "per CPU s", "p50 ms", "p99 ms", "wait", "MiB", "share (95 %)", "bound")
    table = Table("", *(Column(head, no_wrap=True) for head in heads), title=title)
    for row in rows:
        table.add_row(row["name"], *cells(row))
    console = Console()
    console = console if console.is_terminal else Console(width=WIDTH)
    console.print(table)
    for row in rows:
        if "bound" in row:
            work = f"{row['load_cpu_ms']:.0f} CPU ms of loading a step, {row['train_cpu_ms']:.0f} of training"
            console.print(f"{row['name']}: {work}", highlight=False)


def cells(row: Row) -> Iterator[str]:
    """A row as text."""
    yield from (f"{row[name]:.1f}" for name in ("clips_per_s", "clips_per_cpu_s"))
    yield from (f"{row[name]:.0f}" for name in ("p50_ms", "p99_ms"))
    yield f"{row['data_wait']:.1%}"
    yield f"{row['rss_mb']:.0f}"
    yield f"{row['share']:.3f} ({row['low']:.3f}-{row['high']:.3f})"
    yield f"{row['bound']:.3f}" if "bound" in row else ""
