"""SvaCLR's losses with whole (N, V, N, V) matrices, plainly: what the tiled operators are compared with.

This is itself compared with Eq. 1-3 term by term in test_losses_*.py.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def soft_infonce(
    z_audio: Tensor, z_video: Tensor, y_audio: Tensor, y_video: Tensor, *, temperature: float,
    affinity_temperature: float = 1.0, clamp: tuple[float, float] | None = (0.1, 2.0), pairs: str = "diagonal",
    valid: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    weights = pair_weights(y_audio, y_video, affinity_temperature, valid, clamp)
    both = _both(valid, weights)
    if pairs == "diagonal":
        loss = sample_mean(own_pairs(weights) * pair_losses(z_audio, z_video, temperature, valid), valid)
    else:
        loss = _pair_mean(weights * all_pair_losses(z_audio, z_video, temperature, valid), both)
    same = torch.eye(len(weights), dtype=torch.bool)
    return loss, _pair_mean(weights.detach(), both & same), _pair_mean(weights.detach(), both & ~same)


def infonce(z_audio: Tensor, z_video: Tensor, temperature: float, valid: Tensor | None = None) -> Tensor:
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


def _both(valid: Tensor | None, matrix: Tensor) -> Tensor:
    """(N, N) bool: both samples of the pair are valid."""
    n = len(matrix)
    valid = torch.ones(n, dtype=torch.bool, device=matrix.device) if valid is None else valid
    return valid[:, None] & valid


def _pair_mean(values: Tensor, chosen: Tensor) -> Tensor:
    """Mean of (N, V, N, V) over the view pairs of the `chosen` (N, N) sample pairs; 0 where there is none."""
    per_pair = values.mean((1, 3))
    return per_pair.masked_fill(~chosen, 0).sum() / chosen.sum().clamp(min=1)


def pair_weights(
    audio: Tensor,
    video: Tensor,
    temperature: float = 1.0,
    valid: Tensor | None = None,
    clamp: tuple[float, float] | None = None,
) -> Tensor:
    """lambda_ij^pq = A[i, p, j, q] / A[i, 0, i, 0]: "the weight between the un-augmented view is normalised to 1".

    The two entries may stand in different rows, so the rows' normalisers do not cancel.

    Args:
        audio, video, temperature, valid: as in `cross_affinity`.
        clamp: least and greatest weight; no gradient flows where it acts. None: as they come.

    Returns:
        (N, V, N, V). Entries of invalid samples are finite and mean nothing.
    """
    log_affinity = _log_affinity(audio, video, temperature, valid)
    recorded = log_affinity[:, 0, :, 0].diagonal()
    log_weights = log_affinity - recorded[:, None, None, None]
    if clamp is not None:  # before exp: afterwards an overflow would give 0 * inf in the gradient
        log_weights = log_weights.clamp(math.log(clamp[0]), math.log(clamp[1]))
    return log_weights.exp()


def own_pairs(matrix: Tensor) -> Tensor:
    """The entries [i, p, i, q] of an (N, V, N, V) matrix as (N, V, V)."""
    return matrix.diagonal(dim1=0, dim2=2).permute(2, 0, 1)


def similarities(audio: Tensor, video: Tensor, temperature: float = 1.0) -> Tensor:
    """Dot products over temperature, (N, V, d) with (N, V, d) -> (N, V, N, V), never below float32."""
    n, v, _ = audio.shape
    with torch.autocast(audio.device.type, enabled=False):
        a, b = precise(audio).flatten(0, 1), precise(video).flatten(0, 1)
        return (a @ b.T / temperature).view(n, v, n, v)


def precise(x: Tensor) -> Tensor:
    """`x` in float32 or better, whatever autocast made of it."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _log_affinity(audio: Tensor, video: Tensor, temperature: float, valid: Tensor | None) -> Tensor:
    products = similarities(audio, video, temperature)
    if valid is not None:
        # an invalid sample keeps its own columns, which no other row sees, so that its row stays finite
        hidden = ~valid & ~torch.eye(len(valid), dtype=torch.bool, device=valid.device)
        products = products.masked_fill(hidden[:, None, :, None], torch.finfo(products.dtype).min / 2)
    return products.flatten(2).log_softmax(-1).view_as(products)
