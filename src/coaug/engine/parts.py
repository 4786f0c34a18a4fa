"""A config's method, batches and evaluation."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from ..config import ConfigError
from ..models import get_method
from ..models.method import Method
from ..pipelines.batch import Batch
from ..pipelines.catalog import Catalog
from ..pipelines.loader import AVLoader
from .batchnorm import synchronise
from .distributed import Ranks
from .log import say
from .run_config import RunConfig, model_config


def build_method(
    config: RunConfig, device: torch.device, recordings: NDArray[np.int64] | None = None
) -> Method:
    """The method on its device, in the form it trains in; `recordings` are the sample ids it will be trained on."""
    method: Method = get_method(config.method)(model_config(config)).to(device)
    if recordings is not None:
        method.attach(torch.from_numpy(recordings.copy()), config.train.seed)
    if config.train.sync_batch_norm:
        synchronise(method, device)
    if config.train.compile:
        for encoder in method.encoders().values():
            encoder.compile()
    torch.backends.cudnn.benchmark = True  # shapes never change within a run
    return method


def open_loader(config: RunConfig, catalog: Catalog, ranks: Ranks) -> AVLoader:
    """The training batches of `config.train.split`. Raises ConfigError if the batch does not divide over the ranks."""
    options = config.train
    if options.batch % ranks.world:
        raise ConfigError(f"train.batch: {options.batch} rows do not divide over {ranks.world} processes")
    loader = AVLoader(
        catalog,
        config.data,
        batch_size=options.batch,
        seed=options.seed,
        split=options.split,
        rank=ranks.rank,
        world_size=ranks.world,
        device=ranks.device.type,
        workers=options.workers,
        pool=options.pool,
        cache=options.cache,
    )
    if ranks.first:
        say(loader.describe())
    return loader


def epochs(loader: AVLoader) -> Iterator[Batch]:
    """Batches of one epoch after the other, from where the loader stands."""
    while True:
        yield from loader


def clips_per_step(config: RunConfig) -> int:
    """Clips (a view of a sample, picture and sound) that one global step encodes."""
    return config.train.batch * len(config.data.views)


def evaluate(method: Method, config: RunConfig, catalog: Catalog, device: torch.device) -> dict[str, float]:
    """The figures of `config.eval`, with the network in evaluation mode. A collective."""
    from .. import eval as protocols

    method.eval()
    figures: dict[str, float] = protocols.evaluate(method, catalog, config, device)
    return figures
