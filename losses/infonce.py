"""Audio-visual InfoNCE over views (SvaCLR, Eq. 1, with the -log that it implies).

Views are stacked as (N, V, d). The denominator of the pair (audio of sample i in view p, video of sample i in view
q) holds that pair and every video of *other* samples in every view: V(N-1) negatives. The sample's own other views
are neither positive nor negative there. Video anchors are treated alike and both directions are averaged.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..kernels.cross_affinity import own_pairs, similarities


def infonce(z_audio: Tensor, z_video: Tensor, temperature: float, valid: Tensor | None = None) -> Tensor:
    """Mean of `pair_losses` over the valid samples and their V*V view pairs; 0 where fewer than two are valid.

    Args:
        z_audio, z_video: (N, V, d), L2-normalised projections.
        temperature: eta.
        valid: (N,) bool; samples that are False are neither anchors nor negatives. None: all are valid.
    """
    return sample_mean(pair_losses(z_audio, z_video, temperature, valid), valid)


def pair_losses(z_audio: Tensor, z_video: Tensor, temperature: float, valid: Tensor | None = None) -> Tensor:
    """InfoNCE of every sample's own pairs, (N, V, V): [i, p, q] is audio view p with video view q.

    Arguments as for `infonce`. Entries of invalid samples are finite and mean nothing.
    """
    logits = similarities(z_audio, z_video, temperature)
    positive = own_pairs(logits)
    of_audio, of_video = negatives(logits, valid)
    audio_to_video = -F.logsigmoid(positive - of_audio[:, :, None])  # -log(e^s / (e^s + sum of negatives))
    video_to_audio = -F.logsigmoid(positive - of_video[:, None, :])
    return (audio_to_video + video_to_audio) / 2


def negatives(logits: Tensor, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Log-sum-exp of each anchor's negatives, (N, V) for audio anchors and (N, V) for video anchors.

    An anchor without negatives gets a very low finite number: it makes the loss and its gradient exactly 0, where
    an infinity would make the gradient NaN.
    """
    n = len(logits)
    excluded = torch.eye(n, dtype=torch.bool, device=logits.device)
    if valid is not None:
        excluded = excluded | ~valid
    lowest = torch.finfo(logits.dtype).min / 2

    def of_rows(rows: Tensor) -> Tensor:  # anchors in the first two dimensions, candidates in the last two
        return rows.masked_fill(excluded[:, None, :, None], lowest).flatten(2).logsumexp(-1)

    return of_rows(logits), of_rows(logits.permute(2, 3, 0, 1))


def sample_mean(values: Tensor, valid: Tensor | None) -> Tensor:
    """Mean of (N, ...) over everything that belongs to valid samples; 0 where there is none."""
    if valid is None:
        return values.mean()
    rows = values.flatten(1).mean(1)
    return rows.masked_fill(~valid, 0).sum() / valid.sum().clamp(min=1)
