"""A benchmark's rows as a table, as JSON, as CSV and as a chart."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

Row = dict[str, Any]


def show(rows: Sequence[Row], title: str, console: Console) -> None:
    """What each row gives for a CPU second, against others; then how it goes about it."""
    against = [key for key in rows[0] if key.startswith("x ")]
    table = Table("", "clips / CPU s", *against, title=title)
    for row in rows:
        compared = ["{:.2f} ({:.2f}-{:.2f})".format(*row[key]) for key in against]
        table.add_row(row["name"], f"{row['clips_per_cpu_s']:.1f}", *compared)
    console.print(table)
    table = Table("", "clips / s", "decoded / shown", "batch p50 ms", "p99 ms", "peak MB")
    for row in rows:
        decoded = row["decoded_per_shown"]
        numbers = (f"{row[key]:.0f}" for key in ("p50_ms", "p99_ms", "rss_mb"))
        table.add_row(row["name"], f"{row['clips_per_s']:.1f}", f"{decoded:.2f}" if decoded else "", *numbers)
    console.print(table)


def write(rows: Sequence[Row], json_path: Path | None, csv_path: Path | None) -> None:
    """The files that were asked for."""
    if json_path:
        json_path.write_text(json.dumps(list(rows), indent=1))
    if csv_path:
        with csv_path.open("w", newline="") as out:
            writer = csv.DictWriter(out, list(dict.fromkeys(key for row in rows for key in row)))
            writer.writeheader()
            writer.writerows(rows)


def chart(rows: Sequence[Row], path: Path, label: str = "clips per CPU second, one core") -> None:
    """Bars, a panel for each kind of `views`; the fastest above."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    panels = list(dict.fromkeys(row["views"] for row in rows))
    figure, axes = plt.subplots(
        1, len(panels), figsize=(6.5 * len(panels), 0.6 + 0.32 * len(rows) / len(panels)), squeeze=False
    )
    for axis, panel in zip(axes[0], panels, strict=True):
        mine = sorted((row for row in rows if row["views"] == panel), key=lambda row: row["clips_per_cpu_s"])
        colours = ["#d62728" if row["name"].startswith("coaug") else "#7f7f7f" for row in mine]
        bars = axis.barh(
            [row["name"] for row in mine], [row["clips_per_cpu_s"] for row in mine], color=colours
        )
        axis.bar_label(bars, fmt="%.0f", padding=3)
        axis.set(title=f"{panel} a sample", xlabel=label, xscale="log")
        axis.margins(x=0.15)
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)
