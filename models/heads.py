"""What stands between an encoder and a loss: projectors and the unit sphere."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ..kernels.cross_affinity import precise


def projector(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Two-layer MLP, (..., inputs) -> (..., outputs), with a ReLU between (SvaCLR, section 3.4)."""
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, outputs))


def unit(x: Tensor) -> Tensor:
    """`x` divided by its L2 norm over the last dimension."""
    return F.normalize(precise(x), dim=-1)
