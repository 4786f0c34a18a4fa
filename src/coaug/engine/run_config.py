"""Everything a run depends on, as one typed config: `configs/*.yaml` + `key=value` overrides -> `RunConfig`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from ..config import STRICT, ConfigError, build, dump, read
from ..eval import EVALUATORS
from ..models import get_method
from ..pipelines.config import DataConfig

Share = Annotated[float, Field(ge=0, lt=1)]


@dataclass(frozen=True)
class OptimConfig:
    """Optimiser and learning-rate schedule (defaults: SvaCLR §4.1; momentum and weight decay as GDT)."""

    __pydantic_config__ = STRICT
    name: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: PositiveFloat = 0.64
    """Learning rate at the end of warm-up, not scaled by the batch."""
    start_lr: NonNegativeFloat = 0.064
    end_lr: NonNegativeFloat = 0.1
    warmup_epochs: NonNegativeFloat = 10.0
    weight_decay: NonNegativeFloat = 1e-5
    decay_biases: bool = True
    """Whether weight decay also acts on biases and norm parameters (anything of one dimension)."""
    momentum: Share = 0.9
    """SGD only."""
    betas: tuple[Share, Share] = (0.9, 0.999)
    """Adam and AdamW only."""


@dataclass(frozen=True)
class KeepConfig:
    """Which checkpoints stay: the `last` newest ones and every `every_epochs`-th epoch's (0: none)."""

    __pydantic_config__ = STRICT
    last: PositiveInt = 2
    every_epochs: NonNegativeInt = 0


@dataclass(frozen=True)
class TrainConfig:
    """The loop: length, batch, precision, how often to save and to speak."""

    __pydantic_config__ = STRICT
    epochs: PositiveInt = 100
    batch: PositiveInt = 512
    """Samples of the global batch, over all processes."""
    micro_batch: PositiveInt | None = None
    """Samples that a process embeds at a time (null: all its rows); less memory, the same gradients (GradCache)."""
    seed: int = 0
    split: str | None = "train"
    """The catalog's split to train on; null is all of it."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto is bf16 autocast where the device computes in bf16, else fp32."""
    compile: bool = False
    """torch.compile on the encoders."""
    sync_batch_norm: bool = False
    """Batch norm over the rows of all processes, as if one had them all (off: each over its own rows)."""
    checkpoint_every: PositiveInt = 200
    """Steps between checkpoints."""
    keep: KeepConfig = field(default_factory=KeepConfig)
    log_every: PositiveInt = 10
    """Steps between lines when the output is not a terminal."""
    workers: NonNegativeInt | None = None
    """Loader processes; null lets the loader choose."""
    pool: NonNegativeInt = 0
    """Packed shards that samples come from at a time, for storage that is read shard by shard; 0: all of them."""
    cache: str | None = None
    """Folder on a local disk for whole copies of remote shards, fetched a pool ahead (null: fetch parts)."""
    max_minutes: PositiveFloat | None = None
    """End training after this time (the schedule is not shortened), then evaluate."""


@dataclass(frozen=True)
class EvalConfig:
    """What is measured at the end."""

    __pydantic_config__ = STRICT
    evaluators: tuple[str, ...] = ("retrieval",)
    """Of retrieval, control, linear, within and memory; see docs/evaluation.md."""
    clips: PositiveInt = 10
    """Evenly spread clips a recording."""
    crops: Literal[1, 3] = 1
    """Of each clip: the central square, or the two ends of the longer side as well."""
    batch: PositiveInt = 32
    split: str | None = "test"


@dataclass(frozen=True)
class RunConfig:
    """One run: method, data, network, optimiser, loop, evaluation. `model` is the method's own `Config`, checked."""

    __pydantic_config__ = STRICT
    method: str
    data: DataConfig = field(default_factory=DataConfig)
    model: dict[str, Any] = field(default_factory=dict)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)


def load(source: str | Path | Mapping[str, Any], overrides: Iterable[str] = ()) -> RunConfig:
    """The run of a preset's name, a YAML file or a mapping, with `optim.lr=0.1` style overrides laid over it.

    Raises:
        ConfigError: one line for each unknown or ill-typed key, `model:` included.
    """
    tree = source if isinstance(source, Mapping) else read(source, overrides)
    if "method" not in tree:
        raise ConfigError(
            f"{source} says what a clip is and names no method to train; look at it with `coaug view FILE --preset "
            f"{source}`, or load it with AVLoader(catalog, preset={str(source)!r}, batch_size=…)"
        )
    config = build(RunConfig, tree)
    if unknown := set(config.eval.evaluators) - set(EVALUATORS):
        raise ConfigError(
            f"eval.evaluators: no {', '.join(sorted(unknown))}; there are {', '.join(EVALUATORS)}"
        )
    return dataclasses.replace(config, model=yaml.safe_load(dump(model_config(config))))


def model_config(config: RunConfig) -> Any:
    """`config.model` as the method's own dataclass."""
    return build(get_method(config.method).Config, config.model, prefix="model.")


# What may differ between a checkpoint and the run that takes it up: it changes the work done, not what is trained.
_FREE = ("eval.", "train.checkpoint_every", "train.keep.", "train.log_every", "train.workers", "train.cache",
         "train.max_minutes", "train.epochs", "train.compile", "train.micro_batch")  # fmt: skip


def conflicts(saved: str, config: RunConfig) -> list[str]:
    """`key: was -> is` for every difference between a checkpoint's config (YAML) and `config` that changes training."""
    was, now = dict(_flat(yaml.safe_load(saved))), dict(_flat(yaml.safe_load(dump(config))))
    keys = [key for key in {**was, **now} if was.get(key) != now.get(key) and not key.startswith(_FREE)]
    return [f"{key}: {was.get(key)!r} -> {now.get(key)!r}" for key in keys]


def _flat(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves as (dotted key, value); a list is a leaf."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
