"""One feature a recording: the mean over its clips, gathered over all ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from ..models.method import Method
from ..pipelines.batch import Batch

Compute = Callable[[Batch], Mapping[str, Tensor]]


@dataclass(frozen=True)
class Features:
    """N recordings, in order of id, each once; everything on the CPU.

    Shapes: sample_id (N,) int64; label (N,) int64, -1 where unknown; values: name -> (N, d) float32.
    """

    sample_id: Tensor
    label: Tensor
    values: dict[str, Tensor]

    def __len__(self) -> int:
        return len(self.sample_id)

    def __getitem__(self, name: str) -> Tensor:
        return self.values[name]

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def rows(self, index: Tensor) -> Features:
        """The recordings picked by a mask or by row numbers."""
        values = {name: value[index] for name, value in self.values.items()}
        return Features(self.sample_id[index], self.label[index], values)

    def __repr__(self) -> str:
        widths = ", ".join(f"{name} {value.shape[1]}" for name, value in self.values.items())
        return f"Features({len(self)} recordings: {widths})"


def extract(
    method: Method,
    batches: Iterable[Batch],
    *extra: Compute,
    autocast: AbstractContextManager[Any] | None = None,
) -> Features:
    """The method's features of every recording in `batches` (one epoch), with running batch-norm statistics.

    Names ending in `_z` are L2-normalised again after the mean over clips (the paper leaves this open).

    Args:
        method: put into evaluation mode for the call.
        batches: this rank's share; features come back for the recordings of all ranks.
        extra: further functions of a batch whose (B, V, d) results are collected in the same pass.
        autocast: entered around the method, as in training; the means are float32 in any case.
    """

    def compute(batch: Batch) -> dict[str, Tensor]:
        with autocast or nullcontext():
            found = dict(method.features(batch))
        return found | {name: value for function in extra for name, value in function(batch).items()}

    with evaluating(method):
        return collect(batches, compute)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; modules that were training train again afterwards."""
    modes = {each: each.training for each in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for each, mode in modes.items():
            each.training = mode


@torch.no_grad()
def collect(batches: Iterable[Batch], compute: Compute) -> Features:
    """Means over the views of what `compute` returns, (B, V, d) by name; rows with `valid` False are left out.

    Only the means are kept, so that memory does not grow with the number of clips.
    """
    parts = [_reduce(batch, compute(batch)) for batch in batches]
    return _merge(_gather([part for part in parts if len(part)]))


def _reduce(batch: Batch, found: Mapping[str, Tensor]) -> Features:
    keep = batch.valid.cpu()
    values = {name: _mean(name, value).cpu()[keep] for name, value in found.items()}
    return Features(batch.sample_id.cpu()[keep], batch.label.cpu()[keep], values)


def _mean(name: str, clips: Tensor) -> Tensor:
    mean = clips.float().mean(1)
    return F.normalize(mean, dim=1) if name.endswith("_z") else mean


def _gather(parts: list[Features]) -> list[Features]:
    """Every rank's parts on every rank."""
    if not (dist.is_available() and dist.is_initialized()):
        return parts
    ranks: list[list[Features] | None] = [None] * dist.get_world_size()
    dist.all_gather_object(ranks, parts)
    return [part for own in ranks if own for part in own]


def _merge(parts: list[Features]) -> Features:
    if not parts:
        return Features(torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64), {})
    ids = torch.cat([part.sample_id for part in parts])
    first = torch.from_numpy(
        np.unique(ids.numpy(), return_index=True)[1]
    )  # sorted, the filled-up rows dropped
    values = {name: torch.cat([part[name] for part in parts]) for name in parts[0].values}
    return Features(ids, torch.cat([part.label for part in parts]), values).rows(first)
