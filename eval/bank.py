"""A method's memory with the classes of its recordings, for whoever measures it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ..models.memory import Memory
from ..models.method import Method
from ..pipelines.catalog import Catalog


@dataclass(frozen=True)
class Bank:
    """N remembered recordings; everything on the CPU.

    Shapes: ids (N,) int64; label (N,) int64, -1 where unknown; video and audio (N, d) float32 of unit length.
    """

    ids: Tensor
    label: Tensor
    video: Tensor
    audio: Tensor

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, index: Tensor) -> Bank:
        """The recordings picked by a mask or by row numbers."""
        return Bank(self.ids[index], self.label[index], self.video[index], self.audio[index])

    def __repr__(self) -> str:
        return f"Bank({len(self)} recordings: video {self.video.shape[1]}, audio {self.audio.shape[1]})"


def bank_of(method: Method, catalog: Catalog) -> Bank | None:
    """The memory of a method that has one, as `method.memory`; None of another one (all ranks)."""
    memory: Memory | None = getattr(method, "memory", None)
    if memory is None:
        return None
    ids = memory.ids.cpu()
    video, audio = (F.normalize(memory[name].whole().cpu().float(), dim=1) for name in ("video", "audio"))
    return Bank(ids, labels_of(ids, catalog), video, audio)


def labels_of(ids: Tensor, catalog: Catalog) -> Tensor:
    """(N,) class of every sample id, -1 of those that are not in the catalog or not known there."""
    places = places_of(ids, catalog)
    return torch.from_numpy(np.append(catalog.labels, -1)[places])


def places_of(ids: Tensor, catalog: Catalog) -> NDArray[np.int64]:
    """(N,) row of every sample id in the catalog, -1 where it is not."""
    order = np.append(np.argsort(catalog.ids), -1)
    known, wanted = np.append(catalog.ids, -1)[order], ids.numpy()
    at = np.searchsorted(known[:-1], wanted)
    return np.where(known[at] == wanted, order[at], -1)
