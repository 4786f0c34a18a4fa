"""AVID-CMA's published checkpoints, read into our networks and written from them.

A file is `torch.save` of a dict: `model`, the state of its wrapped networks (names begin with `module.`); `epoch`;
`train_criterion`, the memory bank, whose rows are numbered as its authors' files were listed; `optimizer`.
Our parameters are seen through views of its shapes, so that reading is a copy into them and writing one out of them:

    video   (C', C, 1, k, k) and (C', C, k, 1, 1) without the dimension of size 1, the stem (C', 3, 3, 7, 7) flattened
    audio   transposed: its spectrograms are (time, frequency), ours (frequency, time)

Weights do not tell whether `stem_pool` and the first of `strides` were on: in the authors' files they are.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..config import ConfigError
from .avid_networks import AvidAudio, AvidVideo

Part = Literal["video", "audio", "video_head", "audio_head"]
PARTS: dict[Part, str] = {
    "video": "video_model.",
    "audio": "audio_model.",
    "video_head": "video_proj.projection.",
    "audio_head": "audio_proj.projection.",
}
"""What a file holds, and how names of it begin: AvidVideo, AvidAudio, an avid_head each."""

_BLOCK = {
    "spatial1.0": "spt_conv1",
    "spatial1.1": "spt_bn1",
    "temporal1.0": "tmp_conv1",
    "temporal1.1": "tmp_bn1",
    "spatial2.0": "spt_conv2",
    "spatial2.1": "spt_bn2",
    "temporal2.0": "tmp_conv2",
    "norm.0": "out_bn",
    "shortcut.0": "res_conv",
}
_LAYERS = {"0": "conv1", "1": "bn1", "3": "conv2", "4": "bn2"}


class CheckpointError(ConfigError):
    """A checkpoint that is not AVID-CMA's or not of these networks; the message names file and keys."""


@dataclass(frozen=True)
class Published:
    """What a file holds beside weights.

    Attributes:
        epoch: epochs completed; None where the file does not say.
        criterion: the criterion's buffers: `nce_average.view1_mem` (video) and `nce_average.view2_mem` (audio), each
            (N, 128) in the order of the authors' list of files; `criterion.avg_exp_score`, the partition function;
            after CMA `nce_average.positive_set` (N, 32). Empty where there are none.
    """

    epoch: int | None
    criterion: dict[str, Tensor]


def load_published(path: Path, parts: Mapping[Part, nn.Module]) -> Published:
    """Copies the weights in `path` into `parts`. What the file holds of other parts is left alone.

    Raises:
        CheckpointError: if the file cannot be read, or if keys are missing, unexpected or of another shape; then
            nothing has been copied.
    """
    state = _read(path)
    found = {key.removeprefix("module."): value for key, value in state["model"].items()}
    wanted = published_state(parts)
    _compare(path, wanted, {key: value for key, value in found.items() if _concerns(key, parts)})
    for key, value in wanted.items():
        value.copy_(found[key])
    epoch = state.get("epoch")
    return Published(epoch if isinstance(epoch, int) else None, dict(state.get("train_criterion") or {}))


def save_published(
    path: Path,
    parts: Mapping[Part, nn.Module],
    *,
    epoch: int = 0,
    criterion: Mapping[str, Tensor] | None = None,
) -> None:
    """Writes `parts` as the authors' code does; it reads files with all four parts, and a `criterion` for CMA."""
    model = {f"module.{key}": value.cpu().contiguous() for key, value in published_state(parts).items()}
    state = {"epoch": epoch, "model": model, "train_criterion": dict(criterion or {})}
    part = path.with_name(path.name + ".part")
    torch.save(state, part)
    os.replace(part, path)


def published_state(parts: Mapping[Part, nn.Module]) -> dict[str, Tensor]:
    """Parameters and buffers of `parts` in the authors' names and shapes, all views: what is written there is ours.

    Raises:
        TypeError: if a part is not what `PARTS` says, perhaps wrapped for DDP or by torch.compile.
    """
    names = {AvidVideo: _video, AvidAudio: _audio, nn.Sequential: _as_is}
    views: dict[str, Tensor] = {}
    for part, module in parts.items():
        kind = {"video": AvidVideo, "audio": AvidAudio}.get(part, nn.Sequential)
        if not isinstance(module, kind):
            raise TypeError(f"{part}: want a bare {kind.__name__}, got a {type(module).__name__}")
        views |= {PARTS[part] + key: value for key, value in names[kind](module)}
    return views


def _video(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    state = module.state_dict()
    for key, value in state.items():
        _, stage, *layer, last = key.split(".")
        if stage == "conv1":
            yield f"conv1.{layer[0]}.{last}", value.unflatten(1, (-1, 3)) if value.ndim == 4 else value
            continue
        block, name = layer[0], ".".join(layer[1:])
        number = f"{block}." if f"stages.{stage}.1.norm.0.weight" in state else ""  # a block alone has none
        yield f"conv{int(stage[-1]) + 1}x.{number}{_BLOCK[name]}.{last}", _third(name, value)


def _third(layer: str, weight: Tensor) -> Tensor:
    """(C', C, k, 1) -> (C', C, k, 1, 1) and (C', C, k, k) -> (C', C, 1, k, k)."""
    if weight.ndim != 4:
        return weight
    return weight.unsqueeze(4 if layer.startswith("temporal") else 2)


def _audio(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for key, value in module.state_dict().items():
        _, stage, layer, last = key.split(".")
        name = layer if stage == "conv1" else _LAYERS[layer]
        yield f"{stage}.{name}.{last}", value.transpose(2, 3) if value.ndim == 4 else value


def _as_is(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.state_dict().items()


def _read(path: Path) -> dict[str, Any]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zipfile and torch raise a dozen kinds for what is no checkpoint
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
        raise CheckpointError(f"{path}: cannot be read as a checkpoint ({reason})") from None
    weights = state.get("model") if isinstance(state, dict) else None
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        held = ", ".join(map(str, state)) if isinstance(state, dict) else type(state).__name__
        raise CheckpointError(
            f"{path}: a checkpoint of AVID-CMA has a dict of weights as 'model'; here is {held[:200]}"
        )
    return dict(state)


def _concerns(key: str, parts: Mapping[Part, nn.Module]) -> bool:
    """Whether `key` is of one of `parts` or of nothing known."""
    return not any(key.startswith(prefix) for part, prefix in PARTS.items() if part not in parts)


def _compare(path: Path, wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    wrong = [
        f"{key} (there {tuple(found[key].shape)}, here {tuple(value.shape)})"
        for key, value in wanted.items()
        if key in found and found[key].shape != value.shape
    ]
    missing, unexpected = [k for k in wanted if k not in found], [k for k in found if k not in wanted]
    kinds = {"missing": missing, "unexpected": unexpected, "of another shape": wrong}
    listed = [f"{kind}: {_some(keys)}" for kind, keys in kinds.items() if keys]
    if listed:
        raise CheckpointError(
            f"{path}: not of these networks (of another depth or width?); {'; '.join(listed)}"
        )


def _some(keys: list[str]) -> str:
    """The first ten."""
    return ", ".join(keys[:10]) + (f" and {len(keys) - 10} more" if len(keys) > 10 else "")
