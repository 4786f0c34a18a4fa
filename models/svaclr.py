"""SvaCLR (SpeedAug): audio-visual contrastive learning with speed co-augmentation, and its InfoNCE baseline.

Views come from the loader: view 0 as recorded, the others sped up, audio and video each at a speed of its own.
An encoder per modality sees them all, a projector follows each, and the loss compares audio with video:
y = encoder(x), z = projector(y) / |projector(y)| (`two_streams.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from ..config import STRICT
from ..losses.infonce import infonce
from ..losses.soft_infonce import Mapping, Pairs, SoftInfoNCE
from ..pipelines.batch import Batch
from .heads import projector
from .method import Embeddings
from .r2plus1d import Mid, R2Plus1d
from .resnet_audio import AudioResNet
from .two_streams import TwoStreams

Size = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
Depth = tuple[Size, Size, Size, Size]


class SvaCLR(TwoStreams):
    """R(2+1)D and an audio ResNet under SoftInfoNCE."""

    @dataclass(frozen=True)
    class Config:
        """The `model:` section. The defaults are the paper's; those it does not state are marked (ours)."""

        __pydantic_config__ = STRICT
        width: Size = 64
        """Channels of the first stage of both encoders; their outputs y have 8 times as many."""
        video_blocks: Depth = (2, 2, 2, 2)
        """Residual blocks a stage: R(2+1)D-18."""
        audio_blocks: Depth = (1, 1, 1, 1)
        """Residual blocks a stage: ResNet-9."""
        mid: Mid = "balanced"
        """Channels inside a (2+1)D convolution: after Tran et al., or "plain" as Table 7 prints."""
        hidden: Size = 512
        projection: Size = 128
        """Widths of the projectors' hidden layer and of z (ours)."""
        temperature: Positive = 0.07
        """eta of Eq. 1 (ours)."""
        weights: Literal["soft", "none"] = "soft"
        """"soft" is SoftInfoNCE (Eq. 3); "none" plain InfoNCE over all view pairs (Eq. 1), the baseline."""
        pairs: Pairs = "diagonal"
        """Reading of Eq. 3: "diagonal" after Fig. 3 or "all" as printed."""
        mapping: Mapping = "identity"
        """l of Eq. 2."""
        detach: bool = False
        """Whether the weights' gradient stops before the encoders (ours)."""
        clamp: tuple[Positive, Positive] | None = (0.1, 2.0)
        """Bounds of the weights (ours)."""
        affinity_temperature: Positive = 1.0
        """Temperature of Eq. 2 (ours)."""

        def __post_init__(self) -> None:
            if self.clamp and self.clamp[0] > self.clamp[1]:
                raise ValueError("clamp: write the lower bound first")

    def __init__(self, config: SvaCLR.Config) -> None:
        super().__init__()
        self.config = config
        video = R2Plus1d(config.width, config.video_blocks, config.mid)
        audio = AudioResNet(config.width, config.audio_blocks)
        head = partial(projector, video.out_features, config.hidden, config.projection)
        self.encoder = nn.ModuleDict({"video": video, "audio": audio})
        self.projector = nn.ModuleDict({"video": head(), "audio": head()})
        self.soft_infonce: SoftInfoNCE | None = None
        if config.weights == "soft":
            names = ("temperature", "pairs", "mapping", "detach", "clamp", "affinity_temperature")
            self.soft_infonce = SoftInfoNCE(
                video.out_features, **{name: getattr(config, name) for name in names}
            )

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """`y_video`, `y_audio` (B, V, 8*width) and `z_video`, `z_audio` (B, V, projection), float32 or better."""
        y_video, z_video = self.encode("video", batch.video)
        y_audio, z_audio = self.encode("audio", batch.audio)
        return {"y_video": y_video, "y_audio": y_audio, "z_video": z_video, "z_audio": z_audio}

    def objective(self, embeddings: Embeddings, valid: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """SoftInfoNCE, with `lambda.true` and `lambda.shuffled` to log, or InfoNCE."""
        z_audio, z_video = embeddings["z_audio"], embeddings["z_video"]
        if self.soft_infonce is None:
            return infonce(z_audio, z_video, self.config.temperature, valid), {}
        y_audio, y_video = embeddings["y_audio"], embeddings["y_video"]
        loss, figures = self.soft_infonce(z_audio, z_video, y_audio, y_video, valid)
        return loss, figures


class InfoNCE(SvaCLR):
    """The baseline: the same networks and views, every weight 1."""

    @dataclass(frozen=True)
    class Config(SvaCLR.Config):
        """As for SvaCLR; what concerns weights has no effect."""

        weights: Literal["none"] = "none"
