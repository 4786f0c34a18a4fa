"""What a run of `coaug index` found, shown and stored: progress, summary, rejects by reason."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from . import table
from .probe import Reject

T = TypeVar("T")


@dataclass(frozen=True)
class IndexReport:
    """What a run of `index` found: `files` seen, of which `reused` were known from an earlier run."""

    path: Path
    recordings: int
    hours: float
    labels: int
    files: int
    reused: int
    rejects: tuple[Reject, ...]

    @property
    def reasons(self) -> dict[str, int]:
        """Rejects by reason, most frequent first."""
        return dict(Counter(reject.reason for reject in self.rejects).most_common())

    def show(self, console: Console | None = None, examples: int = 3) -> None:
        """Prints a summary and the rejects by reason, with a few paths each."""
        console = console or Console()
        show_rejects(self.rejects, console, examples)
        console.print(
            f"{self.recordings} recordings ({self.hours:.1f} h, {self.labels} labels) of {self.files} files"
            f" ({self.reused} known already), {len(self.rejects)} rejects -> {self.path}",
            soft_wrap=True,
            markup=False,
            highlight=False,
        )


def bar(
    results: Iterable[tuple[T, Any]], total: int, show: bool, what: str = "probing"
) -> Iterator[tuple[T, Any]]:
    """Passes `results` on while a progress bar on stderr shows how far they are; silent off a terminal."""
    console = Console(stderr=True)
    columns = (
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[bad]} bad"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not (show and console.is_terminal)) as progress:
        task = progress.add_task("", total=total, bad=0)
        bad = 0
        for path, result in results:
            bad += not isinstance(result, dict) or "reason" in result
            progress.update(task, advance=1, bad=bad)
            yield path, result


def show_rejects(rejects: Sequence[Reject], console: Console | None = None, examples: int = 3) -> None:
    """Prints rejects by reason, with a few paths each, if there are any."""
    if rejects:
        (console or Console()).print(_table(rejects, examples))


def write_rejects(rejects: Sequence[Reject], path: Path) -> None:
    """The table of rejects: path, reason, detail; written even when empty, so that no old one stays."""
    columns = {name: [getattr(reject, name) for reject in rejects] for name in ("path", "reason", "detail")}
    schema = pa.schema([(name, pa.large_string()) for name in columns])
    table.replace(path, lambda name: pq.write_table(pa.table(columns, schema=schema), name))


def _table(rejects: Sequence[Reject], examples: int) -> Table:
    groups: dict[str, list[str]] = defaultdict(list)
    for reject in rejects:
        groups[reject.reason].append(reject.path)
    view = Table("reason", "files", "such as", title="rejected", title_justify="left")
    for reason, paths in sorted(groups.items(), key=lambda item: -len(item[1])):
        view.add_row(
            reason, str(len(paths)), "\n".join(path.replace("[", r"\[") for path in paths[:examples])
        )
    return view
