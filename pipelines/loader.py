"""`AVLoader`: epochs of batches in somebody's training script, resumable at any step."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from ..config import build as build_config
from ..config import read
from .ban_list import BanList
from .bans import Bans
from .batch import Batch
from .catalog import Catalog
from .config import DataConfig
from .facts import facts, unpacked
from .graph import graph_codecs
from .order import ByShard
from .packed.jpegs import IMAGES, MJPEG
from .packed.shards import Shards
from .packed.store import Store
from .plan import epoch_order
from .recording import Recording
from .running import Running
from .schedule import Schedule
from .source import Source
from .tally import ErrorBudget, LoaderError, Tally

__all__ = ["AVLoader", "ErrorBudget", "LoaderError"]

AHEAD = 16  # a ban starts this many steps after the failure: more than the workers ever prepare in advance
TALLIED = ("error", "timing", "cost")  # facts that are counted, not handed out
log = logging.getLogger("coaug.loader")


class AVLoader:
    """Batches of co-augmented audio-visual clips; an iteration is one epoch from where the loader stands.

    A file that cannot be read costs its sample (`valid` False), is named in the log, and is not tried again: in this
    run from `AHEAD` steps later on, in later runs (by a list beside the catalog) until it changes.

    Args:
        catalog: a `Catalog`, or the path of one written by `coaug index`.
        config: what a clip is; or give the name of a `preset`, whose `data:` section is used.
        batch_size: samples in the *global* batch, over all ranks.
        split: keep only this split of the catalog (None: all).
        shuffle: a new order each epoch; off, catalog order.
        pool: packed shards that samples come from at a time, for storage that is read shard by shard; 0: all of them.
        cache: folder on a local disk for whole copies of remote shards, which are fetched a pool ahead and deleted
            again; None: only the parts that a clip needs are fetched.
        drop_last: leave out the last, incomplete batch; else it is filled with repeated rows whose `valid` is False.
        epochs: stop preparing batches after this many (None: never), for a single pass.
        rank, world_size: taken from torch.distributed where it is initialised.
        device: "cpu", or "cuda" for this process's current device.
        workers: source processes (None: one per core, at most 8); 0 reads in this process, which then also ends with a
            file that crashes or hangs native code.
        decode: where pictures are decoded: "graph", by DALI where it knows the codec, which on a GPU is NVDEC, and
            nvJPEG for packed MJPEG; "host", by FFmpeg in the source; "auto", whichever costs less: the graph with a
            GPU, else the host.
        deadline: seconds that one file may take; a worker process that does not heed it is ended after twice as many.
        budget: failures to live with.

    Raises:
        LoaderError: nothing to load, a batch that cannot be divided, or the error budget used up while iterating.
    """

    def __init__(
        self,
        catalog: str | Path | Catalog,
        config: DataConfig | None = None,
        *,
        preset: str | None = None,
        batch_size: int,
        seed: int = 0,
        split: str | None = None,
        shuffle: bool = True,
        pool: int = 0,
        cache: str | Path | None = None,
        drop_last: bool = True,
        epochs: int | None = None,
        rank: int | None = None,
        world_size: int | None = None,
        device: str = "cpu",
        workers: int | None = None,
        decode: str = "auto",
        deadline: float = 20.0,
        budget: ErrorBudget = ErrorBudget(),  # noqa: B008  # frozen
    ) -> None:
        together = dist.is_available() and dist.is_initialized()
        self.rank = (dist.get_rank() if together else 0) if rank is None else rank
        self.world_size = (dist.get_world_size() if together else 1) if world_size is None else world_size
        self.config = config or _preset(preset)
        whole = catalog if isinstance(catalog, Catalog) else Catalog.open(catalog)
        self.catalog = whole.where(
            split=split, modalities=self.config.modalities, min_seconds=self.config.needed_seconds
        )
        self.batch_size, self.seed, self.shuffle, self.epochs = batch_size, seed, shuffle, epochs
        self.device = device
        self.workers = min(os.cpu_count() or 1, 8) if workers is None else workers
        self._check(split, drop_last)
        if pool < 0 or (cache is not None and not pool):
            raise LoaderError(
                "a cache of whole shards needs a pool, such as pool=8: rows come from so many at a time"
            )
        if decode not in ("auto", "host", "graph"):
            raise LoaderError(f"decode is 'auto', 'host' or 'graph', not {decode!r}")
        self.steps = (
            len(self.catalog) // batch_size if drop_last else math.ceil(len(self.catalog) / batch_size)
        )
        self._ban_list = BanList(self.catalog.path)
        self._known = self._ban_list.read(self.catalog.ids)
        self._tally = Tally(budget, self._known.values())
        kind = "cpu" if device == "cpu" else "gpu"
        last = None if epochs is None else epochs * self.steps
        source = Source(
            self.catalog,
            self.config,
            Schedule(len(self.catalog), batch_size, self.steps, self.rank, self.world_size, last=last),
            Bans(dict.fromkeys(self._known, 0)),
            seed=seed,
            shuffle=shuffle,
            pool=pool,
            shards=Shards(Store(cache=None if cache is None else Path(cache), whole=cache is not None)),
            graph_codecs=graph_codecs(kind, decode, self.catalog.codecs(packed=True)),
            deadline=deadline,
        )
        self._recording = partial(_recording, self.catalog)
        self._running = Running(source, self._tally, self._recording, workers=self.workers, device=device)
        self._step = 0  # global step of the next batch handed out
        self.data_wait = 0.0
        log.info("%s", self.describe())

    @property
    def epoch(self) -> int:
        """The epoch of the next batch."""
        return self._step // self.steps

    def __len__(self) -> int:
        """Steps in an epoch, the same on every rank."""
        return self.steps

    def describe(self) -> str:
        """What is loaded and which way each codec goes."""
        routes = ", ".join(self._routes()) if "video" in self.config.modalities else ""
        left = ", ".join(f"{n} {reason}" for reason, n in self.catalog.excluded.items() if n)
        known = (
            f"{len(self._known)} that failed in earlier runs ({self._ban_list.path})" if self._known else ""
        )
        return f"{len(self.catalog)} recordings; decoding {routes or 'sound only'}" + "".join(
            [f"; left out: {left}"] * bool(left) + [f"; not tried again: {known}"] * bool(known)
        )

    def _routes(self) -> Iterator[str]:
        known, codecs = self._running.source.graph_codecs, self.catalog.codecs()
        if IMAGES in known:
            codecs[MJPEG] -= (images := self.catalog.codecs(packed=True)[MJPEG])
            yield f"packed {MJPEG} ({images}) as images in the graph"
        for codec, n in codecs.items():
            if n:
                yield f"{codec} ({n}) {'in the graph' if codec in known else 'on the host'}"

    def __iter__(self) -> Iterator[Batch]:
        """The rest of the current epoch."""
        epoch = self.epoch
        while self.epoch == epoch and epoch != self.epochs:
            yield self._next()
        if epoch != self.epochs:
            self._tally.report(epoch)

    def _next(self) -> Batch:
        start = time.perf_counter()
        self._prefetch()
        produced = self._running.batch(self._step)
        known = unpacked(_tensor(produced.pop("facts")).numpy(), facts(self.config))
        told = {name: known.pop(name) for name in TALLIED}
        batch = self._batch({name: torch.from_numpy(values) for name, values in known.items()}, produced)
        self.data_wait += time.perf_counter() - start
        self._count(told, batch)
        self._step += 1
        return batch

    def _prefetch(self) -> None:
        """Have the next shards fetched, where they are fetched whole."""
        source, store = self._running.source, self._running.source.shards.store
        if not (store.whole and source.pool):
            return
        epoch, step = divmod(self._step, self.steps)
        order = epoch_order(self.catalog, self.seed, epoch, source.pool)
        if isinstance(order, ByShard):
            position = step * self.batch_size
            soon = order.shards(position, 1) or order.at(epoch + 1).shards(0)
            store.prefetch([self.catalog.file_names[n] for n in order.shards(position) + soon])

    def _batch(self, known: Mapping[str, Tensor], produced: Mapping[str, Any]) -> Batch:
        tensors = {**known, **{name: _tensor(output) for name, output in produced.items()}}
        epoch, step = divmod(self._step, self.steps)
        absent = {name: None for name in ("video", "audio") if name not in tensors}
        moved = {
            name: t if self.device == "cpu" else t.cuda(non_blocking=True) for name, t in tensors.items()
        }
        return Batch(**moved, **absent, epoch=epoch, step=step)  # type: ignore[arg-type]

    def _count(self, told: Mapping[str, Any], batch: Batch) -> None:
        """Log and count what failed, and ban it; stop when the budget is used up."""
        errors = [text.decode(errors="replace") for text in told["error"].tolist()]
        ids = batch.sample_id.tolist()
        seconds, frames = told["timing"].sum(0).tolist(), told["cost"].sum(0).tolist()
        for row in self._tally.count(errors, seconds, frames):
            self._running.source.bans.add(ids[row], self._step + AHEAD)
            failed = self._recording(ids[row])
            self._ban_list.add(failed.id, failed.path, errors[row].removeprefix(f"{failed.name}: "))

    def stats(self) -> dict[str, float]:
        """Counts so far, seconds waited for data, frames decoded for each one shown, and the source's mean milliseconds
        a sample by stage."""
        return {**self._tally.stats(), "wait": self.data_wait}

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to hand out the very batches that would have come next. Plain numbers.

        Under torch.distributed all ranks must call it: they learn of each other's bans here, whether or not the
        run is ever interrupted.
        """
        self._share_bans()
        return {
            "step": self._step,
            "seed": self.seed,
            "batch_size": self.batch_size,
            "catalog": self.catalog.fingerprint,
            "bans": self._running.source.bans.entries(),
            "distrusted": sorted(self._running.source.distrusted),
            **self._tally.state_dict(),
        }

    def _share_bans(self) -> None:
        if self.world_size > 1 and dist.is_initialized():
            everyone: list[dict[int, int]] = [{}] * self.world_size
            dist.all_gather_object(everyone, self._running.source.bans.entries())
            for sample, step in sorted(item for bans in everyone for item in bans.items()):
                self._running.source.bans.add(sample, step)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Stand where `state` was taken. Raises LoaderError where the batches could not be the same."""
        mine = self.state_dict()
        changed = [key for key in ("seed", "batch_size", "catalog") if state[key] != mine[key]]
        if changed:
            raise LoaderError(f"the saved loader state is of another run: {', '.join(changed)} differ(s)")
        self.close()
        self._step = state["step"]
        self._tally.load_state_dict(state)
        bans = Bans({int(key): value for key, value in state["bans"].items()})
        running = self._running
        running.source = replace(running.source, bans=bans, distrusted=frozenset(state["distrusted"]))

    def close(self) -> None:
        """End the workers. The loader can be iterated again; it starts new ones."""
        self._running.stop()

    def __enter__(self) -> AVLoader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check(self, split: str | None, drop_last: bool) -> None:
        n, reasons = len(self.catalog), dict(self.catalog.excluded)
        if n == 0:
            raise LoaderError(
                f"no usable recording{f' in split {split!r}' if split else ''}; left out: {reasons}"
            )
        if not 0 <= self.rank < self.world_size:
            raise LoaderError(f"rank {self.rank} is not one of {self.world_size} processes")
        if self.batch_size < 1 or self.batch_size % self.world_size:
            raise LoaderError(
                f"the global batch of {self.batch_size} cannot be shared by {self.world_size} processes"
            )
        if drop_last and n < self.batch_size:
            raise LoaderError(
                f"{n} usable recordings do not fill one batch of {self.batch_size}: lower the batch size"
            )


def _preset(name: str | None) -> DataConfig:
    return build_config(DataConfig, read(name)["data"], "data.") if name else DataConfig()


def _recording(catalog: Catalog, sample_id: int) -> Recording:
    return catalog[int(np.flatnonzero(catalog.ids == sample_id)[0])]


def _tensor(output: Any) -> Tensor:
    """A DALI output as a torch tensor. The memory is the tensor's: DALI's executor makes each output anew."""
    return from_dlpack(output.as_tensor())
