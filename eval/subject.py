"""What an evaluator is handed: a trained method, the recordings, and the features both yield."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ..models.method import Method
from ..pipelines.batch import Batch
from ..pipelines.catalog import Catalog
from ..pipelines.config import DataConfig
from ..pipelines.loader import AVLoader
from .features import Compute, Features, collect, evaluating, extract
from .still import still

Figure = tuple[str, float]
"""A flat key and its value: `retrieval.class.a2v.r1`, 0.85."""


class EvalError(ValueError):
    """An evaluation that cannot be done; the message says why and what to do."""


@dataclass(frozen=True)
class Subject:
    """One evaluation's method and data. Evaluators share what is computed here once.

    Attributes:
        method: evaluated with running batch-norm statistics, without gradients, under `autocast`.
        catalog: all recordings; `split` of them are tested, `train_split` is what probes are fitted on.
        data: the training data's config; its deterministic twin with `clips` moments of `crops` views is used.
        batch: recordings at a time, over all processes.
        seed: of what evaluators draw at random.
        fresh: builds the same method untrained, for baselines; the random state is `seed`'s.
    """

    method: Method
    catalog: Catalog
    data: DataConfig
    device: torch.device
    split: str | None = "test"
    train_split: str | None = "train"
    clips: int = 10
    crops: int = 1
    batch: int = 32
    workers: int | None = None
    autocast: AbstractContextManager[Any] | None = None
    seed: int = 0
    fresh: Callable[[], Method] | None = None

    @cached_property
    def test(self) -> Features:
        """Features of the tested recordings by the method's names, and `video_still`, `audio_still`."""
        return extract(self.method, self._batches(self.split), still, autocast=self.autocast)

    @cached_property
    def train(self) -> Features:
        """The same of the training split, which probes are fitted on; without stills."""
        return extract(self.method, self._batches(self.train_split), autocast=self.autocast)

    @cached_property
    def untrained(self) -> Method | None:
        """The method as it stood before training, in evaluation mode; the same in every run of a config."""
        if self.fresh is None:
            return None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return self.fresh().to(self.device).eval()

    def more(self, split: str | None, compute: Compute) -> Features:
        """What `compute` makes of the recordings of a split, as `features.collect`; another pass over the data."""

        def under(batch: Batch) -> Mapping[str, Tensor]:
            with self.autocast or nullcontext():
                return compute(batch)

        with evaluating(self.method):
            return collect(self._batches(split), under)

    def stills(self, limit: int) -> Features:
        """`video_still`, `audio_still` of at most `limit` recordings of the training split, drawn at random."""
        steps = -(-min(limit, self.size(self.train_split)) // self._batch(self.train_split))
        return collect(islice(self._batches(self.train_split, shuffle=True), steps), still)

    def size(self, split: str | None) -> int:
        """Usable recordings in a split."""
        return len(self.catalog.where(split, self.data.modalities, self._shown.needed_seconds))

    @property
    def _shown(self) -> DataConfig:
        return self.data.for_test(self.clips, self.crops)

    def _batches(self, split: str | None, *, shuffle: bool = False) -> Iterator[Batch]:
        if not self.size(split):
            raise EvalError(f"{self.catalog.path}: no usable recording in split {split!r}")
        loader = AVLoader(
            self.catalog,
            self._shown,
            batch_size=self._batch(split),
            seed=self.seed,
            split=split,
            shuffle=shuffle,
            drop_last=False,
            epochs=1,
            device=self.device.type,
            workers=self.workers,
        )
        with loader:
            yield from loader

    def _batch(self, split: str | None) -> int:
        """The batch, no larger than the split needs, as a multiple of the number of processes."""
        world = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
        return -(-min(self.batch, self.size(split)) // world) * world
