"""Cross-affinity between audio and video views (SvaCLR, Eq. 2 and Fig. 3).

Views are stacked as (N, V, d): sample i, view p, with view 0 as recorded. Entry [i, p, j, q] of an affinity
relates the audio of sample i in view p to the video of sample j in view q; `reshape(N*V, N*V)` makes it the
paper's matrix. Everything is computed from log-probabilities, so that a quotient of two small ones is safe.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def cross_affinity(
    audio: Tensor, video: Tensor, temperature: float = 1.0, valid: Tensor | None = None
) -> Tensor:
    """A = softmax(audio video^T / temperature) over each audio view's row (Eq. 2).

    Args:
        audio, video: (N, V, d), mapped features l(y); the paper's l is the identity on L2-normalised y.
        temperature: divides the products before the softmax.
        valid: (N,) bool; samples that are False have rows and columns of zeros. None: all are valid.

    Returns:
        (N, V, N, V), rows of valid samples summing to 1 over the last two dimensions.
    """
    affinity = _log_affinity(audio, video, temperature, valid).exp()
    if valid is None:
        return affinity
    return affinity * (valid[:, None, None, None] & valid[:, None])


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


def paired_weights(
    audio: Tensor,
    video: Tensor,
    temperature: float = 1.0,
    valid: Tensor | None = None,
    clamp: tuple[float, float] | None = None,
) -> Tensor:
    """lambda_i^pq of every sample's own pairs (Fig. 3's two-by-two matrix), (N, V, V); [:, 0, 0] is 1."""
    return own_pairs(pair_weights(audio, video, temperature, valid, clamp))


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
