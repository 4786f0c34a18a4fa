"""AVID: audio-visual instance discrimination against a memory (Morgado et al., "… with Cross-Modal Agreement", 3.2).

    Self-AVID   video is told from others' video memories, sound from others' sound memories          (Eq. 4)
    Cross-AVID  video is told from sound memories, sound from video memories                         (Eq. 5)
    Joint-AVID  both                                                                                 (Eq. 6)

A recording is discriminated from K others that are drawn for it in every step, the same in all tasks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field
from torch import Tensor, nn

from ..config import STRICT, ConfigError
from ..engine import distributed
from ..losses.nce import Draw, Partition
from ..pipelines.batch import Batch
from .avid_checkpoint import load_published
from .avid_networks import AvidAudio, AvidVideo, avid_head
from .memory import Memory, MemoryConfig
from .method import Embeddings
from .tasks import TASKS, Term, losses
from .two_streams import TwoStreams

Size = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Depth = tuple[Size, Size, Size, Size]


class Avid(TwoStreams):
    """R(2+1)D and a convolutional audio network under NCE against a memory bank."""

    separable = True

    @dataclass(frozen=True)
    class Config:
        """The `model:` section. The defaults are those of section 4; what the paper does not have is marked (ours)."""

        __pydantic_config__ = STRICT
        width: Size = 64
        """Channels of the first stage of both encoders; their outputs have 8 times as many."""
        video_blocks: Depth = (1, 1, 1, 1)
        """Residual blocks a stage: Table 9; (2, 2, 2, 2) is the 18-layer network."""
        stem_pool: bool = False
        """Whether the video's stem pools, as in the authors' code, or not, as Table 9 has it."""
        audio_strides: Depth = (1, 2, 2, 1)
        """Of the audio's four stages: Table 9; (2, 2, 2, 1) is the authors' code."""
        head: tuple[Size, ...] = (512, 512, 128)
        """Widths of the MLP on each encoder; the last is that of the memory."""
        head_norm: bool = False
        """Batch norm at the heads' ends (ours): without it, few recordings are learned by heart, and little else."""
        task: Literal["cross", "self", "joint"] = "cross"
        """Eq. 5, 4 or 6."""
        negatives: Size = 1024
        """K."""
        temperature: Positive = 0.07
        partition: Literal["shared", "per_task"] = "shared"
        """Whether the tasks share one Z, that of the first one, as in the authors' code, or each has its own."""
        memory: MemoryConfig = field(default_factory=MemoryConfig)

    def __init__(self, config: Avid.Config) -> None:
        super().__init__()
        self.config = config
        video = AvidVideo(config.width, config.video_blocks, config.stem_pool)
        audio = AvidAudio(config.width, config.audio_strides)
        self.encoder = nn.ModuleDict({"video": video, "audio": audio})
        self.projector = nn.ModuleDict({name: _head(8 * config.width, config) for name in self.encoder})
        self.memory: Memory | None = None
        self.partition = Partition(config.partition == "per_task")
        self._seed, self._step = 0, 0

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """`video`, `audio` (B, V, d) of unit length, float32 or better, and `sample_id` (B,)."""
        video, audio = self.encode("video", batch.video), self.encode("audio", batch.audio)
        return {"video": video[1], "audio": audio[1], "sample_id": batch.sample_id}

    def objective(self, embeddings: Embeddings, valid: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean over valid samples and views of the sum over tasks; each task's own mean to log."""
        memory, views = self.remembered(), embeddings["video"].shape[1]
        used, draw = valid.repeat_interleave(views), Draw(self._seed, self._step, views * place(valid))
        loss, figures = embeddings["video"].new_zeros(()), {}
        for term in self.terms(memory.rows_of(embeddings["sample_id"], valid)):
            query, targets = embeddings[term.task.query].flatten(0, 1), memory[term.task.target]
            found = losses(
                term.repeated(views),
                query,
                used,
                targets,
                partition=self.partition,
                temperature=self.config.temperature,
                draw=draw,
            )
            mean = found.sum() / used.sum().clamp(min=1)
            figures[f"loss.{term.task.name}"], loss = mean, loss + term.weight * mean
        return loss, figures

    def terms(self, rows: Tensor) -> list[Term]:
        """What the samples at `rows` (B,) of the memory are told from in this step (all ranks)."""
        own = rows[:, None]
        return [Term(task, own, own, self.config.negatives) for task in TASKS[self.config.task]]

    def attach(self, recordings: Tensor, seed: int) -> None:
        """A memory of these recordings. Raises ConfigError where there are too few to draw negatives from."""
        device, width = next(self.parameters()).device, self.config.head[-1]
        self.memory, self._seed = Memory(recordings, width, self.config.memory, seed, device), seed
        if len(self.memory) < 2:
            raise ConfigError(
                f"{len(self.memory)} recordings leave none to be told from: this method needs two"
            )

    def before_step(self, step: int, steps_per_epoch: int) -> str:
        """Draws of this step are its own."""
        self._step = step
        return ""

    def after_step(self, embeddings: Embeddings, valid: Tensor) -> None:
        """The memory moves towards the global batch."""
        memory, views = self.remembered(), embeddings["video"].shape[1]
        rows = memory.rows_of(embeddings["sample_id"], valid).repeat_interleave(views)
        features = {name: embeddings[name].flatten(0, 1) for name in ("video", "audio")}
        memory.update_(rows, features, valid.repeat_interleave(views))

    def memory_state(self) -> dict[str, Any]:
        """The memory with its sample ids, and Z."""
        if self.memory is None:
            return {}
        return {**self.memory.state(), "partition": dict(self.partition.values)}

    def load_memory_state(self, state: Mapping[str, Any]) -> None:
        """Goes on with it."""
        if not state:
            return
        if self.memory is None:
            self.attach(state["ids"], self._seed)
        self.remembered().load(state)
        self.partition.values = dict(state["partition"])

    def inherit(self, state: Mapping[str, Any]) -> str:
        """Rows of the recordings that both runs know, and Z."""
        if "ids" not in state:
            return "it remembers no recordings: the memory starts anew"
        kept, new, gone = self.remembered().load(state)
        self.partition.values = dict(state["partition"])
        return f"memory: {kept} recordings taken over, {new} new, {gone} of the other run's left out"

    def load_published(self, path: Path) -> str:
        """Networks, heads and Z of a checkpoint of the authors'; their memory has no sample ids and is left out."""
        parts = {**self.encoder, **{f"{name}_head": head for name, head in self.projector.items()}}
        held = load_published(path, parts)  # type: ignore[arg-type]
        scores = [value for key, value in held.criterion.items() if "avg_exp_score" in key]
        if scores and float(scores[0]) > 0:
            self.partition = Partition(values={"all": float(scores[0])})
        left = "; its memory is left out, as its rows have no names" if held.criterion else ""
        return f"{path}: networks and heads after epoch {held.epoch}{left}"

    def remembered(self) -> Memory:
        """The memory. Raises RuntimeError before `attach`."""
        if self.memory is None:
            raise RuntimeError("attach() first: this method does not know which recordings it remembers")
        return self.memory


def place(rows: Tensor) -> int:
    """Where a rank's rows begin in the global batch, in which all ranks have equally many."""
    return distributed.rank() * len(rows)


def _head(inputs: int, config: Avid.Config) -> nn.Sequential:
    layers = avid_head(inputs, config.head)
    return (
        nn.Sequential(*layers, nn.BatchNorm1d(config.head[-1], affine=False)) if config.head_norm else layers
    )
