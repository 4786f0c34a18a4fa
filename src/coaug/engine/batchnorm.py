"""Batch norm under micro-batches, where every step moves the running statistics once, and over processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .sync_norm import synchronise_on_cpu


def tracking_layers(module: nn.Module) -> list[_BatchNorm]:
    """Batch-norm layers that update running statistics in their present mode."""
    layers = [m for m in module.modules() if isinstance(m, _BatchNorm)]
    return [m for m in layers if m.training and m.track_running_stats and m.running_mean is not None]


def running_statistics(module: nn.Module) -> list[Tensor]:
    """Running means and variances that `module` is updating."""
    buffers = (b for layer in tracking_layers(module) for b in (layer.running_mean, layer.running_var))
    return [b for b in buffers if b is not None]


@contextmanager
def untracked(module: nn.Module) -> Iterator[None]:
    """Forward passes inside use batch statistics as ever but leave the running ones alone."""
    layers = tracking_layers(module)
    for layer in layers:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer in layers:
            layer.track_running_stats = True


@contextmanager
def one_update(module: nn.Module) -> Iterator[Callable[[], None]]:
    """Makes the updates of several forward passes one: their mean. Call what it yields after each pass."""
    running, counts = running_statistics(module), _counters(module)
    start, totals, passes = [b.clone() for b in running], [torch.zeros_like(b) for b in running], 0

    @torch.no_grad()
    def after_pass() -> None:
        nonlocal passes
        passes += 1
        for buffer, first, total in zip(running, start, totals, strict=True):
            total += buffer
            buffer.copy_(first)

    yield after_pass
    for buffer, total in zip(running, totals, strict=True):
        buffer.copy_(total / passes)
    for count in counts:
        count -= passes - 1


def _counters(module: nn.Module) -> list[Tensor]:
    counters = [layer.num_batches_tracked for layer in tracking_layers(module)]
    return [c for c in counters if c is not None]


def synchronise(module: nn.Module, device: torch.device) -> nn.Module:
    """Batch norm over the rows of all processes: torch's SyncBatchNorm on CUDA, `sync_norm` on a CPU; in place."""
    if device.type != "cuda":
        synchronise_on_cpu(module)
        return module
    synced: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
    return synced
