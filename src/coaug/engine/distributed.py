"""Process group, and the few collectives a step needs. One process is a world of one: nothing is sent."""

from __future__ import annotations

import datetime
import gc
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..pipelines.memory import keep_memory

_BUCKET = 64 * 2**20  # bytes a collective carries: few calls, and the copy stays small


@dataclass(frozen=True)
class Ranks:
    """This process's place: its `rank` of `world` and its device."""

    rank: int
    world: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this process speaks and writes for all."""
        return self.rank == 0


@contextmanager
def session(minutes: float = 30.0) -> Iterator[Ranks]:
    """Joins the process group that torchrun describes (NCCL with a GPU, else gloo) and leaves it in order."""
    rank, world, local_rank = environment()
    device = _device(local_rank)
    if world > 1:
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=datetime.timedelta(minutes=minutes))
    yield Ranks(rank, world, device)
    if world > 1:  # not after an error: the others may stand in another collective
        gc.collect()
        dist.barrier()
        dist.destroy_process_group()


def environment() -> tuple[int, int, int]:
    """Rank, world size and rank on this machine, as torchrun sets them."""
    names = (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0))
    rank, world, local_rank = (int(os.environ.get(name, default)) for name, default in names)
    return rank, world, local_rank


def cpu_threads(processes: int) -> int:
    """Threads of each of `processes` on this machine's cores; one core each is left to the loader.

    Two compute threads that share their cores with loader workers wait for each other more than they compute.
    """
    return max(1, len(os.sched_getaffinity(0)) // processes - 1)


def share_threads() -> None:
    """Numba's threads are as many as torch's, from now on.

    Its first parallel call sets OpenMP's number, which is torch's, too, in the middle of a step. What torch computes
    depends on that in the last bits, and a resumed run would not be the one that was interrupted.
    """
    import numba

    count = torch.get_num_threads()
    numba.set_num_threads(min(count, numba.config.NUMBA_NUM_THREADS))  # starts them
    torch.set_num_threads(count)


def _device(local_rank: int) -> torch.device:
    if not torch.cuda.is_available():
        keep_memory()
        if "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(cpu_threads(int(os.environ.get("LOCAL_WORLD_SIZE", 1))))
        share_threads()
        return torch.device("cpu")
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)


def world_size() -> int:
    """Processes in the group; 1 without one."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """This process's rank; 0 without a group."""
    return dist.get_rank() if dist.is_initialized() else 0


def gather_rows(rows: Tensor) -> Tensor:
    """(b, ...) of every rank stacked in rank order to (world·b, ...); no gradient flows (see `gradcache`)."""
    if world_size() == 1:
        return rows
    sent = rows.contiguous().view(torch.uint8) if rows.dtype == torch.bool else rows.contiguous()
    out = sent.new_empty((world_size() * len(sent), *sent.shape[1:]))
    dist.all_gather_into_tensor(out, sent)
    return out.view(rows.dtype) if rows.dtype == torch.bool else out


def largest(value: int, device: torch.device) -> int:
    """The largest `value` of any rank; the same answer everywhere."""
    if world_size() == 1:
        return value
    seen = torch.tensor(value, device=device)
    dist.all_reduce(seen, dist.ReduceOp.MAX)
    return int(seen.item())


def total(value: Tensor) -> Tensor:
    """The sum over ranks, elementwise; the same everywhere."""
    if world_size() > 1:
        value = value.clone()
        dist.all_reduce(value)
    return value


def wait() -> None:
    """Until every rank is here."""
    if world_size() > 1:
        dist.barrier()


def gather_objects(value: Any) -> list[Any]:
    """`value` of every rank, in rank order."""
    if world_size() == 1:
        return [value]
    out: list[Any] = [None] * world_size()
    dist.all_gather_object(out, value)
    return out


@torch.no_grad()
def broadcast(module: nn.Module) -> None:
    """Rank 0's parameters and buffers, everywhere."""
    if world_size() > 1:
        _bucketed([*module.parameters(), *module.buffers()], lambda flat: dist.broadcast(flat, 0))


@torch.no_grad()
def average_gradients(parameters: Sequence[nn.Parameter], others: Iterable[Tensor] = ()) -> None:
    """The mean over ranks of every `.grad`, and of the tensors in `others` (running statistics), in place.

    A parameter without a gradient counts as zero where another rank has one, and keeps None where none has.
    """
    if world_size() == 1 or not parameters:
        return
    missing = [p for p in parameters if p.grad is None]
    have = torch.tensor([float(p.grad is not None) for p in parameters], device=parameters[0].device)
    for parameter in missing:
        parameter.grad = torch.zeros_like(parameter)
    gradients = [p.grad for p in parameters if p.grad is not None]
    _bucketed([*gradients, *others, have], lambda flat: dist.all_reduce(flat.div_(world_size())))
    if missing:
        used = {id(p) for p, share in zip(parameters, have.tolist(), strict=True) if share > 0}
        for parameter in missing:
            parameter.grad = parameter.grad if id(parameter) in used else None


def _bucketed(tensors: Sequence[Tensor], collective: Callable[[Tensor], Any]) -> None:
    """Runs an in-place collective over `tensors` copied into few flat buffers, and copies the results back."""
    for bucket in _buckets(tensors):
        flat = torch.cat([t.detach().reshape(-1) for t in bucket])
        collective(flat)
        pieces = torch.split(flat, [t.numel() for t in bucket])
        for tensor, piece in zip(bucket, pieces, strict=True):
            tensor.copy_(piece.view(tensor.shape))


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """`tensors` in groups of one dtype and at most about `_BUCKET` bytes, the same groups on every rank."""
    kinds: dict[torch.dtype, list[Tensor]] = defaultdict(list)
    for tensor in tensors:
        kinds[tensor.dtype].append(tensor)
    for members in kinds.values():
        bucket: list[Tensor] = []
        for tensor in members:
            if bucket and sum(t.nbytes for t in bucket) + tensor.nbytes > _BUCKET:
                yield bucket
                bucket = []
            bucket.append(tensor)
        yield bucket
