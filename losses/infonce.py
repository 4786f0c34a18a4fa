"""Audio-visual InfoNCE over views (SvaCLR, Eq. 1, with the -log that it implies).

Views are stacked as (N, V, d). The denominator of the pair (audio of sample i in view p, video of sample i in view
q) holds that pair and every video of *other* samples in every view: V(N-1) negatives. The sample's own other views
are neither positive nor negative there. Video anchors are treated alike and both directions are averaged.
"""

from __future__ import annotations

from torch import Tensor

from ..kernels.soft_infonce import infonce as tiled


def infonce(z_audio: Tensor, z_video: Tensor, temperature: float, valid: Tensor | None = None) -> Tensor:
    """Mean over the valid samples and their V*V view pairs; 0 where fewer than two are valid.

    Args:
        z_audio, z_video: (N, V, d), L2-normalised projections.
        temperature: eta.
        valid: (N,) bool; samples that are False are neither anchors nor negatives. None: all are valid.

    Returns:
        A scalar in float32 or better; NaN where an embedding is not finite, for the training loop to report.
    """
    return tiled(z_audio, z_video, temperature, valid, check_finite=False)
