"""Batch norm over the rows of all processes, on CPUs: torch's SyncBatchNorm runs on CUDA only.

Every rank sends how many values a channel it has, their mean and their sum of squared deviations; all combine them
alike (Chan, Golub and LeVeque, 1979), in float64. The gradient goes through the collective: with y = w x' + b,
x' = (x - m) / s over N values of all ranks,

    dL/dx = w / s (g - sum(g) / N - x' sum(g x') / N),    g = dL/dy,    sums over all ranks

where L is the sum of what every rank calls backward on. Gradients of w and b stay each rank's own, to be averaged.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

from .distributed import gather_rows, world_size

Moments = tuple[Tensor, Tensor, int]
"""Of each channel: mean (C,), sum of squared deviations (C,), both float64; and of how many values."""


class Synchronised(_BatchNorm):
    """Mixed into a batch norm: in training its statistics are those of all ranks' rows, however many each has."""

    def forward(self, input: Tensor) -> Tensor:
        """(n, C, ...) -> the same shape and dtype. Raises ValueError if all ranks together have one value a channel."""
        if not self.training or world_size() == 1:
            return super().forward(input)
        self._check_input_dim(input)  # type: ignore[no-untyped-call]
        mean, squares, count = combined(*moments(input))
        if count < 2:
            raise ValueError(
                f"training needs more than 1 value per channel, all ranks have {count}: {tuple(input.shape)}"
            )
        if self.track_running_stats:
            self._track(mean, squares / (count - 1))
        scale = (squares / count + self.eps).rsqrt()
        return _Normalise.apply(input, self.weight, self.bias, mean, scale, count)  # type: ignore[no-any-return, no-untyped-call]

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = 1 / self.num_batches_tracked.item() if self.momentum is None else self.momentum
        for running, value in ((self.running_mean, mean), (self.running_var, variance)):
            running.lerp_(value.to(running.dtype), share)


class _Synchronised1d(Synchronised, nn.BatchNorm1d):
    pass


class _Synchronised2d(Synchronised, nn.BatchNorm2d):
    pass


class _Synchronised3d(Synchronised, nn.BatchNorm3d):
    pass


_FORMS: dict[type, type] = {
    nn.BatchNorm1d: _Synchronised1d,
    nn.BatchNorm2d: _Synchronised2d,
    nn.BatchNorm3d: _Synchronised3d,
}


def synchronise_on_cpu(module: nn.Module) -> None:
    """Makes every BatchNorm1d, 2d and 3d in `module` a `Synchronised` one, in place; names in its state stay."""
    for layer in module.modules():
        layer.__class__ = _FORMS.get(type(layer), type(layer))


@torch.no_grad()
def moments(x: Tensor) -> Moments:
    """Of this rank's x (n, C, ...), in float32 at least; zeros of no rows."""
    count, channels = x.numel() // x.shape[1], x.shape[1]
    if not count:
        none = torch.zeros(channels, dtype=torch.float64)
        return none, none, 0
    variance, mean = torch.var_mean(_wide(x), _around(x), correction=0)
    return mean.double(), variance.double() * count, count


def combined(mean: Tensor, squares: Tensor, count: int) -> Moments:
    """The moments of the union of all ranks' values, the same to the bit on every rank. A collective."""
    own = torch.cat([mean, squares, mean.new_tensor([count])])
    means, spreads, counts = torch.split(gather_rows(own[None]), [len(mean), len(mean), 1], 1)
    total = counts.sum()
    middle = (counts * means).sum(0) / total
    return middle, (spreads + counts * (means - middle).square()).sum(0), int(total)


class _Normalise(torch.autograd.Function):
    """w (x - m) scale + b with moments of all ranks; `scale` is 1 / sqrt(variance + eps), and count N."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        mean: Tensor,
        scale: Tensor,
        count: int,
    ) -> Tensor:
        wide = _wide(x)
        centre, slope = mean.to(wide.dtype), scale if weight is None else scale * weight
        y = (wide - _channel(centre, x)) * _channel(slope.to(wide.dtype), x)
        if bias is not None:
            y += _channel(bias, x)
        ctx.save_for_backward(x, weight, centre, scale, slope)
        ctx.count = count
        return y.to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, centre, scale, slope = ctx.saved_tensors
        g, away = _wide(grad), _wide(x) - _channel(centre, x)
        own = torch.stack([g.sum(_around(x)), (g * away).sum(_around(x))]).double()
        plain, along = own.clone()
        dist.all_reduce(own)
        shift, turn = own / ctx.count
        pull = _channel((turn * scale.square()).to(g.dtype), x)
        dx = (g - _channel(shift.to(g.dtype), x) - away * pull) * _channel(slope.to(g.dtype), x)
        dw = None if weight is None else (along * scale).to(weight.dtype)
        return dx.to(x.dtype), dw, None if weight is None else plain.to(weight.dtype), None, None, None


def _wide(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.bfloat16, torch.half) else x


def _around(x: Tensor) -> list[int]:
    """The dimensions that are not the channel."""
    return [0, *range(2, x.dim())]


def _channel(values: Tensor, x: Tensor) -> Tensor:
    """(C,) so that it broadcasts along x's channels."""
    return values.view(-1, *[1] * (x.dim() - 2))
