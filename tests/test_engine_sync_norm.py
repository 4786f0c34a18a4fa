"""Synchronised batch norm on CPUs is torch's own over the whole batch, however its rows lie on the processes (gloo)."""

from __future__ import annotations

import copy
import multiprocessing
import os
from collections.abc import Callable, Iterator
from itertools import accumulate
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from toy import Toy, toy_batch

from coaug.engine import distributed, gradcache
from coaug.engine.batchnorm import running_statistics, synchronise
from coaug.pipelines.batch import Batch

ROWS = 8
SHARES = {1: [(8,)], 2: [(4, 4), (5, 3), (0, 8)], 4: [(2, 2, 2, 2), (3, 1, 0, 4)]}
CPU = torch.device("cpu")


def flat() -> nn.Module:
    return nn.Sequential(nn.Linear(12, 5), nn.BatchNorm1d(5, momentum=None), nn.ReLU(inplace=True))


def pictures() -> nn.Module:
    norm = nn.BatchNorm2d(4, momentum=0.3, eps=1e-3)
    layers = nn.Sequential(nn.Conv2d(3, 4, 3), norm, nn.ReLU(inplace=True), nn.Conv2d(4, 6, 1))
    return nn.Sequential(layers, nn.BatchNorm2d(6, affine=False), nn.Flatten(2), nn.BatchNorm1d(6))


def films() -> nn.Module:
    return nn.Sequential(nn.Conv3d(2, 4, 2), nn.BatchNorm3d(4, track_running_stats=False), nn.ReLU())


NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "1d": (flat, (12,)),
    "2d": (pictures, (3, 6, 5)),
    "3d": (films, (2, 3, 4, 4)),
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def built(kind: str, dtype: torch.dtype = torch.float64) -> nn.Module:
    torch.manual_seed(1)
    net = NETS[kind][0]().to(dtype).train()
    for parameter in net.parameters():  # weights and biases of norms, too
        nn.init.normal_(parameter)
    return net


def inputs(kind: str, dtype: torch.dtype = torch.float64) -> Tensor:
    draw = torch.Generator().manual_seed(2)
    return 3 + torch.randn(ROWS, *NETS[kind][1], generator=draw, dtype=torch.float32).to(dtype)


def loss_of(y: Tensor, first: int) -> Tensor:
    """A sum over rows, each of its own form, so that it may be cut anywhere."""
    weight = torch.arange(first + 1, first + 1 + len(y), dtype=y.dtype)
    return (y.flatten(1).sin().sum(1) * weight).sum()


def step(net: nn.Module, x: Tensor, first: int = 0) -> tuple[Tensor, Tensor]:
    """Two passes, so that running statistics move twice; outputs and the inputs' gradient of the second."""
    net(x)
    x = x.clone().requires_grad_()
    y = net(x)
    loss_of(y, first).backward()
    assert x.grad is not None
    return y.detach(), x.grad


def _rank(rank: int, folder: str, worlds: tuple[int, ...]) -> None:
    torch.set_num_threads(1)
    for world in worlds:
        if rank < world:
            alone = {parts: _alone(world, parts) for parts in (1, 2)}
            store = f"file://{folder}/store-{world}"
            dist.init_process_group("gloo", init_method=store, rank=rank, world_size=world)
            for shares in SHARES[world]:
                for kind in NETS:
                    _check_net(kind, rank, shares)
            _check_large_means(rank, world)
            _check_autocast(rank, world)
            _check_gradcache(rank, world, alone)
            _check_lonely(rank)
            dist.barrier()
            dist.destroy_process_group()


def _slice(rank: int, shares: tuple[int, ...]) -> slice:
    ends = list(accumulate(shares))
    return slice(ends[rank] - shares[rank], ends[rank])


def _check_net(kind: str, rank: int, shares: tuple[int, ...]) -> None:
    plain, rows = built(kind), _slice(rank, shares)
    synced = synchronise(copy.deepcopy(plain), CPU)
    y, dx = step(plain, inputs(kind))
    own_y, own_dx = step(synced, inputs(kind)[rows], rows.start)
    close(own_y, y[rows])
    close(own_dx, dx[rows])
    for own, whole in zip(synced.parameters(), plain.parameters(), strict=True):
        assert own.grad is not None
        assert whole.grad is not None
        dist.all_reduce(own.grad)
        close(own.grad, whole.grad)
    for own, whole in zip(synced.buffers(), plain.buffers(), strict=True):
        close(own, whole)


