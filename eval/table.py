"""Figures as tables: on the terminal with chance beside them, and in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from .grids import grids
from .metrics import KS

Figures = Mapping[str, float]
GROUPS = {
    "retrieval.instance": "same recording",
    "retrieval.class": "same class",
    "retrieval_pool5.instance": "same recording, pool5",
    "retrieval_pool5.class": "same class, pool5",
    "within.z": "same class, alike",
    "within.pool": "same class, alike, pool5",
    "within_test.z": "… in test alone",
    "within_test.pool": "… in test alone, pool5",
    "control.static.instance": "same recording, stills",
    "control.static.class": "same class, stills",
    "control.swap.instance": "sound swapped in class",
    "control.swap.expected": "class alone",
}
WAYS = {"a2v": "a → v", "v2a": "v → a", "v2v": "v → v", "a2a": "a → a", "chance": "chance"}
SUMMARY = {
    "control.static.ratio": "stills / model, same recording, R@1: below 0.5, time is needed",
    "control.swap.ratio": "swapped / class alone, R@1: about 1, nothing but the class is left",
    "control.swap.lift": "model / class alone, R@1: above 1, it knows more than the class",
}
Row = tuple[str, str, list[str]]


def show(figures: Figures, console: Console | None = None) -> None:
    """Prints the retrieval table, and those of controls, probes and memory where there are any; nothing of nothing."""
    console = console or Console()
    heads = ("% (× chance)", "", *(f"R@{k}" for k in KS))
    found = [(group, way, *cells) for group, way, cells in rows(figures)]
    if found:
        console.print(_printed(heads, found, text=2))
    for key, text in SUMMARY.items():
        if key in figures:
            console.print(f"{figures[key]:6.2f}  {text}", highlight=False)
    for grid in grids(figures):
        console.print()
        console.print(_printed([grid.corner, *grid.heads], grid.rows))


def _printed(heads: Sequence[str], body: Iterable[Sequence[str]], text: int = 1) -> Table:
    """A plain table, the first `text` columns of which are text."""
    table = Table(*heads, box=box.SIMPLE, padding=0 if text > 1 else (0, 1), show_edge=False)
    table.columns[0].no_wrap = True
    for column in table.columns[text:]:
        column.justify = "right"
    for line in body:
        table.add_row(*line)
    return table


def rows(figures: Figures) -> Iterator[Row]:
    """(group, direction, one cell a k) of everything that `figures` holds."""
    for group, title in GROUPS.items():
        for way, label in WAYS.items():
            if f"{group}.{way}.r{KS[0]}" in figures:
                yield title, label, [_cell(figures, group, way, k) for k in KS]
                title = ""


def _cell(figures: Figures, group: str, way: str, k: int) -> str:
    value = figures.get(f"{group}.{way}.r{k}")
    chance = figures.get(f"{group}.chance.r{k}") if way != "chance" else None
    if value is None:
        return ""
    return (f"{100 * value:.1f}" if value < 0.9995 else "100") + (
        f" ({_times(value / chance)}×)" if chance else ""
    )


def _times(ratio: float) -> str:
    return f"{ratio:.0f}" if ratio >= 9.95 else f"{ratio:.1f}"


def markdown(header: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    """A Markdown table; the first column is text, the others are numbers."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *body]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines) + "\n"
