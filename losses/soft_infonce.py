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

from ..kernels.cross_affinity import own_pairs, pair_weights, precise, similarities
from .infonce import negatives, pair_losses, sample_mean

Pairs = Literal["diagonal", "all"]
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
        weights = self.weights(y_audio, y_video, valid)
        if self.pairs == "diagonal":
            losses = pair_losses(z_audio, z_video, self.temperature, valid)
            loss = sample_mean(own_pairs(weights) * losses, valid)
        else:
            losses = all_pair_losses(z_audio, z_video, self.temperature, valid)
            loss = _pair_mean(weights * losses, _both(valid, weights))
        return loss, _figures(weights.detach(), valid)

    def weights(self, y_audio: Tensor, y_video: Tensor, valid: Tensor | None = None) -> Tensor:
        """lambda of every pair, (N, V, N, V), in float32 or better."""
        if self.detach:
            y_audio, y_video = y_audio.detach(), y_video.detach()
        with torch.autocast(y_audio.device.type, enabled=False):
            audio, video = (self.mapping(F.normalize(precise(y), dim=-1)) for y in (y_audio, y_video))
            return pair_weights(audio, video, self.affinity_temperature, valid, self.clamp)


def all_pair_losses(
    z_audio: Tensor, z_video: Tensor, temperature: float, valid: Tensor | None = None
) -> Tensor:
    """-log of every pair's softmax probability, mean of both directions, (N, V, N, V).

    [i, p, j, q] normalises over what Eq. 1 does for the anchor's own pair: for the audio of sample i in view p, its
    own video in view q and the videos of other samples in every view. [i, p, i, q] is therefore `pair_losses`.
    """
    logits = similarities(z_audio, z_video, temperature)
    own = own_pairs(logits)
    of_audio, of_video = negatives(logits, valid)
    audio_total = torch.logaddexp(own, of_audio[:, :, None])  # [i, p, q]
    video_total = torch.logaddexp(own, of_video[:, None, :]).transpose(0, 1)  # [p, j, q]
    return (audio_total[:, :, None] + video_total[None]) / 2 - logits


def _mapping(kind: Mapping, width: int) -> nn.Module:
    if kind == "identity":
        return nn.Identity()
    if kind == "linear":
        return nn.Linear(width, width)
    return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))


def _figures(weights: Tensor, valid: Tensor | None) -> dict[str, Tensor]:
    both = _both(valid, weights)
    same = torch.eye(len(weights), dtype=torch.bool, device=weights.device)
    return {
        "lambda.true": _pair_mean(weights, both & same),
        "lambda.shuffled": _pair_mean(weights, both & ~same),
    }


def _both(valid: Tensor | None, matrix: Tensor) -> Tensor:
    """(N, N) bool: both samples of the pair are valid."""
    n = len(matrix)
    valid = torch.ones(n, dtype=torch.bool, device=matrix.device) if valid is None else valid
    return valid[:, None] & valid


def _pair_mean(values: Tensor, chosen: Tensor) -> Tensor:
    """Mean of (N, V, N, V) over the view pairs of the `chosen` (N, N) sample pairs; 0 where there is none."""
    per_pair = values.mean((1, 3))
    return per_pair.masked_fill(~chosen, 0).sum() / chosen.sum().clamp(min=1)
