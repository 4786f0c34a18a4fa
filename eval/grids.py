"""Figures of probes and of a memory as small tables: accuracies by modality, precision by K, similarities."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from .precision import EXPANSIONS

Figures = Mapping[str, float]
SIDES = ("video", "audio", "both")


@dataclass(frozen=True)
class Grid:
    """A table: what its corner says, the heads of its columns, and rows that begin with their name."""

    corner: str
    heads: list[str]
    rows: list[list[str]]


def grids(figures: Figures) -> Iterator[Grid]:
    """The tables of what `figures` holds; none that would be empty."""
    for grid in (_accuracies(figures), _precision(figures), _calibration(figures)):
        if grid.rows:
            yield grid


def _accuracies(figures: Figures) -> Grid:
    """Linear classifiers: of encoders' outputs, of blocks, of untrained encoders, of memory rows."""
    found = (re.fullmatch(r"linear\.([\w.]+)\.\w+\.top1", key) for key in figures)
    blocks = sorted(dict.fromkeys(m[1] for m in found if m), key=lambda name: name.startswith("random"))
    lines = {"linear": "encoders", **{f"linear.{name}": _title(name) for name in blocks}}
    lines["memory.linear"] = "memory rows"
    rows = [
        [title, *cells]
        for prefix, title in lines.items()
        if any(cells := [_percent(figures.get(f"{prefix}.{side}.top1")) for side in SIDES])
    ]
    if "linear.chance.top1" in figures:
        rows.append(["most frequent class", *[_percent(figures["linear.chance.top1"])] * len(SIDES)])
    return Grid("linear probe, top-1 %", list(SIDES), rows)


def _title(name: str) -> str:
    whose, _, stage = name.rpartition(".")
    stage = {"best": "best block", "random": "untrained"}.get(stage, stage)
    return f"untrained, {stage}" if whose else stage


def _precision(figures: Figures) -> Grid:
    """Of positive sets, by expansion and K."""
    found = (re.fullmatch(r"memory\.precision\.\w+\.p(\d+)", key) for key in figures)
    ks = sorted({int(m[1]) for m in found if m})
    rows = [
        [name, *(_percent(figures.get(f"memory.precision.{name}.p{k}")) for k in ks)]
        for name in EXPANSIONS
        if f"memory.precision.{name}.p{ks[0] if ks else 0}" in figures
    ]
    if rows:
        rows.append(["chance", *[_percent(figures.get("memory.precision.chance"))] * len(ks)])
    return Grid("positives right, %", [f"K={k}" for k in ks], rows)


def _calibration(figures: Figures) -> Grid:
    """Cosines of random pairs, as Table 2 has them, with their standard deviation."""
    pairs = {"video": ("video", "cross"), "audio": ("cross", "audio")}
    if "memory.calibration.video.mean" not in figures:
        return Grid("", [], [])
    rows = [[side, *(_spread(figures, name) for name in names)] for side, names in pairs.items()]
    return Grid("cosine of random memories", ["video", "audio"], rows)


def _spread(figures: Figures, name: str) -> str:
    mean, std = (figures[f"memory.calibration.{name}.{what}"] for what in ("mean", "std"))
    return f"{mean:.3f} ± {std:.2f}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"
