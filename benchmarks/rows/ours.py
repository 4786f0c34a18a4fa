"""AVLoader, everything in the row's process; over several cores, its own worker processes."""

from __future__ import annotations

from typing import Any

import torch

from coaug.pipelines.catalog import Catalog
from coaug.pipelines.config import DataConfig
from coaug.pipelines.loader import AVLoader

from .finish import there
from .request import Request


class Loaded:
    """The next batch: the clips asked for are those that a shuffling loader of seed 0 draws."""

    settles = True  # DALI's threads prepare the next batch

    device = "cpu"

    def __init__(self, catalog: Catalog, config: DataConfig, batch: int, *, workers: int = 0) -> None:
        self.loader = AVLoader(catalog, config, batch_size=batch, workers=workers, device=self.device)
        self.batches = (ready for _ in iter(int, 1) for ready in self.loader)

    def __call__(self, batch: list[Request]) -> Any:
        ready = next(self.batches)
        if not ready.valid.all():
            raise RuntimeError(f"{self.loader.catalog}: a sample could not be read")
        return ready

    @property
    def decoded_per_shown(self) -> float:
        return self.loader.stats()["decoded_per_shown"]


class OnGpu(Loaded):
    """The same on a GPU; a batch counts when it is there."""

    device = "cuda"

    def __init__(self, *args: Any, **options: Any) -> None:
        there()
        super().__init__(*args, **options)

    def __call__(self, batch: list[Request]) -> Any:
        ready = super().__call__(batch)
        torch.cuda.synchronize()
        return ready