def _check_large_means(rank: int, world: int) -> None:
    """float32 values whose squares drown their variance."""
    draw = torch.Generator().manual_seed(3)
    x = 1e4 + torch.randn(ROWS, 2, 16, generator=draw)
    norm = nn.BatchNorm1d(2, momentum=1.0)
    exact = copy.deepcopy(norm).double()
    rows = x.chunk(world)[rank]
    y = synchronise(norm, CPU)(rows)
    torch.testing.assert_close(y.double(), exact(x.double()).chunk(world)[rank], rtol=0, atol=2e-3)
    torch.testing.assert_close(norm.running_var, exact.running_var.float(), rtol=1e-3, atol=0)


def _check_autocast(rank: int, world: int) -> None:
    plain = built("2d", torch.float32)
    synced = synchronise(copy.deepcopy(plain), CPU)
    x = inputs("2d", torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, own = plain(x), synced(x.chunk(world)[rank])
    assert own.dtype == y.dtype == torch.bfloat16
    torch.testing.assert_close(own, y.chunk(world)[rank], rtol=2e-2, atol=2e-2)
    loss_of(own.float(), 0).backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in synced.parameters())


def gradcached(method: Toy, batch: Batch, parts: int) -> tuple[Tensor, Toy]:
    """The loss of a step, and the method with its gradients and running statistics."""
    loss = gradcache.backward(method, batch, micro_batches=parts).loss
    distributed.average_gradients(list(method.parameters()))
    return loss, method


def _alone(world: int, parts: int) -> tuple[Tensor, Toy]:
    """One process, whose micro-batch p is that of all ranks together."""
    share, size = ROWS // world, ROWS // world // parts
    order = [r * share + p * size + i for p in range(parts) for r in range(world) for i in range(size)]
    batch = toy_batch(list(range(ROWS)), dtype=torch.float64)
    return gradcached(
        toy(), Batch(**{k: v[order] if isinstance(v, Tensor) else v for k, v in vars(batch).items()}), parts
    )


def _check_gradcache(rank: int, world: int, expected: dict[int, tuple[Tensor, Toy]]) -> None:
    rows = toy_batch(list(range(ROWS)), dtype=torch.float64)[rank * ROWS // world :][: ROWS // world]
    for parts, (whole_loss, whole) in expected.items():
        synced = toy()
        synchronise(synced, CPU)
        loss, mine = gradcached(synced, rows, parts)
        close(loss, whole_loss)
        for one, other in zip(mine.parameters(), whole.parameters(), strict=True):
            assert (one.grad is None) == (other.grad is None)
            if one.grad is not None and other.grad is not None:
                close(one.grad, other.grad)
        for one, other in zip(running_statistics(mine), running_statistics(whole), strict=True):
            close(one, other)
        assert mine.video[1].num_batches_tracked.tolist() == 1


def _check_lonely(rank: int) -> None:
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        synchronise(nn.BatchNorm1d(3), CPU)(torch.ones(int(rank == 0), 3))


def toy() -> Toy:
    torch.manual_seed(4)
    return Toy(Toy.Config(norm=True)).double()


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


def test_one_two_and_four_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    search = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(search))
    multiprocessing.set_forkserver_preload(["toy", "coaug.engine.gradcache"])  # import once
    mp.start_processes(_rank, (str(tmp_path), (1, 2, 4)), nprocs=4, start_method="forkserver")


@pytest.mark.parametrize("kind", NETS)
def test_state_parameters_and_evaluation_stay(kind: str) -> None:
    plain = built(kind)
    before = dict(plain.named_parameters())
    synced = synchronise(copy.deepcopy(plain), CPU)
    assert list(synced.state_dict()) == list(plain.state_dict())
    synced.load_state_dict(plain.state_dict())
    assert torch.equal(synced.eval()(inputs(kind)), plain.eval()(inputs(kind)))
    assert synchronise(plain, CPU) is plain
    assert all(now is before[name] for name, now in plain.named_parameters())


def test_a_norm_of_one_kind_still_refuses_the_others_inputs() -> None:
    with pytest.raises(ValueError, match="expected 4D input"):
        synchronise(nn.BatchNorm2d(3), CPU)(torch.ones(2, 3))
