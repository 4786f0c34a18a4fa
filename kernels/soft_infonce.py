"""InfoNCE and SoftInfoNCE (SvaCLR, Eq. 1-3) without the B x B matrices, B = samples * views.

Rows r = (i, p) are audio views, columns c = (j, q) video views; i, j are samples. Only valid samples take part.

    t_rc = z_r . z_c / temperature            n_r = log sum_{c: j != i} exp t_rc     (negatives of audio anchors)
    a_rc = y_r . y_c / affinity_temperature   m_c = log sum_{r: i != j} exp t_rc     (negatives of video anchors)
    s_r  = log sum_c exp a_rc                 rho_r = s_r + a_{i0,i0} - s_{i0}
    W_rc = clamp(exp(a_rc - rho_r))           lambda of Eq. 3, 1 for the un-augmented pair (i0, i0)

The loss needs own pairs (i = j), which are few, and sums over all pairs. With L the symmetric InfoNCE of a pair,

    L_rc = (A_r,q + B_c,p) / 2 - t_rc,        A_r,q = log(exp t_{ip,iq} + exp n_r),  B_c,p alike with m_c

"diagonal" is the mean of W L over own pairs, "all" the mean over all pairs. The others are, in sums over them,

    sum_{i != j} W L = sum_rq S_rq A_rq / 2 + sum_cp T_cp B_cp / 2 - sum_r Q_r,
    S_rq = sum_{c in view q} W_rc,   T_cp = sum_{r in view p} W_rc,   Q_r = sum_c W_rc t_rc

So operators over panels of rows (`contrastive_ops`) return own t and a, n, m, s, S, T, Q, and everything else is
ordinary differentiable arithmetic on (N, V, V) tensors. Their gradients are panels too, computed again, with
d_x for the gradient at x and P_rc = exp(a_rc - s_r):

    d_t_rc = d_n_r exp(t_rc - n_r) + d_m_c exp(t_rc - m_c)                  pairs of different samples
    d_a_rc = d_s_r P_rc                                                     all pairs
    d_t_rc = d_Q_r W_rc                                                     "all", pairs of different samples:
    E_rc   = W_rc (d_S_rq + d_T_cp + d_Q_r t_rc), 0 where the clamp acts    the gradient at log W
    e_r    = sum_c E_rc,   e_i = sum_{r in i} e_r
    d_a_rc = E_rc + (e_i [p = 0] - e_r) P_rc - e_i [r = c = (i, 0)]         with rho_r = s_r + a_{i0,i0} - s_{i0}

**Many processes.** Every process passes the embeddings of the whole batch and its own samples as `anchors`. It
gets its anchors' share of the loss, and gradients for *all* embeddings: its own as anchors and as candidates,
and the others' as candidates. The shares of loss, figures and gradients *sum* to those of the whole. With a
gather whose backward sums (`torch.distributed.nn.functional.all_gather`), gradients at the local embeddings are
therefore whole. Where gradients of parameters are *averaged* afterwards, multiply the loss by the world size:

    z_audio, z_video = (torch.cat(all_gather(z)) for z in (z_audio, z_video))
    infonce(z_audio, z_video, 0.07, anchors=(rank * n, n)) * world_size
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from . import checks
from . import contrastive_ops as ops

Pairs = Literal["diagonal", "all"]
Anchors = tuple[int, int]


def infonce(
    z_audio: Tensor,
    z_video: Tensor,
    temperature: float,
    valid: Tensor | None = None,
    *,
    weights: Tensor | None = None,
    anchors: Anchors | None = None,
    check_finite: bool = True,
) -> Tensor:
    """Symmetric InfoNCE over views (Eq. 1), a scalar: the mean over valid samples and their V*V view pairs.

    A pair's denominator holds the pair and the other modality's views of all *other* samples. 0 where fewer than
    two samples are valid.

    Args:
        z_audio, z_video: (N, V, d) projections, fp16, bf16, fp32 or (CPU) fp64; summed in fp32 or better.
        temperature: eta.
        valid: (N,) bool; samples that are False are neither anchors nor negatives. None: all are valid.
        weights: (N, V, V), one factor for each own pair [audio view, video view] ((count, V, V) with `anchors`),
            None for 1. Gradients flow to them.
        anchors: (start, count), the samples whose share is wanted, see above. None: all.
        check_finite: False leaves out the look at every value; NaN then gives NaN.

    Raises:
        TypeError, ValueError: shapes, dtypes or devices do not fit, or (on the CPU) a value is NaN or infinite.
    """
    _check(z_audio, z_video, valid, temperature, check_finite)
    z_audio, z_video = z_audio.contiguous(), z_video.contiguous()
    start, count = _anchors(anchors, len(z_audio))
    if weights is not None:
        _check_weights(weights, z_audio, count)
    with torch.autocast(z_audio.device.type, enabled=False):
        losses = _own_losses(*ops.negatives(z_audio, z_video, valid, temperature, start, count)[:3])
        total = _total(losses if weights is None else weights * losses, valid, start)
        return total / (_samples(valid, len(z_audio))[0] * losses[0].numel())


def soft_infonce(
    z_audio: Tensor,
    z_video: Tensor,
    y_audio: Tensor,
    y_video: Tensor,
    *,
    temperature: float,
    affinity_temperature: float = 1.0,
    clamp: tuple[float, float] | None = (0.1, 2.0),
    pairs: Pairs = "diagonal",
    valid: Tensor | None = None,
    anchors: Anchors | None = None,
    check_finite: bool = True,
) -> tuple[Tensor, Tensor, Tensor]:
    """SoftInfoNCE (Eq. 3) with the weights of Eq. 2, gradients through both.

    Args:
        z_audio, z_video, temperature, valid, anchors, check_finite: as for `infonce`.
        y_audio, y_video: (N, V, w) mapped features l(y); the paper's l is the identity on L2-normalised y.
            Detached ones stop the gradient of the weights.
        affinity_temperature: divides the products of Eq. 2.
        clamp: least and greatest weight; no gradient flows where it acts. None: as they come.
        pairs: "diagonal" (Fig. 3: own pairs) or "all" (Eq. 3 as printed).

    Returns:
        The loss; and, without gradient, the mean weight of pairs of one sample and of two different ones.

    Raises:
        TypeError, ValueError: as for `infonce`, or an option is not one of those above.
    """
    _check(z_audio, z_video, valid, temperature, check_finite)
    _check(y_audio, y_video, valid, affinity_temperature, check_finite, "y", like=z_audio)
    _check_options(pairs, clamp)
    z_audio, z_video, y_audio, y_video = _alike(z_audio, z_video, y_audio, y_video)
    n, (start, count) = len(z_audio), _anchors(anchors, len(z_audio))
    bounds = None if clamp is None else [float(bound) for bound in clamp]
    samples, rest = _samples(valid, n)
    cells = samples * z_audio.shape[1] ** 2
    with torch.autocast(z_audio.device.type, enabled=False):
        if pairs == "diagonal":
            affinity = ops.affinity(y_audio, y_video, valid, affinity_temperature, bounds, start, count)
            weights, others = own_weights(affinity[0], affinity[1], clamp), affinity[2]
            losses = _own_losses(*ops.negatives(z_audio, z_video, valid, temperature, start, count)[:3])
            loss = _total(weights * losses, valid, start) / cells
        else:
            found = ops.soft_pairs(
                z_audio, z_video, y_audio, y_video, valid, temperature, affinity_temperature, bounds, start, count
            )  # fmt: skip
            weights, others = own_weights(found[3], found[4], clamp), found[0]
            logits = ops.negatives(z_audio, z_video, valid, temperature, 0, n)[
                :3
            ]  # of every column's anchors
            losses = _own_losses(*(x[start : start + count] for x in logits))
            total = _total(weights * losses, valid, start) + _other_pairs(found, logits, start)
            loss = total / (cells * samples)
        true = _total(weights.detach(), valid, start) / cells
        return loss, true, others.detach().sum() / (cells * rest)


def own_weights(own: Tensor, totals: Tensor, clamp: tuple[float, float] | None) -> Tensor:
    """lambda of own pairs (n, V, V) from their products (n, V, V) and the log-sum-exps of their rows (n, V)."""
    log_affinity = own - totals[:, :, None]
    log_weights = log_affinity - log_affinity[:, :1, :1]
    if clamp is not None:  # before exp: afterwards an overflow would give 0 * inf in the gradient
        log_weights = log_weights.clamp(*(_log(bound) for bound in clamp))
    return log_weights.exp()


def _alike(*embeddings: Tensor) -> list[Tensor]:
    """Contiguous, and all in float64 where one is."""
    double = any(x.dtype == torch.float64 for x in embeddings)
    return [(x.double() if double else x).contiguous() for x in embeddings]


def _own_losses(own: Tensor, of_audio: Tensor, of_video: Tensor) -> Tensor:
    """InfoNCE of own pairs, (n, V, V). Entries of invalid samples are finite and mean nothing."""
    audio_to_video = F.logsigmoid(own - of_audio[:, :, None])  # log(e^s / (e^s + sum of negatives))
    video_to_audio = F.logsigmoid(own - of_video[:, None, :])
    return (audio_to_video + video_to_audio) / -2


def _other_pairs(sums: tuple[Tensor, ...], logits: tuple[Tensor, ...], start: int) -> Tensor:
    """The sum of W L over the anchors' pairs of different samples, from S, T and Q."""
    own, of_audio, of_video = logits
    by_row, by_column, agreement = sums[:3]
    audio = torch.logaddexp(own, of_audio[:, :, None])[start : start + len(by_row)]  # A as [i, p, q]
    video = torch.logaddexp(own, of_video[:, None, :]).transpose(1, 2)  # B as [j, q, p]
    return ((by_row * audio).sum() + (by_column * video).sum()) / 2 - agreement.sum()


