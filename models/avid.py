"""AVID: audio-visual instance discrimination against a memory; and CMA, with positives by cross-modal agreement.

    Self-AVID   video is told from others' video memories, sound from others' sound memories          (Eq. 4)
    Cross-AVID  video is told from sound memories, sound from video memories                         (Eq. 5)
    Joint-AVID  both                                                                                 (Eq. 6)
    CMA         Cross-AVID + lambda wMPD: each modality is drawn to the memories of its positives, within it  (Eq. 10)

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
from ..kernels.cross_affinity import precise
from ..losses.nce import Draw, Partition
from ..pipelines.batch import Batch
from .avid_checkpoint import load_published
from .avid_networks import AvidAudio, AvidVideo, avid_head
from .heads import unit
from .memory import Memory, MemoryConfig
from .method import Embeddings, Method
from .positives import PositivesConfig, chosen, excluded, find
from .rows import Rows, own_span
from .tasks import TASKS, WITHIN, Term, losses

Size = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Depth = tuple[Size, Size, Size, Size]


class Avid(Method):
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
        self.head = nn.ModuleDict({name: _head(8 * config.width, config) for name in self.encoder})
        self.memory: Memory | None = None
        self.partition = Partition(config.partition == "per_task")
        self._seed, self._step = 0, 0

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """`video`, `audio` (B, V, d) of unit length, float32 or better, and `sample_id` (B,)."""
        video, audio = self._encode("video", batch.video), self._encode("audio", batch.audio)
        return {"video": video[1], "audio": audio[1], "sample_id": batch.sample_id}

    def objective(self, embeddings: Embeddings, valid: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean over valid samples and views of the sum over tasks; each task's own mean to log."""
        memory, views = self._memory(), embeddings["video"].shape[1]
        used, draw = valid.repeat_interleave(views), Draw(self._seed, self._step, views * _place(valid))
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

    def features(self, batch: Batch) -> dict[str, Tensor]:
        """The heads' unit vectors as `video_z`, `audio_z`, the encoders' as `video_pool`, `audio_pool`."""
        found = {}
        for name, clips in (("video", batch.video), ("audio", batch.audio)):
            if clips is not None:
                found[f"{name}_pool"], found[f"{name}_z"] = self._encode(name, clips)
        return found

    def encoders(self) -> dict[str, nn.Module]:
        """`video` and `audio`, without heads."""
        return dict(self.encoder.items())

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
        memory, views = self._memory(), embeddings["video"].shape[1]
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
        self._memory().load(state)
        self.partition.values = dict(state["partition"])

    def inherit(self, state: Mapping[str, Any]) -> str:
        """Rows of the recordings that both runs know, and Z."""
        if "ids" not in state:
            return "it remembers no recordings: the memory starts anew"
        kept, new, gone = self._memory().load(state)
        self.partition.values = dict(state["partition"])
        return f"memory: {kept} recordings taken over, {new} new, {gone} of the other run's left out"

    def load_published(self, path: Path) -> str:
        """Networks, heads and Z of a checkpoint of the authors'; their memory has no sample ids and is left out."""
        parts = {**self.encoder, **{f"{name}_head": head for name, head in self.head.items()}}
        held = load_published(path, parts)  # type: ignore[arg-type]
        scores = [value for key, value in held.criterion.items() if "avg_exp_score" in key]
        if scores and float(scores[0]) > 0:
            self.partition = Partition(values={"all": float(scores[0])})
        left = "; its memory is left out, as its rows have no names" if held.criterion else ""
        return f"{path}: networks and heads after epoch {held.epoch}{left}"

    def _encode(self, name: str, clips: Tensor | None) -> tuple[Tensor, Tensor]:
        """All views in one call: (B, V, ...) -> encoder's output (B, V, d), head's (B, V, k) of unit length."""
        if clips is None:
            raise ConfigError(
                f"data.modalities: this method compares video with audio, but {name!r} is missing"
            )
        y: Tensor = self.encoder[name](clips.flatten(0, 1))
        z = unit(self.head[name](y))
        views = clips.shape[:2]
        return precise(y).view(*views, -1), z.view(*views, -1)

    def _memory(self) -> Memory:
        if self.memory is None:
            raise RuntimeError("attach() first: this method does not know which recordings it remembers")
        return self.memory


