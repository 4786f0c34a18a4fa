"""Figures as tables: on the terminal with chance beside them, and in Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rich.console import Console
from rich.table import Table

from .metrics import KS

Figures = Mapping[str, float]
GROUPS = {
    "retrieval.instance": "same recording",
    "retrieval.class": "same class",
    "retrieval_pool5.instance": "same recording, pool5",
    "retrieval_pool5.class": "same class, pool5",
    "control.static.instance": "control: same recording, stills only",
    "control.static.class": "control: same class, stills only",
    "control.swap.instance": "control: sound of another of its class",
    "control.swap.expected": "  expected of the class alone",
}
WAYS = {"a2v": "audio → video", "v2a": "video → audio", "chance": "chance"}
SUMMARY = {
    "control.static.ratio": "stills only / model, R@1 of the same recording (below 0.5: time is needed)",
    "control.swap.ratio": "swapped / class level, R@1 (about 1 or less: only the class is left)",
    "control.swap.lift": "model / class level, R@1 (above 1: knows the recording, not only its class)",
}
Row = tuple[str, str, list[str]]


def show(figures: Figures, console: Console | None = None) -> None:
    """Prints the retrieval table, and the controls' where there are any. Prints nothing without figures."""
    console = console or Console()
    table = Table("retrieval", "", *(f"R@{k}" for k in KS), title="One entry a recording; (times chance)")
    for column in table.columns[2:]:
        column.justify = "right"
    for group, way, cells in rows(figures):
        table.add_row(group, way, *cells, end_section=way == "chance")
    if table.row_count:
        console.print(table)
    for key, text in SUMMARY.items():
        if key in figures:
            console.print(f"{figures[key]:6.2f}  {text}", highlight=False)


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
    return percent(value) + (f" ({value / chance:.1f}×)" if chance else "")


def percent(value: float) -> str:
    """0.1234 -> 12.3 %."""
    return f"{100 * value:.1f} %"


def markdown(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column is text, the others are numbers."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *body]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines) + "\n"
