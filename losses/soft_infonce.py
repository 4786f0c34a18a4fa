"""SoftInfoNCE (SvaCLR, Eq. 3): InfoNCE whose pairs are weighted by the cross-affinity of Eq. 2.

    lambda(a_i^p, v_j^q) = softmax[l(y_i) l(y_j)^T]                                  (2)
    loss = 1/N^2 sum_i sum_j lambda(a_i^p, v_j^q) * L(a_i^p, v_j^q), mean over p, q   (3)

The paper can be read in two ways, and both are here:

    pairs="diagonal"  Fig. 3: each sample has a V x V matrix of weights, one for each of its own view pairs, and the
                      loss is the mean over samples and view pairs of weight times InfoNCE.
    pairs="all"       Eq. 3 as printed: the mean over all i and j. L(a_i, v_j) is -log of the pair's probability in
                      the softmax that the anchor's InfoNCE normalises, so a pair i != j is a soft positive.

Weights are relative to the sample's un-augmented pair, which has weight 1.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..kernels.cross_affinity import precise
from ..kernels.soft_infonce import Pairs as Pairs
from ..kernels.soft_infonce import soft_infonce

Mapping = Literal["identity", "linear", "mlp"]


class SoftInfoNCE(nn.Module):
    """The objective with its mapping l, one for both modalities.

    Args:
        width: d of the encoders' outputs y.
        temperature: eta of Eq. 1.
        pairs: which reading of Eq. 3, see above.
        mapping: l of Eq. 2 on L2-normalised y; the paper finds "identity" best.
        detach: stop the gradient of the weights at y; a learnable l still learns.
        clamp: least and greatest weight, None for no bounds.
        affinity_temperature: divides the products of Eq. 2.
    """

    def __init__(
        self,
        width: int,
        *,
        temperature: float = 0.07,
        pairs: Pairs = "diagonal",
        mapping: Mapping = "identity",
        detach: bool = False,
        clamp: tuple[float, float] | None = (0.1, 2.0),
        affinity_temperature: float = 1.0,
    ) -> None:
        super().__init__()
        self.temperature, self.affinity_temperature = temperature, affinity_temperature
        self.pairs, self.detach, self.clamp = pairs, detach, clamp
        self.mapping = _mapping(mapping, width)

    def forward(
        self, z_audio: Tensor, z_video: Tensor, y_audio: Tensor, y_video: Tensor, valid: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss and figures to log.

        Args:
            z_audio, z_video: (N, V, k), L2-normalised projections.
            y_audio, y_video: (N, V, width), the encoders' outputs.
            valid: (N,) bool; samples that are False take no part. None: all are valid.

        Returns:
            A scalar, and `lambda.true` and `lambda.shuffled`: the mean weight of pairs of one sample and of pairs
            of two different ones, over all view pairs. Weights that mean something tell the two apart.
        """
        loss, true, shuffled = soft_infonce(
            z_audio,
            z_video,
            self.mapped(y_audio),
            self.mapped(y_video),
            temperature=self.temperature,
            affinity_temperature=self.affinity_temperature,
            clamp=self.clamp,
            pairs=self.pairs,
            valid=valid,
            check_finite=False,  # NaN becomes the loss's, for the training loop to report with its batch
        )
        return loss, {"lambda.true": true, "lambda.shuffled": shuffled}

    def mapped(self, y: Tensor) -> Tensor:
        """l(y / |y|), (N, V, width) in float32 or better."""
        with torch.autocast(y.device.type, enabled=False):
            return self.mapping(F.normalize(precise(y.detach() if self.detach else y), dim=-1))  # type: ignore[no-any-return]


def _mapping(kind: Mapping, width: int) -> nn.Module:
    if kind == "identity":
        return nn.Identity()
    if kind == "linear":
        return nn.Linear(width, width)
    return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