class CMA(Avid):
    """AVID whose recordings are drawn to those that agree with them, and not told from them."""

    @dataclass(frozen=True)
    class Config(Avid.Config):
        """As for AVID; defaults: section 5."""

        positives: PositivesConfig = field(default_factory=PositivesConfig)
        within: NonNegative = 1.0
        """lambda of Eq. 10."""
        negatives_within: Size | None = None
        """Negatives of the within-modal tasks, the first of those drawn (null: all)."""

    config: CMA.Config

    def __init__(self, config: CMA.Config) -> None:
        super().__init__(config)
        self.positives: Rows | None = None
        self._first = config.positives.first_epoch

    def attach(self, recordings: Tensor, seed: int) -> None:
        """As for AVID. Raises ConfigError where positives leave no negatives."""
        super().attach(recordings, seed)
        count, found = len(self._memory()), self.config.positives.found
        if count < found + 2:
            raise ConfigError(
                f"model.positives.found: {found} positives of each of {count} recordings leave no negatives"
            )

    def before_step(self, step: int, steps_per_epoch: int) -> str:
        """At the start of an epoch that the schedule names, looks for positives (all ranks)."""
        super().before_step(step, steps_per_epoch)
        epoch, within = divmod(step, steps_per_epoch)
        if within or not self.config.positives.due(epoch, self._first):
            return ""
        if not self._memory().seen:
            raise ConfigError(
                "model.positives.first_epoch: the memory has seen nothing yet; start from a run (--init runs/avid), or "
                f"look for positives later than in epoch {epoch}"
            )
        self.positives, score = find(self._memory(), self.config.positives)
        how = f"{self.config.positives.found} positives each by {self.config.positives.expansion}"
        return f"epoch {epoch}: {how}, on average {score:.3f} alike"

    def terms(self, rows: Tensor) -> list[Term]:
        """Cross-AVID and wMPD; before there are positives, as for AVID (all ranks)."""
        if self.positives is None:
            return super().terms(rows)
        config, place = self.config, _place(rows)
        found = self.positives.take(rows.clamp(min=0)).long().masked_fill(rows[:, None] < 0, -1)
        apart = excluded(rows, found, len(self._memory()))
        drawn = chosen(found, config.positives.drawn, seed=self._seed, step=self._step, offset=place)
        fewer = config.negatives_within or config.negatives
        return [
            *(term._replace(excluded=apart) for term in super().terms(rows)),
            *(Term(task, drawn, apart, fewer, config.within) for task in WITHIN),
        ]

    def memory_state(self) -> dict[str, Any]:
        """With the positives, as rows of the sorted sample ids."""
        state = super().memory_state()
        if state and self.positives is not None:
            state["positives"] = self.positives.saved()
        return state | {"first_epoch": self._first} if state else state

    def load_memory_state(self, state: Mapping[str, Any]) -> None:
        """Goes on with both."""
        super().load_memory_state(state)
        self._first = state.get("first_epoch", self._first)
        if "positives" in state:
            memory, found = self._memory(), state["positives"]
            first, last = own_span(len(memory)) if memory.config.placement == "sharded" else (0, len(memory))
            part = found[first:last].clone().to(memory.ids.device)
            self.positives = Rows(len(memory), part, memory.config.placement)

    def inherit(self, state: Mapping[str, Any]) -> str:
        """As for AVID; positives are looked for at once, in what was taken over."""
        told = super().inherit(state)
        self._first = 0 if self._memory().seen else self._first
        return told


def _place(rows: Tensor) -> int:
    """Where a rank's rows begin in the global batch, in which all ranks have equally many."""
    return distributed.rank() * len(rows)


def _head(inputs: int, config: Avid.Config) -> nn.Sequential:
    layers = avid_head(inputs, config.head)
    return (
        nn.Sequential(*layers, nn.BatchNorm1d(config.head[-1], affine=False)) if config.head_norm else layers
    )
