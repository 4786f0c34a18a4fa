"""Curves and histograms of a memory: precision of positive sets by K, and similarities of random pairs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from .bank import Bank
from .page import GREY, INK, PALE, VIEWS

PAIRS = 200_000
BINS = 80
SIZE = (8.0, 4.6)


def precision_figure(curves: Mapping[str, Mapping[int, float]], chance: float) -> Figure:
    """Precision over K, a curve for each expansion (AVID, Fig. 6b)."""
    figure, axes = _axes()
    for shade, (name, curve) in zip(VIEWS, curves.items(), strict=False):
        axes.plot(
            list(curve),
            [100 * value for value in curve.values()],
            "o-",
            ms=4,
            color=shade,
            label=name,
            clip_on=False,
        )
    axes.axhline(100 * chance, color=GREY, lw=1, ls="--", label="chance")
    ks = sorted({k for curve in curves.values() for k in curve})
    axes.set_xscale("log", base=2)
    axes.set_xticks(ks, labels=[str(k) for k in ks])
    axes.set(xlabel="K", ylabel="of the query's class among its K positives, %", ylim=(0, 100))
    axes.legend(frameon=False)
    return figure


def calibration_figure(bank: Bank, *, seed: int = 0) -> Figure:
    """Histograms of cosines of random pairs, and of recordings' own two rows (AVID, Table 2)."""
    figure, axes = _axes()
    i, j = random_pairs(len(bank), seed)
    sides = {
        "picture, picture": (bank.video[i] * bank.video[j]).sum(1),
        "sound, sound": (bank.audio[i] * bank.audio[j]).sum(1),
        "picture, another's sound": (bank.video[i] * bank.audio[j]).sum(1),
        "picture, its own sound": (bank.video * bank.audio).sum(1),
    }
    looks: list[dict[str, Any]] = [
        *({"color": shade, "lw": 1.8} for shade in VIEWS[:3]),
        {"color": INK, "lw": 1.0},
    ]
    for look, (name, values) in zip(looks, sides.items(), strict=True):
        label = f"{name}: mean {float(values.mean()):.2f}"
        axes.hist(values.numpy(), BINS, range=(-1, 1), density=True, histtype="step", label=label, **look)
    axes.axvline(0, color=GREY, lw=1)
    axes.set(xlabel="cosine", ylabel="density", xlim=(-1, 1))
    axes.legend(frameon=False)
    return figure


def random_pairs(count: int, seed: int = 0, pairs: int = PAIRS) -> tuple[Tensor, Tensor]:
    """(P,), (P,): rows of different recordings, drawn uniformly."""
    draw = torch.Generator().manual_seed(seed)
    i = torch.randint(count, (pairs,), generator=draw)
    return i, (i + torch.randint(1, count, (pairs,), generator=draw)) % count


def _axes() -> tuple[Figure, Axes]:
    figure = Figure(figsize=SIZE, dpi=120, layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color=PALE, lw=0.8)
    axes.set_axisbelow(True)
    return figure, axes
