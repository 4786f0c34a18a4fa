"""Features of every block of an encoder, as AVID's Table 1 probes them."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from ..pipelines.batch import Batch


def pooled(encoders: Mapping[str, nn.Module], batch: Batch) -> dict[str, Tensor]:
    """`video_block1` (B, V, C) and so on, for encoders with a method `feature_maps` and the modalities of the batch.

    A block's output is reduced to its maximum over time, space or frequency, as the last one's is in AVID's networks.
    """
    found = {}
    for name, clips in (("video", batch.video), ("audio", batch.audio)):
        maps = getattr(encoders.get(name), "feature_maps", None)
        if clips is None or maps is None:
            continue
        for stage, values in maps(clips.flatten(0, 1)).items():
            found[f"{name}_{stage}"] = values.flatten(2).amax(2).unflatten(0, clips.shape[:2])
    return found
