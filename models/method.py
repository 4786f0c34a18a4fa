"""What the training loop and the evaluators know of a method: four calls, and those of methods with a memory."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn

from ..config import ConfigError
from ..pipelines.batch import Batch

Embeddings = Mapping[str, Tensor]


class Method(nn.Module):
    """Encoders, heads and objective of one method. Subclasses set `Config`, a dataclass built from `model:`.

    The second half is for methods that remember more of the recordings than weights do. A run calls

        attach, then load_memory_state or inherit; every step: before_step, embed, objective, after_step

    on all ranks alike, so that each of these calls may be a collective.
    """

    Config: ClassVar[type[Any]]
    separable: ClassVar[bool] = False
    """Whether the loss is a mean over valid samples of terms in one sample's embeddings each. Then `objective` is
    given this rank's rows only, the first of which is row rank * len(valid) of the global batch."""

    @abstractmethod
    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """What the objective needs of a (micro-)batch: tensors whose dimension 0 is the sample."""

    @abstractmethod
    def objective(self, embeddings: Embeddings, valid: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss over the *global* batch (a scalar) and figures to log. Rows with valid False take no part.

        If the method is `separable`: the mean over the given rows, of which the loop makes that over all.
        """

    @abstractmethod
    def features(self, batch: Batch) -> dict[str, Tensor]:
        """Evaluation features by name, each (B, V, d): `video_z`, `audio_z`, `video_pool`, `audio_pool`."""

    @abstractmethod
    def encoders(self) -> dict[str, nn.Module]:
        """The parts that people take away, saved one safetensors file each."""

    def attach(self, recordings: Tensor, seed: int) -> None:
        """Learn which recordings are trained on: their sample ids (N,) int64, in any order; before the first step."""

    def before_step(self, step: int, steps_per_epoch: int) -> str:
        """Work that precedes step `step` (from 0). Returns a line to print, or ""."""
        return ""

    def after_step(self, embeddings: Embeddings, valid: Tensor) -> None:
        """Remember the *global* batch: what `embed` gave in the step that has just moved the weights, constant."""

    def memory_state(self) -> dict[str, Any]:
        """For the checkpoint, what else a resumed run needs: tensors on the CPU and plain values, whole on rank 0."""
        return {}

    def load_memory_state(self, state: Mapping[str, Any]) -> None:
        """Take up `memory_state` of the same recordings; without `attach`, of those that are in it."""

    def inherit(self, state: Mapping[str, Any]) -> str:
        """Start from another run's `memory_state`, of any recordings. Returns a line to print, or ""."""
        return ""

    def load_published(self, path: Path) -> str:
        """Start from a checkpoint in the format of the paper's authors. Returns a line to print.

        Raises:
            ConfigError: the file is not of this method, or it knows no such format.
        """
        raise ConfigError(f"--init {path}: want the folder of a run, or a checkpoint in one; this is neither")