def _total(values: Tensor, valid: Tensor | None, start: int) -> Tensor:
    """The sum of the valid anchors' (count, V, V)."""
    if valid is None:
        return values.sum()
    return values.sum((1, 2)).masked_fill(~valid[start : start + len(values)], 0).sum()


def _samples(valid: Tensor | None, n: int) -> tuple[Tensor | int, Tensor | int]:
    """Valid samples, and how many others each has; at least 1, and on the device, so that nobody waits for them."""
    if valid is None:
        return n, max(n - 1, 1)
    samples = valid.sum()
    return samples.clamp(min=1), (samples - 1).clamp(min=1)


def _log(bound: float) -> float:
    return math.log(bound) if bound > 0 else -math.inf


def _anchors(anchors: Anchors | None, n: int) -> Anchors:
    start, count = anchors or (0, n)
    if start < 0 or count < 1 or start + count > n:
        raise ValueError(f"anchors must be (start, count) within the {n} samples, got {anchors}")
    return start, count


def _check(
    audio: Tensor, video: Tensor, valid: Tensor | None, temperature: float, finite: bool,
    letter: str = "z", like: Tensor | None = None,
) -> None:  # fmt: skip
    names = f"{letter}_audio", f"{letter}_video"
    for name, x in zip(names, (audio, video), strict=True):
        if not isinstance(x, Tensor) or x.dtype not in checks.FLOATS:
            raise TypeError(f"{name} must be a floating tensor (N, V, d), got {checks.describe(x)}")
        if x.ndim != 3 or x.numel() == 0:
            raise ValueError(f"{name} must be (N, V, d) and not empty, got {checks.describe(x)}")
    if audio.shape != video.shape or audio.dtype != video.dtype:
        both = f"{checks.describe(audio)} and {checks.describe(video)}"
        raise ValueError(f"{names[0]} and {names[1]} must be alike in shape and dtype, got {both}")
    if like is not None and (audio.shape[:2] != like.shape[:2] or audio.device != like.device):
        both = f"{checks.describe(audio)} and {checks.describe(like)}"
        raise ValueError(f"y and z must hold the same samples and views on one device, got {both}")
    checks.same_device(**dict(zip(names, (audio, video), strict=True)))
    if valid is not None and (valid.dtype != torch.bool or valid.shape != audio.shape[:1]):
        raise ValueError(f"valid must be bool of shape ({len(audio)},), got {checks.describe(valid)}")
    if not temperature > 0:
        raise ValueError(f"temperatures must be greater than 0, got {temperature}")
    if finite:
        checks.finite(names[0], audio)
        checks.finite(names[1], video)


def _check_weights(weights: Tensor, z: Tensor, count: int) -> None:
    wanted = (count, z.shape[1], z.shape[1])
    if not isinstance(weights, Tensor) or tuple(weights.shape) != wanted or weights.device != z.device:
        got = checks.describe(weights)
        raise ValueError(f"weights must be {wanted} on {z.device}, one for each own pair, got {got}")


def _check_options(pairs: str, clamp: tuple[float, float] | None) -> None:
    if pairs not in ("diagonal", "all"):
        raise ValueError(f"pairs must be 'diagonal' or 'all', got {pairs!r}")
    if clamp is not None and not 0 <= clamp[0] <= clamp[1]:
        raise ValueError(f"clamp must be (least, greatest) weight, neither below 0, got {clamp}")
