"""What the training loop and the evaluators know of a method: four calls."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from ..pipelines.batch import Batch

Embeddings = Mapping[str, Tensor]


class Method(nn.Module):
    """Encoders, heads and objective of one method. Subclasses set `Config`, a dataclass built from `model:`."""

    Config: ClassVar[type[Any]]

    @abstractmethod
    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """What the objective needs of a (micro-)batch: tensors whose dimension 0 is the sample."""

    @abstractmethod
    def objective(self, embeddings: Embeddings, valid: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss over the *global* batch (a scalar) and figures to log. Rows with valid False take no part."""

    @abstractmethod
    def features(self, batch: Batch) -> dict[str, Tensor]:
        """Evaluation features by name, each (B, V, d): `video_z`, `audio_z`, `video_pool`, `audio_pool`."""

    @abstractmethod
    def encoders(self) -> dict[str, nn.Module]:
        """The parts that people take away, saved one safetensors file each."""
