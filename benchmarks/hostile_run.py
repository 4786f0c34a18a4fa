"""Epochs of a loader while files go away: what each sample was, what should have failed, what the processes hold."""

from __future__ import annotations

import hashlib
import logging
import multiprocessing
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from coaug.pipelines.batch import Batch
from coaug.pipelines.loader import AHEAD, AVLoader
from coaug.pipelines.plan import epoch_rows

MEASURED = ("video", "audio", "video_pts", "audio_pts", "speed", "direction", "label")
Sample = tuple[int, int]  # epoch, sample id


@dataclass(frozen=True)
class Usage:
    """What a process, or several together, hold: resident memory and, of it, their own (MB); open descriptors."""

    resident: float
    own: float
    descriptors: int

    @classmethod
    def of(cls, pids: Sequence[int]) -> Usage:
        """Read from /proc."""
        figures: dict[str, float] = defaultdict(float)
        for pid in pids:
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
                name, kilobytes = line.split()[:2]
                figures[name] += int(kilobytes) / 1024
        descriptors = sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids)
        return cls(figures["Rss:"], figures["Anonymous:"], descriptors)


@dataclass
class Run:
    """What the epochs gave: a digest of each valid sample, the others, and what was held at the end of each epoch."""

    digests: dict[Sample, str] = field(default_factory=dict)
    invalid: set[Sample] = field(default_factory=set)
    trainer: list[Usage] = field(default_factory=list)
    workers: list[Usage] = field(default_factory=list)
    stats: dict[str, float] = field(default_factory=dict)
    warnings: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Departures:
    """Which recordings go away after which global step, and what follows from that.

    Attributes:
        after: step -> sample ids.  lost: samples that must fail.  failures: how many rows of batches that are.
        warnings: how many of these are not banned yet, and named in the log.
    """

    after: Mapping[int, Sequence[int]]
    lost: frozenset[Sample]
    failures: int
    warnings: int

    @classmethod
    def of(cls, loader: AVLoader, ids: Sequence[int], epochs: int) -> Departures:
        """Each goes away right after it was handed out, the first time that its next turn is not yet in preparation."""
        (turns, filling), after, lost = _turns(loader, epochs), defaultdict(list), set()
        failures = warnings = 0
        for sample in ids:
            steps = turns[sample]
            for here, (step, following) in enumerate(pairwise(steps)):
                if following - step > AHEAD:
                    after[step].append(sample)
                    failed = steps[here + 1 :]
                    lost |= {
                        (step // loader.steps, sample) for step in failed if (step, sample) not in filling
                    }
                    failures += len(failed)
                    warnings += sum(step < failed[0] + AHEAD for step in failed)
                    break
        return cls(after, frozenset(lost), failures, warnings)


def _turns(loader: AVLoader, epochs: int) -> tuple[dict[int, list[int]], set[tuple[int, int]]]:
    """Global steps at which each recording stands in a batch, in order; (step, id) where it only fills up the last."""
    turns, filling = defaultdict(list), set()
    for epoch in range(epochs):
        rows = epoch_rows(loader.catalog, loader.seed, epoch, np.arange(loader.steps * loader.batch_size))
        for position, sample in enumerate(loader.catalog.ids[rows].tolist()):
            step = epoch * loader.steps + position // loader.batch_size
            turns[sample].append(step)
            if position >= len(loader.catalog):
                filling.add((step, sample))
    return turns, filling


def run(loader: AVLoader, epochs: int, after: Callable[[int], None] = lambda step: None) -> Run:
    """Iterates the loader from its beginning; `after` is called with each global step that was handed out."""
    result, began = Run(), time.monotonic()
    with _warnings() as lines:
        for epoch in range(epochs):
            for batch in loader:
                _take(result, batch, epoch, len(loader.catalog) - batch.step * loader.batch_size)
                after(epoch * loader.steps + batch.step)
            result.trainer.append(Usage.of([os.getpid()]))
            result.workers.append(Usage.of([child.pid or 0 for child in multiprocessing.active_children()]))
        result.warnings = sum(line.startswith("left out: ") for line in lines)
    result.stats, result.seconds = loader.stats(), time.monotonic() - began
    return result


def _take(result: Run, batch: Batch, epoch: int, rows: int) -> None:
    """Notes the first `rows` rows of a batch; the others only fill it up."""
    samples = list(zip(batch.sample_id.tolist(), batch.valid.tolist(), strict=True))[:rows]
    for row, (sample, valid) in enumerate(samples):
        if valid:
            result.digests[epoch, sample] = digest(batch, row)
        else:
            result.invalid.add((epoch, sample))


def digest(batch: Batch, row: int) -> str:
    """A hash of every bit of one sample."""
    bits = hashlib.blake2b(digest_size=16)
    for name in MEASURED:
        tensor = getattr(batch, name)
        assert isinstance(tensor, torch.Tensor)
        bits.update(tensor[row].contiguous().numpy().tobytes())
    return bits.hexdigest()


@contextmanager
def _warnings() -> Iterator[list[str]]:
    """What the loader warns of, instead of on the terminal."""
    lines: list[str] = []
    handler, log = logging.Handler(logging.WARNING), logging.getLogger("coaug.loader")
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    log.addHandler(handler)
    log.propagate, before = False, log.propagate
    try:
        yield lines
    finally:
        log.removeHandler(handler)
        log.propagate = before
