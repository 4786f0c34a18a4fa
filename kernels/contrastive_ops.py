"""The operators under `soft_infonce`: what of a B x B matrix a loss needs, and its gradient, without the matrix.

    coaug::negatives    own logits, and log-sum-exp of every anchor's negatives in both directions
    coaug::affinity     own products of Eq. 2, the log-sum-exps of its rows, and (for the log) sums of the weights
    coaug::soft_pairs   for pairs="all": weights and weighted logits summed by row and by column

All take (N, V, d) embeddings of the gathered batch and the anchors [start, start + count) among its N samples;
results of invalid samples are 0. The last result of each is a small batch's products (`room`), kept for the
gradient, which is an operator of its own, `coaug::<name>_backward`.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from . import contrastive_cpu
from .soft_infonce_cpu import room

Many = tuple[Tensor, ...]


def _on(x: Tensor) -> ModuleType:
    """Where the work is done."""
    if x.device.type != "cuda":
        return contrastive_cpu
    from . import contrastive_cuda

    return contrastive_cuda


def _like(x: Tensor, *shape: int) -> Tensor:
    return x.new_empty(shape, dtype=torch.promote_types(x.dtype, torch.float32))


@torch.library.custom_op("coaug::negatives", mutates_args=())
def negatives(
    audio: Tensor, video: Tensor, valid: Tensor | None, temperature: float, start: int, count: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Own logits (count, V, V), log-sum-exp of negatives of audio and of video anchors, both (count, V)."""
    found: tuple[Tensor, Tensor, Tensor, Tensor] = _on(audio).negatives(
        audio, video, valid, temperature, start, count
    )
    return found


