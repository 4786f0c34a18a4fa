"""Small pictures of recordings, as an encoder is given them: the frame in the middle of a clip, its spectrogram."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ..pipelines.catalog import Catalog
from ..pipelines.config import DataConfig
from ..pipelines.loader import AVLoader
from .look import pixels

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Thumb:
    """frame (H, W, 3) uint8; spectrum (F, L) float32, low bands first. Either is None where there is no such stream."""

    frame: Image | None
    spectrum: NDArray[np.float32] | None


def thumbs(catalog: Catalog, rows: Sequence[int], data: DataConfig) -> dict[int, Thumb]:
    """Sample id -> thumb of the catalog's recordings at `rows`, those that can be read."""
    chosen = catalog.rows(sorted(set(rows)))
    with AVLoader(
        chosen,
        data.for_test(1),
        batch_size=min(len(chosen), 32),
        shuffle=False,
        drop_last=False,
        epochs=1,
        device="cpu",
    ) as loader:
        found = {}
        for batch in loader:
            for i, sample in enumerate(batch.sample_id.tolist()):
                if batch.valid[i]:
                    frame = None if batch.video is None else _middle(batch.video[i, 0], data)
                    sound = None if batch.audio is None else batch.audio[i, 0, 0].float().numpy()
                    found[sample] = Thumb(frame, sound)
    return found


def _middle(clip: torch.Tensor, data: DataConfig) -> Image:
    frame: Image = pixels(clip[:, clip.shape[1] // 2, None], data)[0]
    return frame
