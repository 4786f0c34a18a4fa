"""Cross-affinity between audio and video views (SvaCLR, Eq. 2 and Fig. 3).

Views are stacked as (N, V, d): sample i, view p, with view 0 as recorded. Entry [i, p, j, q] of an affinity
relates the audio of sample i in view p to the video of sample j in view q; `reshape(N*V, N*V)` makes it the
paper's matrix. `soft_infonce` computes the loss without it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import contrastive_ops as ops
from .soft_infonce import own_weights


def cross_affinity(
    audio: Tensor, video: Tensor, temperature: float = 1.0, valid: Tensor | None = None
) -> Tensor:
    """A = softmax(audio video^T / temperature) over each audio view's row (Eq. 2), the whole matrix, to look at.

    Args:
        audio, video: (N, V, d), mapped features l(y); the paper's l is the identity on L2-normalised y.
        temperature: divides the products before the softmax.
        valid: (N,) bool; samples that are False have rows and columns of zeros. None: all are valid.

    Returns:
        (N, V, N, V), rows of valid samples summing to 1 over the last two dimensions.
    """
    n, v, _ = audio.shape
    with torch.autocast(audio.device.type, enabled=False):
        products = precise(audio).flatten(0, 1) @ precise(video).flatten(0, 1).T / temperature
    if valid is None:
        return products.softmax(1).view(n, v, n, v)
    seen = valid.repeat_interleave(v)
    products = products.masked_fill(~seen, torch.finfo(products.dtype).min / 2)
    return (products.softmax(1) * (seen[:, None] & seen)).view(n, v, n, v)


def paired_weights(
    audio: Tensor,
    video: Tensor,
    temperature: float = 1.0,
    valid: Tensor | None = None,
    clamp: tuple[float, float] | None = None,
) -> Tensor:
    """lambda_i^pq = A[i, p, i, q] / A[i, 0, i, 0] of every sample's own pairs (Fig. 3's two-by-two matrix).

    "The weight between the un-augmented view is normalised to 1." Differentiable, and A is never whole in memory.

    Args:
        audio, video, temperature, valid: as in `cross_affinity`.
        clamp: least and greatest weight; no gradient flows where it acts. None: as they come.

    Returns:
        (N, V, V); [:, 0, 0] is 1. Entries of invalid samples are 1.
    """
    audio, video = audio.contiguous(), video.contiguous()
    own, totals, *_ = ops.affinity(audio, video, valid, temperature, None, 0, len(audio))
    return own_weights(own, totals, clamp)


def precise(x: Tensor) -> Tensor:
    """`x` in float32 or better, whatever autocast made of it."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
