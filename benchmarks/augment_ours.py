"""Our side of `augment.py`: the loader's graph, whole or up to some step."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from augment_clips import Setup
from numpy.typing import NDArray
from nvidia.dali import pipeline_def
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from coaug.pipelines import graph
from coaug.pipelines.sound import spectrogram


class Ours:
    """The graph, whole or up to some step. Nothing is prepared ahead: what training gains by overlap is left out."""

    def __init__(self, source: Any, batch: int, device: str, threads: int, part: str = "") -> None:
        common: dict[str, Any] = {
            "device": "cpu" if device == "cpu" else "gpu",
            "batch_size": batch,
            "num_threads": threads,
            "device_id": None if device == "cpu" else torch.cuda.current_device(),
            "prefetch_queue_depth": 1,  # or the next batch would be made while others are timed
        }
        made = partial_graph(source, part, **common) if part else None
        self.pipeline = made or graph.build(source, parallel=False, **common)
        self.names = graph.outputs(source.config)
        self.pipeline.build()

    def run(self) -> Any:
        """The next batch, left where it is."""
        return self.pipeline.run()

    def tensors(self) -> dict[str, Tensor]:
        """The next batch as the loader hands it out."""
        outputs = zip(self.names, self.run(), strict=True)
        return {name: from_dlpack(out.as_tensor()) for name, out in outputs}


class Replay:
    """Stands in for a source: samples that were planned before, without the steps that come after `part`."""

    def __init__(self, setup: Setup, steps: int, part: str) -> None:
        self.config, self.feeds, self.batch = setup.source.config, setup.source.feeds, setup.batch
        infos = [
            SimpleNamespace(iteration=s, idx_in_batch=i) for s in range(steps) for i in range(setup.batch)
        ]
        look = [feed.name for feed in self.feeds].index("look")
        self.samples = [setup.source(info) for info in infos]
        for sample in self.samples:
            sample[look][:, 8] *= part == "blur"
            if part == "resize":
                sample[look][:, 4:8] = [1, 1, 1, 0]

    def __call__(self, info: Any) -> tuple[NDArray[Any], ...]:
        """The sample at DALI's `SampleInfo`, over and over."""
        return self.samples[int(info.iteration * self.batch + info.idx_in_batch) % len(self.samples)]


@pipeline_def(enable_conditionals=True)  # type: ignore[untyped-decorator]
def partial_graph(source: Any, part: str, *, device: str) -> Any:
    """The real graph's steps, one after the other, up to `part`."""
    feed, config = graph._inputs(source, False), source.config
    if part == "feed":
        return feed["planes"].gpu() if device == "gpu" else feed["planes"]
    if part not in ("play", "spectrogram"):
        return graph._shown(feed, config, device)
    heard = [graph._played(feed, v, config.audio, device) for v in range(len(config.views))]
    if part == "play":
        return graph._stack(heard)
    return graph._stack([spectrogram(one, config.audio, device) for one in heard])
