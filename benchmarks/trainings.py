"""Trainings that a table is made of: run once, taken up where they were ended, told as one types them."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

Figures = Mapping[str, float]


def figures_of(command: Sequence[str], out: Path) -> Figures | None:
    """The figures of one `coaug train` into `out`, which is run unless the same command left them; None if it fails.

    A training that the same command began is resumed; anything else in `out` makes room.
    """
    note, metrics = out / "command.txt", out / "metrics.json"
    begun = note.is_file() and note.read_text() == line(command)
    if not (begun and metrics.is_file()):
        print(f"\n$ {line(command)}", flush=True)
        out.mkdir(parents=True, exist_ok=True)
        note.write_text(line(command))
        resume = ["--resume"] if begun and (out / "checkpoints").is_dir() else []
        if subprocess.call([sys.executable, "-m", "coaug.cli", *command[1:], *resume]):
            return None
    figures: Figures = json.loads(metrics.read_text())
    return figures


def line(command: Sequence[str]) -> str:
    """A command as one types it."""
    return " ".join(f'"{word}"' if set(word) & set(" []{}") else word for word in command)


def over(seeds: Sequence[int]) -> str:
    """What the figures are of."""
    if len(seeds) == 1:
        return f"One run, seed {seeds[0]}"
    return f"Mean ± sample standard deviation over seeds {', '.join(map(str, seeds))}"


def spread(values: Sequence[float], digits: int) -> str:
    """Mean ± sample standard deviation; the mean alone of a single value."""
    mean = f"{statistics.fmean(values):.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean
