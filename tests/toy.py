"""A method and a loader that are done in milliseconds, for tests of the engine.

Run as a script it is `coaug train` on them: `python tests/toy.py CONFIG.yaml --data x --out DIR`.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from coaug.config import STRICT
from coaug.models import get_method
from coaug.models.method import Method
from coaug.pipelines.batch import Batch

RECORDINGS = 40


class Toy(Method):
    """Linear encoders of two modalities under InfoNCE; `scale` is a parameter of the objective alone."""

    @dataclass(frozen=True)
    class Config:
        __pydantic_config__ = STRICT
        width: int = 8
        dropout: float = 0.0
        norm: bool = False

    def __init__(self, config: Toy.Config) -> None:
        super().__init__()
        norm = [nn.BatchNorm1d(config.width)] if config.norm else []
        self.video = nn.Sequential(nn.Linear(12, config.width), *norm, nn.Dropout(config.dropout))
        self.audio = nn.Sequential(nn.Linear(6, config.width), nn.Dropout(config.dropout))
        self.scale = nn.Parameter(torch.ones(()))
        self.unused = nn.Parameter(torch.ones(3))

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        assert batch.video is not None
        assert batch.audio is not None
        return {
            "v": self.video(batch.video.flatten(1)),
            "a": self.audio(batch.audio.flatten(1)),
            "id": batch.sample_id,
        }

    def objective(self, embeddings: Mapping[str, Tensor], valid: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        v, a = embeddings["v"][valid], embeddings["a"][valid]
        logits = self.scale * v @ a.T
        loss = nn.functional.cross_entropy(logits, torch.arange(len(logits)))
        return loss, {"mean_logit": logits.mean()}

    def features(self, batch: Batch) -> dict[str, Tensor]:
        return {}

    def encoders(self) -> dict[str, nn.Module]:
        return {"video": self.video, "audio": self.audio}


def toy_batch(ids: list[int], epoch: int = 0, step: int = 0, dtype: torch.dtype = torch.float32) -> Batch:
    """Rows that depend on nothing but their id and the epoch."""

    def draw(sample: int, *shape: int) -> Tensor:
        return torch.randn(
            *shape, generator=torch.Generator().manual_seed(1000 * epoch + sample), dtype=dtype
        )

    n, zeros = len(ids), torch.zeros(len(ids), 1, 2)
    return Batch(
        video=torch.stack([draw(i, 1, 3, 1, 2, 2) for i in ids]),
        audio=torch.stack([draw(i + 500, 1, 1, 2, 3) for i in ids]),
        video_pts=torch.zeros(n, 1, 1),
        audio_pts=zeros,
        speed=zeros,
        direction=zeros,
        sample_id=torch.tensor(ids),
        valid=torch.tensor([i % 7 != 3 for i in ids]),
        label=torch.zeros(n, dtype=torch.int64),
        epoch=epoch,
        step=step,
    )


class ToyLoader:
    """RECORDINGS samples in an order of each epoch's own; resumable, sliced by rank; can hurt at a given step."""

    def __init__(self, batch: int, rank: int = 0, world: int = 1) -> None:
        self._batch, self._rank, self._world, self._step = batch, rank, world, 0
        self.closed = False
        self.catalog = SimpleNamespace(ids=np.arange(RECORDINGS))

    def __len__(self) -> int:
        return RECORDINGS // self._batch

    def __iter__(self) -> Iterator[Batch]:
        epoch = self._step // len(self)
        while self._step // len(self) == epoch:
            order = torch.randperm(RECORDINGS, generator=torch.Generator().manual_seed(epoch)).tolist()
            step = self._step % len(self)
            ids, share = order[step * self._batch :][: self._batch], self._batch // self._world
            batch = toy_batch(ids[self._rank * share :][:share], epoch, step)
            self._hurt(batch)
            self._step += 1
            yield batch

    def _hurt(self, batch: Batch) -> None:
        for name in ("SIGKILL", "SIGTERM", "SIGINT"):
            if os.environ.get(f"TOY_{name}") == str(self._step) and self._rank == 0:
                os.kill(int(os.environ.get("TOY_VICTIM", os.getpid())), signal.Signals[name])
        if os.environ.get("TOY_NAN") == str(self._step) and self._rank == 0:
            assert batch.video is not None
            batch.video[1] = float("nan")

    def state_dict(self) -> dict[str, Any]:
        return {"step": self._step}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._step = state["step"]

    def stats(self) -> dict[str, float]:
        return {"wait": 0.0}

    def close(self) -> None:
        self.closed = True


def install(replace: Any = setattr) -> None:
    """Puts the toys where the training loop looks for the real things."""
    import coaug.engine.parts
    import coaug.engine.run_config
    import coaug.train

    for module in (coaug.engine.parts, coaug.engine.run_config):
        replace(module, "get_method", lambda name: Toy if name == "toy" else get_method(name))
    replace(
        coaug.train, "open_loader", lambda config, catalog, r: ToyLoader(config.train.batch, r.rank, r.world)
    )
    replace(coaug.train, "evaluate", lambda method, config, catalog, device: {"toy.figure": 1.0})
    replace(
        coaug.train,
        "Catalog",
        SimpleNamespace(open=lambda path: SimpleNamespace(path="x", fingerprint=Path(path).name)),
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    install()
    import coaug.train

    sys.exit(coaug.train.main(sys.argv[1:]))
