"""What methods of one encoder and one projector a modality have in common: how clips pass through them."""

from __future__ import annotations

from torch import Tensor, nn

from ..config import ConfigError
from ..kernels.cross_affinity import precise
from ..pipelines.batch import Batch
from .heads import unit
from .method import Method


class TwoStreams(Method):
    """y = encoder(x) and z = projector(y) / |projector(y)|, for `video` and `audio`."""

    encoder: nn.ModuleDict
    projector: nn.ModuleDict

    def features(self, batch: Batch) -> dict[str, Tensor]:
        """z as `video_z`, `audio_z`; y as `video_pool`, `audio_pool`; for what the batch holds."""
        found = {}
        for name, clips in (("video", batch.video), ("audio", batch.audio)):
            if clips is not None:
                found[f"{name}_pool"], found[f"{name}_z"] = self.encode(name, clips)
        return found

    def encoders(self) -> dict[str, nn.Module]:
        """`video` and `audio`, without projectors."""
        return dict(self.encoder.items())

    def encode(self, name: str, clips: Tensor | None) -> tuple[Tensor, Tensor]:
        """All views in one call: (B, V, ...) -> y (B, V, d), and z (B, V, k) of unit length, in float32 or better.

        Raises:
            ConfigError: there are no such clips.
        """
        if clips is None:
            raise ConfigError(
                f"data.modalities: this method compares video with audio, but {name!r} is missing"
            )
        y: Tensor = self.encoder[name](clips.flatten(0, 1))
        z = unit(self.projector[name](y))
        views = clips.shape[:2]
        return precise(y).view(*views, -1), z.view(*views, -1)
