"""What works on this machine: `coaug doctor`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

from rich.console import Console
from rich.markup import escape

from .check import Check, Examination, examine
from .gpu import GPU
from .launchers import LAUNCHERS
from .machine import MACHINE
from .media import DALI, FFMPEG

__all__ = ["GROUPS", "Check", "Examination", "doctor", "examine", "examine_all"]

GROUPS: Mapping[str, Mapping[str, Examination]] = {
    "machine": MACHINE,
    "decoders (FFmpeg through PyAV, on the host)": FFMPEG,
    "graph on the CPU (DALI)": DALI,
    "GPU": GPU,
    "launchers": LAUNCHERS,
}


def doctor(console: Console | None = None) -> int:
    """Prints a line for everything that is tried, with a remedy where it does not work.

    Returns:
        1 if something is missing without which nothing runs, else 0.
    """
    console, failed = console or Console(), []
    for group, checks in examine_all(GROUPS):
        console.print(f"\n[bold]{escape(group)}[/bold]")
        for check in checks:
            console.print(_line(check), highlight=False, soft_wrap=True)
            failed += [check.name] if check.required and not check.ok else []
    console.print(f"\n[red]missing, and needed: {', '.join(failed)}[/red]" if failed else "\nready")
    return 1 if failed else 0


def examine_all(groups: Mapping[str, Mapping[str, Examination]]) -> Iterator[tuple[str, Iterator[Check]]]:
    """Every group with its checks, in order, each as soon as it is there; a few run at a time."""
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        pending = {name: pool.map(examine, checks.items()) for name, checks in groups.items()}
        yield from pending.items()


def _line(check: Check) -> str:
    mark = (
        "[green]works[/green]"
        if check.ok
        else "[red]fails[/red]"
        if check.required
        else "[yellow]no   [/yellow]"
    )
    remedy = "" if check.ok else f"\n{'':28}[dim]{escape(check.remedy)}[/dim]"
    return f"  {mark}  {escape(check.name):<18}  {escape(check.detail)}{remedy}"
