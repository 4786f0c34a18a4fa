"""The run's folder: what a new run does with an old one's files, and the figures at the end."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from ..pipelines.batch import Batch
from . import distributed
from .checkpoint import write_whole
from .errors import TrainError
from .log import Row

_OURS = (
    "checkpoints",
    "tensorboard",
    "profile",
    "log.jsonl",
    "config.yaml",
    "catalog.txt",
    "eval.json",
    "metrics.json",
    "nonfinite.json",
)


def set_aside(folder: Path, tell: Callable[[str], None]) -> None:
    """Moves an earlier run's files in `folder` to `folder`/previous-N, so that a new run never destroys an old one."""
    old = [folder / name for name in _OURS if (folder / name).exists()]
    old += folder.glob("*.safetensors")
    if not (folder / "checkpoints").exists() and not (folder / "metrics.json").exists():
        return
    number = 1 + max((int(p.name.partition("-")[2]) for p in folder.glob("previous-*")), default=0)
    target = folder / f"previous-{number}"
    target.mkdir()
    for path in old:
        path.rename(target / path.name)
    tell(f"{folder} held an earlier run: moved to {target} (--resume goes on with it instead)")


def write_json(path: Path, value: Mapping[str, object]) -> None:
    """`value` as indented JSON, atomically."""
    write_whole(path, lambda part: part.write_text(json.dumps(value, indent=1) + "\n"))


def summary(rows: Sequence[Row], clips: int, ends: int = 10) -> dict[str, float]:
    """`train.` figures of a log: clips per second, share of time spent waiting for data, first and last loss.

    The first step, in which workers start and kernels are chosen, counts for the loss alone.

    Args:
        rows: the log.
        clips: clips a step.
        ends: steps that the first and last loss are means of.
    """
    if not rows:
        return {}
    steady = rows[1:] or rows
    seconds = [clips / row["clips_per_s"] for row in steady]
    waited = sum(row["data_wait"] * s for row, s in zip(steady, seconds, strict=True))
    losses = [float(row["loss"]) for row in rows]
    first, last = losses[:ends], losses[-ends:]
    return {
        "train.steps": float(rows[-1]["step"]),
        "train.clips_per_s": clips * len(steady) / sum(seconds),
        "train.data_wait": waited / sum(seconds),
        "train.loss.first": sum(first) / len(first),
        "train.loss.last": sum(last) / len(last),
    }


def not_finite(batch: Batch, step: int, loss: float, norm: float, folder: Path) -> TrainError:
    """The error for a step whose loss or gradient is not finite; its sample ids go to `folder`/nonfinite.json.

    A collective: every rank calls it.
    """
    ids = distributed.gather_rows(batch.sample_id).tolist()
    flags = distributed.gather_rows(_bad_inputs(batch)).tolist()
    culprits = [i for i, bad in zip(ids, flags, strict=True) if bad]
    if distributed.rank() == 0:
        found = {"step": step, "loss": repr(loss), "grad_norm": repr(norm)}
        write_json(folder / "nonfinite.json", {**found, "sample_ids": ids, "nonfinite_inputs": culprits})
    named = f"non-finite input from samples {culprits[:8]}" if culprits else f"samples {ids[:8]}"
    more = f"{named}, all {len(ids)} ids in {folder / 'nonfinite.json'}"
    return TrainError(
        f"loss {loss}, gradient norm {norm} at step {step}: {more}; the last checkpoint is kept"
    )


def _bad_inputs(batch: Batch) -> torch.Tensor:
    """(B,) bool: rows whose picture or sound holds a NaN or an infinity."""
    bad = torch.zeros_like(batch.valid)
    for tensor in (batch.video, batch.audio):
        if tensor is not None:
            bad |= ~tensor.flatten(1).isfinite().all(1)
    return bad
