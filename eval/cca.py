"""Regularised canonical correlation analysis: the best linear way to make two views of the same things comparable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .metrics import recall

RIDGES = (1e-3, 1e-2, 1e-1, 1.0)
WIDTHS = (2, 4, 8, 16, 32)


@dataclass(frozen=True)
class CCA:
    """Linear maps of two views into a common space of r dimensions, best correlated first; float64.

    Shapes: mean_x (p,), mean_y (q,), map_x (p, r), map_y (q, r), correlation (r,) as seen in fitting.
    """

    mean_x: Tensor
    mean_y: Tensor
    map_x: Tensor
    map_y: Tensor
    correlation: Tensor

    def __call__(self, x: Tensor, y: Tensor, width: int | None = None) -> tuple[Tensor, Tensor]:
        """(N, p) and (N, q) in the first `width` dimensions, each scaled by its correlation (Gong et al., 2014)."""
        weight = self.correlation[:width]
        u = (x.double() - self.mean_x) @ self.map_x[:, :width] * weight
        v = (y.double() - self.mean_y) @ self.map_y[:, :width] * weight
        return u, v


def fit(x: Tensor, y: Tensor, ridge_x: float = 0.0, ridge_y: float = 0.0) -> CCA:
    """The canonical directions of paired rows x (N, p) and y (N, q) (Hotelling, 1936; ridge: Vinod, 1976).

    Singular vectors of Cxx^(-1/2) Cxy Cyy^(-1/2). A ridge is a share of the view's mean variance, added to every
    variance; directions without any variance are left out.
    """
    x, y = x.double(), y.double()
    mean_x, mean_y = x.mean(0), y.mean(0)
    white_x, white_y = _whitener(x - mean_x, ridge_x), _whitener(y - mean_y, ridge_y)
    cross = ((x - mean_x) @ white_x).T @ ((y - mean_y) @ white_y) / len(x)
    left, correlation, right = torch.linalg.svd(cross, full_matrices=False)
    return CCA(mean_x, mean_y, white_x @ left, white_y @ right.T, correlation)


def fit_best(x: Tensor, y: Tensor, *, seed: int = 0, held_out: float = 0.25) -> tuple[CCA, int]:
    """The fit and width whose retrieval of the own partner is best on a held-out part of the rows.

    Ridges and width are chosen by the mean of R@1, R@5 and R@10 both ways on `held_out` of the rows, drawn at random;
    the fit returned is on all of them.
    """
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    check, rest = order[: round(held_out * len(x))], order[round(held_out * len(x)) :]
    scores = {}
    for ridges in ((a, b) for a in RIDGES for b in RIDGES):
        trial = fit(x[rest], y[rest], *ridges)
        for width in _widths(len(trial.correlation)):
            scores[ridges, width] = _score(*trial(x[check], y[check], width))
    (ridges, width) = max(scores, key=lambda choice: scores[choice])
    return fit(x, y, *ridges), width


def _whitener(centred: Tensor, ridge: float) -> Tensor:
    """(p, r): columns that turn the rows into uncorrelated ones of unit variance."""
    variances, axes = torch.linalg.eigh(centred.T @ centred / len(centred))
    floor = variances[-1].clamp(min=0) * 1e-10
    keep = variances > floor
    white: Tensor = axes[:, keep] / (variances[keep] + ridge * variances.clamp(min=0).mean()).sqrt()
    return white


def _widths(most: int) -> Sequence[int]:
    return sorted({min(width, most) for width in WIDTHS} - {0})


def _score(u: Tensor, v: Tensor) -> float:
    own = torch.arange(len(u))
    both = (recall(u, v, own, own, (1, 5, 10)), recall(v, u, own, own, (1, 5, 10)))
    return sum(sum(direction.values()) for direction in both)
