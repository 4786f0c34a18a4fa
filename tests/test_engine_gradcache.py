"""Gradients do not depend on how the global batch is cut: over processes (gloo) and micro-batches."""

from __future__ import annotations

import functools
import multiprocessing
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from toy import Toy, toy_batch

from coaug.engine import distributed, gradcache
from coaug.engine.batchnorm import running_statistics
from coaug.models.method import Method
from coaug.models.svaclr import SvaCLR
from coaug.pipelines.batch import Batch

Result = tuple[float, dict[str, Tensor | None]]  # the loss, and gradients by parameter
THIN = {"width": 4, "video_blocks": (1, 1, 1, 1), "audio_blocks": (1, 1, 1, 1), "hidden": 8, "projection": 6}


class Apart(Toy):
    """Terms in one sample each, and a parameter of the objective."""

    separable = True

    def objective(self, embeddings, valid):  # type: ignore[no-untyped-def]
        agree = (embeddings["v"] * embeddings["a"]).sum(1)
        terms = ((self.scale * agree - embeddings["id"]) ** 2).masked_fill(~valid, 0)
        count = valid.sum().clamp(min=1)
        return terms.sum() / count, {"agree": agree.masked_fill(~valid, 0).sum() / count}


METHODS = {
    "apart": lambda: Apart(Toy.Config()),
    "toy": lambda: Toy(Toy.Config()),
    "soft": lambda: SvaCLR(SvaCLR.Config(**THIN, mapping="linear", temperature=0.5)),
    "all pairs": lambda: SvaCLR(SvaCLR.Config(**THIN, pairs="all", clamp=None, temperature=0.5)),
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny tensors: threads would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def built(kind: str) -> Method:
    torch.manual_seed(0)
    method = METHODS[kind]().double().train()
    for module in method.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()  # frozen: batch statistics would couple the rows of a micro-batch
    return method


def whole_batch(kind: str) -> Batch:
    batch = toy_batch(list(range(8)), dtype=torch.float64)
    if kind in ("toy", "apart"):
        return batch
    draw = torch.Generator().manual_seed(5)
    video = torch.randn(8, 2, 3, 2, 16, 16, generator=draw, dtype=torch.float64)
    audio = torch.randn(8, 2, 1, 24, 24, generator=draw, dtype=torch.float64)
    return Batch(**{**vars(batch), "video": video, "audio": audio})


def gradients(method: Method, batch: Batch, micro_batches: int) -> Result:
    loss = gradcache.backward(method, batch, micro_batches=micro_batches).loss
    distributed.average_gradients(list(method.parameters()))
    return loss.item(), {name: p.grad for name, p in method.named_parameters()}


@functools.cache
def plain(kind: str) -> Result:
    """What autograd makes of one big batch."""
    method, batch = built(kind), whole_batch(kind)
    loss, _ = method.objective(method.embed(batch), batch.valid)
    loss.backward()
    return loss.item(), {name: p.grad for name, p in method.named_parameters()}


def _rank(rank: int, folder: str, worlds: tuple[int, ...]) -> None:
    torch.set_num_threads(1)
    for world in worlds:
        if rank < world:
            store = f"file://{folder}/store-{world}"
            dist.init_process_group("gloo", init_method=store, rank=rank, world_size=world)
            _check(rank, world)
            dist.barrier()
            dist.destroy_process_group()


def _check(rank: int, world: int) -> None:
    for kind in ("toy", "apart", "soft"):
        share = 8 // world
        rows = whole_batch(kind)[rank * share : (rank + 1) * share]
        for micro_batches in (1, 2, 4):
            assert_same(gradients(built(kind), rows, micro_batches), plain(kind))
    _check_global(rank, world)
    _check_collectives(rank, world)


def _check_global(rank: int, world: int) -> None:
    """What comes back is of the global batch, also where one rank has nothing valid."""
    share, batch, method = 8 // world, whole_batch("apart"), built("apart")
    batch.valid[:share] = False
    result = gradcache.backward(method, batch[rank * share : (rank + 1) * share])
    expected = method.embed(batch)
    torch.testing.assert_close(result.embeddings["v"], expected["v"].detach(), rtol=0, atol=1e-12)
    agree = (expected["v"] * expected["a"]).sum(1)[batch.valid].mean()
    assert result.figures["agree"].item() == pytest.approx(agree.item(), abs=1e-12)
    assert torch.equal(result.valid, batch.valid)


def _check_collectives(rank: int, world: int) -> None:
    method = built("toy")
    with torch.no_grad():
        method.scale.fill_(1 + rank)
    distributed.broadcast(method)
    assert method.scale.item() == 1
    assert distributed.largest(rank, torch.device("cpu")) == world - 1
    assert distributed.gather_objects(rank) == list(range(world))
    some, none, statistic = (
        nn.Parameter(torch.ones(3)),
        nn.Parameter(torch.ones(2)),
        torch.tensor([float(rank)]),
    )
    some.grad = torch.full((3,), 8.0) if rank == 0 else None
    distributed.average_gradients([some, none], [statistic])
    assert some.grad.tolist() == [8 / world] * 3  # a missing gradient counts as zero
    assert none.grad is None
    assert statistic.item() == sum(range(world)) / world


def assert_same(found: Result, expected: Result) -> None:
    assert found[0] == pytest.approx(expected[0], abs=1e-12)
    for name, gradient in expected[1].items():
        if gradient is None:
            assert found[1][name] is None
        else:
            torch.testing.assert_close(found[1][name], gradient, rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", METHODS)
@pytest.mark.parametrize("micro_batches", [1, 2, 3, 4, 8])
def test_one_process(kind: str, micro_batches: int) -> None:
    expected = plain(kind)
    assert (
        max(g.abs().max().item() for g in expected[1].values() if g is not None) > 1e-3
    )  # not a test of zeros
    assert_same(gradients(built(kind), whole_batch(kind), micro_batches), expected)


def test_two_and_four_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    )
    multiprocessing.set_forkserver_preload(
        ["toy", "coaug.engine.gradcache", "coaug.models.svaclr"]
    )  # import once
    mp.start_processes(_rank, (str(tmp_path), (2, 4)), nprocs=4, start_method="forkserver")


def test_what_the_memory_sees_is_the_global_batch() -> None:
    method, batch = built("apart"), whole_batch("apart")
    result = gradcache.backward(method, batch, micro_batches=4)
    expected = method.embed(batch)
    assert result.embeddings.keys() == expected.keys()
    for name, rows in expected.items():
        torch.testing.assert_close(result.embeddings[name], rows.detach(), rtol=0, atol=1e-12)
        assert not result.embeddings[name].requires_grad
    assert torch.equal(result.valid, batch.valid)
    agree = (expected["v"] * expected["a"]).sum(1)[batch.valid].mean()
    assert result.figures["agree"].item() == pytest.approx(agree.item(), abs=1e-12)


def test_invalid_rows_take_no_part() -> None:
    method, batch = built("toy"), whole_batch("toy")
    assert not batch.valid.all()
    expected = gradients(method, batch, 2)
    batch.video[~batch.valid] = 1e6
    again = built("toy")
    assert_same(gradients(again, batch, 2), expected)


def test_dropout_draws_the_same_in_both_passes() -> None:
    batch = toy_batch(list(range(8)), dtype=torch.float64)
    method = Toy(Toy.Config(dropout=0.5)).double()
    torch.manual_seed(3)
    found = gradients(method, batch, 2)[1]["video.0.weight"]
    method.zero_grad()
    torch.manual_seed(3)
    halves = [method.embed(batch[:4]), method.embed(batch[4:])]  # the same draws, with one graph over all
    rows = {name: torch.cat([half[name] for half in halves]) for name in halves[0]}
    method.objective(rows, batch.valid)[0].backward()
    torch.testing.assert_close(found, method.video[0].weight.grad, rtol=0, atol=1e-12)


@pytest.mark.parametrize("micro_batches", [1, 2, 4])
def test_running_statistics_move_once_a_step(micro_batches: int) -> None:
    method = Toy(Toy.Config(norm=True)).double()
    batch = toy_batch(list(range(8)), dtype=torch.float64)
    with torch.no_grad():
        parts = method.video[0](batch.video.flatten(1)).chunk(micro_batches)
    gradcache.backward(method, batch, micro_batches=micro_batches)
    mean, variance = running_statistics(method)
    expected_mean = 0.1 * torch.stack([part.mean(0) for part in parts]).mean(0)
    expected_variance = 0.9 + 0.1 * torch.stack([part.var(0) for part in parts]).mean(0)
    torch.testing.assert_close(mean, expected_mean, rtol=0, atol=1e-12)
    torch.testing.assert_close(variance, expected_variance, rtol=0, atol=1e-12)
    assert method.video[1].num_batches_tracked.item() == 1


def test_random_state_goes_on_after_a_step() -> None:
    method, states = Toy(Toy.Config(dropout=0.5)), []
    for micro_batches in (1, 4):
        torch.manual_seed(1)
        gradcache.backward(method, toy_batch(list(range(8))), micro_batches=micro_batches)
        states.append(torch.rand(()).item())
    torch.manual_seed(1)
    assert torch.rand(()).item() not in states


def test_embeddings_of_bf16_reach_the_objective_as_fp32() -> None:
    seen: list[torch.dtype] = []

    class Watching(Toy):
        def objective(self, embeddings, valid):  # type: ignore[no-untyped-def]
            seen.extend(embeddings[name].dtype for name in ("v", "a"))
            return super().objective(embeddings, valid)

    method = Watching(Toy.Config())
    cast = torch.autocast("cpu", dtype=torch.bfloat16)
    gradcache.backward(method, toy_batch(list(range(8))), micro_batches=2, autocast=cast)
    assert seen == [torch.float32, torch.float32]
    assert method.video[0].weight.grad.dtype == torch.float32
