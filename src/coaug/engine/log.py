"""What a run says: `log.jsonl` and TensorBoard always, a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import json
import sys
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from .checkpoint import write_whole

Row = dict[str, Any]


def say(message: str) -> None:
    """One line for the person at the terminal, on stderr."""
    print(message, file=sys.stderr, flush=True)


class RunLog:
    """The log of one run, kept by rank 0 only (elsewhere every call is a no-op).

    Args:
        folder: the run's folder.
        step: completed steps; later rows of an earlier, interrupted run are cut from the log.
        total: steps of the whole run.
        every: steps between plain lines.
        enabled: whether this process is the one that writes.
    """

    def __init__(self, folder: Path, step: int, total: int, every: int, enabled: bool = True) -> None:
        self._enabled, self._total, self._every = enabled, total, every
        self._recent: deque[float] = deque(maxlen=50)  # seconds a step, for the time left
        if not enabled:
            return
        from torch.utils.tensorboard import SummaryWriter  # slow to import, and rank 0's business

        truncate(folder / "log.jsonl", step)
        self._file = (folder / "log.jsonl").open("a")
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)
        self._console = Console(stderr=True)
        self._progress, self._task = _progress(self._console, step, total)

    def __enter__(self) -> RunLog:
        if self._enabled and self._console.is_terminal:
            self._progress.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._enabled:
            self._progress.stop()
            self._file.close()
            self._board.close()

    def step(self, row: Row, seconds: float, more: Mapping[str, float] | None = None) -> None:
        """Records one completed step (`row["step"]` from 1), which took `seconds`; `more` goes to TensorBoard only."""
        if not self._enabled:
            return
        self._recent.append(seconds)
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        for name, value in {**row, **(more or {})}.items():
            self._board.add_scalar(f"train/{name}", value, row["step"])
        text, left = describe(row), duration(self._left(row["step"]))
        self._progress.update(self._task, completed=row["step"], text=text)
        if not self._console.is_terminal and (row["step"] % self._every == 0 or row["step"] == self._total):
            self.say(f"step {row['step']}/{self._total}  epoch {row['epoch']:.2f}  {text}  {left} left")

    def say(self, message: str) -> None:
        """One line, above the live one."""
        if self._enabled:
            self._console.print(message, markup=False, highlight=False, soft_wrap=True)

    def _left(self, step: int) -> float:
        return (self._total - step) * sum(self._recent) / len(self._recent)


def _progress(console: Console, step: int, total: int) -> tuple[Progress, TaskID]:
    text = TextColumn("{task.fields[text]}")
    columns = (MofNCompleteColumn(), text, TimeRemainingColumn(compact=True), BarColumn(None))
    progress = Progress(*columns, console=console)
    return progress, progress.add_task("train", total=total, completed=step, text="")


def describe(row: Row) -> str:
    """The figures people watch, as one short text."""
    figures = f"loss {row['loss']:.4f}  lr {row['lr']:.4g}  {row['clips_per_s']:.1f} clips/s"
    return f"{figures}  data wait {row['data_wait']:.0%}"


def duration(seconds: float) -> str:
    """Seconds as people say them: `45 s`, `12 min`, `3 h 05 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def truncate(path: Path, step: int) -> None:
    """Cuts rows after `step`, and a row that was never finished, so that no step stands twice."""
    rows = [row for row in rows_of(path) if row["step"] <= step]
    write_whole(path, lambda part: part.write_text("".join(json.dumps(row) + "\n" for row in rows)))


def rows_of(path: Path) -> list[Row]:
    """The complete rows of a log; none if there is no log."""
    rows = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break  # the process was killed while writing it
    return rows
