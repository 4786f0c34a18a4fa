"""A recording with time taken out: its mean picture and its mean spectrum."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from ..pipelines.batch import Batch

SIZE = 16


def still(batch: Batch) -> dict[str, Tensor]:
    """What is left of each clip without its course in time, for what the batch holds.

    Returns:
        `video_still` (B, V, 3·16·16): the picture averaged over frames, in RGB, reduced to 16 × 16 pixels.
        `audio_still` (B, V, F): the log-mel spectrum averaged over frames.
    """
    found = {}
    if batch.video is not None:
        mean = batch.video.float().mean(3)
        found["video_still"] = F.adaptive_avg_pool2d(mean.flatten(0, 1), SIZE).view(*mean.shape[:2], -1)
    if batch.audio is not None:
        found["audio_still"] = batch.audio.float().mean((2, 4))
    return found