@negatives.register_fake
def _(
    audio: Tensor, video: Tensor, valid: Tensor | None, temperature: float, start: int, count: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    own, of_audio, of_video = (_like(audio, count, *[audio.shape[1]] * k) for k in (2, 1, 1))
    return own, of_audio, of_video, room(audio, count if count == len(audio) else 0)


@torch.library.custom_op("coaug::negatives_backward", mutates_args=())
def negatives_backward(
    audio: Tensor, video: Tensor, valid: Tensor | None, of_audio: Tensor, of_video: Tensor, kept: Tensor,
    d_own: Tensor, d_audio: Tensor, d_video: Tensor, temperature: float, start: int, count: int,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Gradients at `audio` and `video` from those of the three results."""
    totals, gradients = (of_audio, of_video), (d_own, d_audio, d_video)
    found: tuple[Tensor, Tensor] = _on(audio).negatives_backward(
        audio, video, valid, totals, kept, gradients, temperature, start, count
    )
    return found


@negatives_backward.register_fake
def _(audio: Tensor, video: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(audio), torch.empty_like(video)


def _keep_negatives(ctx: Any, inputs: tuple[Any, ...], output: Many) -> None:
    audio, video, valid, *ctx.numbers = inputs
    ctx.save_for_backward(audio, video, valid, *output[1:])


def _pull_negatives(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
    d = negatives_backward(*ctx.saved_tensors, *(g.contiguous() for g in gradients[:3]), *ctx.numbers)
    return (*d, None, None, None, None)


negatives.register_autograd(_pull_negatives, setup_context=_keep_negatives)


@torch.library.custom_op("coaug::affinity", mutates_args=())
def affinity(
    audio: Tensor, video: Tensor, valid: Tensor | None, temperature: float, bounds: list[float] | None,
    start: int, count: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Own products (count, V, V), log-sum-exp of each row (count, V), its sum of other samples' weights (count, V).

    No gradient flows through the third.
    """
    found: tuple[Tensor, Tensor, Tensor, Tensor] = _on(audio).affinity(
        audio, video, valid, temperature, _pair(bounds), start, count
    )
    return found


@affinity.register_fake
def _(
    audio: Tensor, video: Tensor, valid: Tensor | None, temperature: float, bounds: list[float] | None,
    start: int, count: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    own, totals, others = (_like(audio, count, *[audio.shape[1]] * k) for k in (2, 1, 1))
    return own, totals, others, room(audio, count)


@torch.library.custom_op("coaug::affinity_backward", mutates_args=())
def affinity_backward(
    audio: Tensor, video: Tensor, valid: Tensor | None, totals: Tensor, kept: Tensor, d_own: Tensor, d_totals: Tensor,
    temperature: float, start: int, count: int,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Gradients at `audio` and `video` from those of the first two results."""
    found: tuple[Tensor, Tensor] = _on(audio).affinity_backward(
        audio, video, valid, totals, kept, d_own, d_totals, temperature, start, count
    )
    return found


@affinity_backward.register_fake
def _(audio: Tensor, video: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(audio), torch.empty_like(video)


def _keep_affinity(ctx: Any, inputs: tuple[Any, ...], output: Many) -> None:
    audio, video, valid, temperature, _, start, count = inputs
    ctx.numbers = (temperature, start, count)
    ctx.save_for_backward(audio, video, valid, output[1], output[3])


def _pull_affinity(ctx: Any, d_own: Tensor, d_totals: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    d = affinity_backward(*ctx.saved_tensors, d_own.contiguous(), d_totals.contiguous(), *ctx.numbers)
    return (*d, None, None, None, None, None)


affinity.register_autograd(_pull_affinity, setup_context=_keep_affinity)


@torch.library.custom_op("coaug::soft_pairs", mutates_args=())
def soft_pairs(
    z_audio: Tensor, z_video: Tensor, y_audio: Tensor, y_video: Tensor, valid: Tensor | None,
    temperature: float, affinity_temperature: float, bounds: list[float] | None, start: int, count: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Weights W of audio anchors with every video, and what the gradient needs.

    Returns:
        Over pairs of different samples, sums of W over the columns of each view (count, V, V), over the rows of
        each view (N, V, V), and of W times the logits over each row (count, V). Own products of the affinity
        (count, V, V) and the log-sum-exps of its rows (count, V). W z_video (count, V, d), kept for the gradient.
    """
    temperatures = (temperature, affinity_temperature)
    found: tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor] = _on(z_audio).soft_pairs(
        z_audio, z_video, y_audio, y_video, valid, temperatures, _pair(bounds), start, count
    )
    return found


@soft_pairs.register_fake
def _(
    z_audio: Tensor, z_video: Tensor, y_audio: Tensor, y_video: Tensor, valid: Tensor | None,
    temperature: float, affinity_temperature: float, bounds: list[float] | None, start: int, count: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    n, v, d = z_audio.shape
    shapes = ((count, v, v), (n, v, v), (count, v), (count, v, v), (count, v), (count, v, d))
    a, b, c, e, f, g = (_like(z_audio, *shape) for shape in shapes)
    return a, b, c, e, f, g, room(y_audio, count)


@torch.library.custom_op("coaug::soft_pairs_backward", mutates_args=())
def soft_pairs_backward(
    z_audio: Tensor, z_video: Tensor, y_audio: Tensor, y_video: Tensor, valid: Tensor | None,
    totals: Tensor, mixed: Tensor, kept: Tensor, d_by_row: Tensor, d_by_column: Tensor, d_agreement: Tensor,
    d_own: Tensor, d_totals: Tensor,
    temperature: float, affinity_temperature: float, bounds: list[float] | None, start: int, count: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients at the four embeddings from those of the first five results."""
    gradients = (d_by_row, d_by_column, d_agreement, d_own, d_totals)
    temperatures = (temperature, affinity_temperature)
    found: tuple[Tensor, Tensor, Tensor, Tensor] = _on(z_audio).soft_pairs_backward(
        z_audio, z_video, y_audio, y_video, valid, totals, mixed, kept, gradients, temperatures, _pair(bounds),
        start, count,
    )  # fmt: skip
    return found


@soft_pairs_backward.register_fake
def _(
    z_audio: Tensor, z_video: Tensor, y_audio: Tensor, y_video: Tensor, *_: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    a, b, c, d = (torch.empty_like(x) for x in (z_audio, z_video, y_audio, y_video))
    return a, b, c, d


def _keep_soft_pairs(ctx: Any, inputs: tuple[Any, ...], output: Many) -> None:
    ctx.numbers = inputs[5:]
    ctx.save_for_backward(*inputs[:5], *output[4:])


def _pull_soft_pairs(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
    d = soft_pairs_backward(*ctx.saved_tensors, *(g.contiguous() for g in gradients[:5]), *ctx.numbers)
    return (*d, None, None, None, None, None, None)


soft_pairs.register_autograd(_pull_soft_pairs, setup_context=_keep_soft_pairs)


def _pair(bounds: list[float] | None) -> tuple[float, float] | None:
    return None if bounds is None else (bounds[0], bounds[1])
