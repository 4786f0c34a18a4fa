"""Similarities of random pairs of memory rows, within and across modalities (AVID, Table 2).

On a sphere that is used evenly they are 0 on average. All pairs of different recordings are counted, not a sample:
sums over pairs of x_i . y_j and of its square are products of sums over rows, O(N d^2) in all.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from .bank import Bank


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation of the cosine over all pairs of different recordings."""

    mean: float
    std: float


def calibration(bank: Bank) -> dict[str, Spread]:
    """`video`, `audio` and `cross` (video of one recording, audio of another); none of fewer than two recordings."""
    if len(bank) < 2:
        return {}
    pairs = {"video": (bank.video, bank.video), "audio": (bank.audio, bank.audio)}
    return {name: spread(x, y) for name, (x, y) in {**pairs, "cross": (bank.video, bank.audio)}.items()}


def spread(x: Tensor, y: Tensor) -> Spread:
    """Of x_i . y_j over all i != j, rows (N, d) each."""
    x, y = x.double(), y.double()
    own = (x * y).sum(1)
    count = len(x) * (len(x) - 1)
    mean = (x.sum(0) @ y.sum(0) - own.sum()) / count
    square = ((x.T @ x) * (y.T @ y)).sum() - own.square().sum()
    return Spread(float(mean), float((square / count - mean.square()).clamp(min=0).sqrt()))


def partners(bank: Bank) -> float:
    """Mean cosine of a recording's own two rows."""
    return float((bank.video.double() * bank.audio.double()).sum(1).mean())
