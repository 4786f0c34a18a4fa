"""One run, divided among 1, 2 and 4 processes (gloo): the same memory, positives, losses and weights."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from avid_thin import RECORDINGS, clips, thin
from torch import Tensor

from coaug.engine import distributed, gradcache
from coaug.engine.batchnorm import running_statistics, synchronise
from coaug.models.cma import CMA
from coaug.models.rows import Rows, own_span

STEPS, BATCH, PER_EPOCH = 20, 8, 5
OPTIONS: dict[str, Any] = {
    "positives": {"found": 5, "drawn": 3, "first_epoch": 1, "every": 2},
    "negatives_within": 7,
    "partition": "per_task",
}
Trained = dict[str, Any]


def trained(placement: str) -> Trained:
    """Twenty steps in float64, with batch norm over all ranks; positives from the second epoch on."""
    rank, share = distributed.rank(), BATCH // distributed.world_size()
    method = thin("cma", **OPTIONS, memory={"placement": placement}).double()
    synchronise(method, torch.device("cpu"))
    optimizer, losses = torch.optim.SGD(method.parameters(), 0.05), []
    for step in range(STEPS):
        epoch, within = divmod(step, PER_EPOCH)
        order = torch.randperm(RECORDINGS, generator=torch.Generator().manual_seed(epoch)).tolist()
        ids = order[within * BATCH :][:BATCH]
        batch = clips(ids[rank * share :][:share], epoch, dtype=torch.float64)
        method.train().before_step(step, PER_EPOCH)
        result = gradcache.backward(method, batch)
        distributed.average_gradients(list(method.parameters()), running_statistics(method))
        optimizer.step()
        optimizer.zero_grad()
        method.after_step(result.embeddings, result.valid)
        losses.append({"loss": float(result.loss), **{k: float(v) for k, v in result.figures.items()}})
    assert isinstance(method, CMA)
    return {"losses": losses, "weights": method.state_dict(), **method.memory_state()}


def _rank(rank: int, folder: str, worlds: tuple[int, ...]) -> None:
    torch.set_num_threads(1)
    for world in worlds:
        if rank < world:
            store = f"file://{folder}/store-{world}"
            dist.init_process_group("gloo", init_method=store, rank=rank, world_size=world)
            for placement in ("replicated", "sharded"):
                found = trained(placement)
                if rank == 0:
                    torch.save(found, f"{folder}/{world}-{placement}.pt")
            _check_rows(rank, world)
            dist.barrier()
            dist.destroy_process_group()


def _check_rows(rank: int, world: int) -> None:
    """A table in parts hands out what the whole one does: also where a rank asks for nothing, or has nothing."""
    for count in (3, 50):
        for dtype in (torch.float32, torch.float16, torch.int32):
            table = torch.arange(count * 3).view(count, 3).to(dtype)
            first, last = own_span(count)
            parts = Rows.of_parts(count, table[first:last].clone(), "sharded")
            assert parts.sharded and len(parts.own) == last - first
            draw = torch.Generator().manual_seed(rank)
            wanted = torch.randint(0, count, (0 if rank == 1 else 20, 4), generator=draw)
            assert torch.equal(parts.take(wanted), table[wanted])
            assert torch.equal(parts.whole(), table)
            assert torch.equal(parts.saved(), table if rank == 0 else table[:0])
            assert torch.equal(Rows.of_parts(count, table[first:last].clone(), "replicated").own, table)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of what worlds of two and four trained."""
    folder, before = tmp_path_factory.mktemp("worlds"), dict(os.environ)
    os.environ["OMP_NUM_THREADS"] = os.environ["NUMBA_NUM_THREADS"] = "1"
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), before.get("PYTHONPATH", "")])
    try:
        multiprocessing.set_forkserver_preload(["avid_thin", "coaug.engine.gradcache"])  # import once
        mp.start_processes(_rank, (str(folder), (2, 4)), nprocs=4, start_method="forkserver")
    finally:
        os.environ.clear()
        os.environ.update(before)
    return folder


@pytest.fixture(scope="module")
def alone() -> Trained:
    """What one process trains."""
    return trained("replicated")


@pytest.mark.parametrize("placement", ["replicated", "sharded"])
@pytest.mark.parametrize("world", [2, 4])
def test_the_same_whatever_the_world(runs: Path, alone: Trained, world: int, placement: str) -> None:
    found = torch.load(runs / f"{world}-{placement}.pt")
    assert len(alone["losses"][-1]) == 5 and len(alone["losses"][0]) == 3
    for ours, theirs in zip(found["losses"], alone["losses"], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)  # rows are rounded to float32 twenty times
    assert found["partition"] == pytest.approx(alone["partition"], rel=1e-6)
    assert torch.equal(found["positives"], alone["positives"])
    assert torch.equal(found["ids"], alone["ids"])
    near(found["video"], alone["video"])
    near(found["audio"], alone["audio"])
    for name, value in alone["weights"].items():
        near(found["weights"][name], value)


def near(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_twenty_steps_change_much(alone: Trained) -> None:
    """So that equality says something."""
    fresh = thin("cma", **OPTIONS).memory
    assert fresh is not None
    for name in ("video", "audio"):
        moved = (alone[name] - fresh[name].own).norm(dim=1)
        assert float(moved.median()) > 0.5
    assert len(alone["positives"].unique()) > 10
