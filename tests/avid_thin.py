"""AVID in networks that are done in milliseconds, on clips drawn from their ids."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from toy import toy_batch

from coaug.config import build
from coaug.models import get_method
from coaug.models.avid import Avid
from coaug.pipelines.batch import Batch

THIN: dict[str, Any] = {"width": 2, "head": [8, 8, 6], "negatives": 16, "temperature": 0.2}
RECORDINGS = 40


def thin(name: str = "avid", *, recordings: Tensor | None = None, seed: int = 0, **options: Any) -> Avid:
    """A method with a memory of `recordings` (default: 0 ... 39)."""
    torch.manual_seed(0)
    cls = get_method(name)
    method: Avid = cls(build(cls.Config, THIN | options))
    method.attach(torch.arange(RECORDINGS) if recordings is None else recordings, seed)
    return method


def clips(ids: list[int], epoch: int = 0, views: int = 1, dtype: torch.dtype = torch.float32) -> Batch:
    """A batch whose rows depend on nothing but id and epoch; every seventh is not valid."""

    def draw(sample: int, *shape: int) -> Tensor:
        generator = torch.Generator().manual_seed(1000 * epoch + sample)
        return torch.randn(*shape, generator=generator, dtype=dtype)

    video = torch.stack([draw(i, views, 3, 2, 16, 16) for i in ids])
    audio = torch.stack([draw(i + 500, views, 1, 16, 16) for i in ids])
    return Batch(**{**vars(toy_batch(ids, epoch)), "video": video, "audio": audio})
