"""AVID's networks as plain functions of a published checkpoint's tensors, such tensors at random, and our networks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coaug.models.avid_networks import AvidAudio, AvidVideo, avid_head

State = dict[str, Tensor]
EPS = 1e-5
ONE, TWO = (1, 1, 1, 1), (2, 2, 2, 2)
TABLE_9, CODE = (1, 2, 2, 1), (2, 2, 2, 1)
WIDTH = 8


def parts(blocks=ONE, *, width=WIDTH, pool=True, strides=CODE, dtype=torch.float64) -> dict[str, nn.Module]:
    networks = {"video": AvidVideo(width, blocks, pool), "audio": AvidAudio(width, strides)}
    networks |= {"video_head": avid_head(8 * width), "audio_head": avid_head(8 * width)}
    return {name: network.to(dtype) for name, network in networks.items()}


def near(a: Tensor, b: Tensor, tolerance: float = 1e-9) -> None:
    """To `tolerance` of the greatest."""
    torch.testing.assert_close(a, b, rtol=0, atol=tolerance * max(b.abs().max().item(), 1e-30))


def shapes(blocks: tuple[int, ...], width: int = 64, embedding: int = 128) -> dict[str, tuple[int, ...]]:
    """Name -> shape of all weights, in no order."""
    found: dict[str, tuple[int, ...]] = {"video_model.conv1.0.weight": (width, 3, 3, 7, 7)}
    found |= norm("video_model.conv1.1", width)
    inputs = width
    for stage, depth in enumerate(blocks):
        for block in range(depth):
            at = f"video_model.conv{stage + 2}x." + (f"{block}." if depth > 1 else "")
            outputs = width * 2**stage
            found |= video_block(at, inputs, outputs, shortcut=stage > 0 and block == 0)
            inputs = outputs
    found |= {"audio_model.conv1.0.weight": (width, 1, 7, 7), **norm("audio_model.conv1.1", width)}
    inputs = width
    for stage in range(4):
        at, outputs = f"audio_model.block{stage + 1}.", width * 2**stage
        found |= {f"{at}conv1.weight": (outputs, inputs, 3, 3), **norm(f"{at}bn1", outputs)}
        found |= {f"{at}conv2.weight": (outputs, outputs, 3, 3), **norm(f"{at}bn2", outputs)}
        inputs = outputs
    for head in ("video_proj", "audio_proj"):
        for layer, (before, after) in {0: (inputs, 512), 2: (512, 512), 4: (512, embedding)}.items():
            found[f"{head}.projection.{layer}.weight"] = (after, before)
            found[f"{head}.projection.{layer}.bias"] = (after,)
    return found


def video_block(at: str, inputs: int, outputs: int, *, shortcut: bool) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {
        f"{at}spt_conv1.weight": (outputs, inputs, 1, 3, 3),
        f"{at}tmp_conv1.weight": (outputs, outputs, 3, 1, 1),
        f"{at}spt_conv2.weight": (outputs, outputs, 1, 3, 3),
        f"{at}tmp_conv2.weight": (outputs, outputs, 3, 1, 1),
    }
    for name in ("spt_bn1", "tmp_bn1", "spt_bn2", "out_bn"):
        found |= norm(at + name, outputs)
    return found | ({f"{at}res_conv.weight": (outputs, inputs, 1, 1, 1)} if shortcut else {})


def norm(at: str, channels: int) -> dict[str, tuple[int, ...]]:
    names = ("weight", "bias", "running_mean", "running_var")
    return {f"{at}.num_batches_tracked": (), **{f"{at}.{name}": (channels,) for name in names}}


def random_state(
    blocks: tuple[int, ...], width: int, *, seed: int = 0, dtype: torch.dtype = torch.float64
) -> State:
    """A file's `model`, without the prefix."""
    draw, state = torch.Generator().manual_seed(seed), {}
    for name, shape in shapes(blocks, width).items():
        if not shape:
            state[name] = torch.tensor(11)
        elif len(shape) == 1:
            state[name] = torch.rand(shape, generator=draw, dtype=dtype) + 0.5
        else:
            state[name] = (
                torch.randn(shape, generator=draw, dtype=dtype) / torch.tensor(shape[1:]).prod() ** 0.5
            )
    return state


def video_maps(state: State, x: Tensor, *, pool: bool, training: bool = False) -> dict[str, Tensor]:
    """conv1, block1 ... block4 of clips (N, 3, T, H, W), each (N, C, T, H, W)."""
    at = "video_model.conv1."
    x = F.conv3d(x, state[f"{at}0.weight"], None, (1, 2, 2), (1, 3, 3))
    x = normed(state, f"{at}1", x, training).relu()
    if pool:
        x = F.max_pool3d(x, (1, 3, 3), (1, 2, 2), (0, 1, 1))
    maps = {"conv1": x}
    for stage in range(4):
        at = f"video_model.conv{stage + 2}x."
        depth = sum(f"{at}{n}.out_bn.weight" in state for n in range(9))
        for block in [f"{at}{n}." for n in range(depth)] or [at]:
            x = video_layers(state, block, x, training)
        maps[f"block{stage + 1}"] = x
    return maps


def video_layers(state: State, at: str, x: Tensor, training: bool) -> Tensor:
    s = 2 if f"{at}res_conv.weight" in state else 1
    shortcut = F.conv3d(x, state[f"{at}res_conv.weight"], None, s) if s == 2 else x
    y = F.conv3d(x, state[f"{at}spt_conv1.weight"], None, (1, s, s), (0, 1, 1))
    y = normed(state, f"{at}spt_bn1", y, training).relu()
    y = F.conv3d(y, state[f"{at}tmp_conv1.weight"], None, (s, 1, 1), (1, 0, 0))
    y = normed(state, f"{at}tmp_bn1", y, training).relu()
    y = F.conv3d(y, state[f"{at}spt_conv2.weight"], None, 1, (0, 1, 1))
    y = normed(state, f"{at}spt_bn2", y, training).relu()
    y = F.conv3d(y, state[f"{at}tmp_conv2.weight"], None, 1, (1, 0, 0))
    return normed(state, f"{at}out_bn", y + shortcut, training).relu()


def audio_maps(
    state: State, x: Tensor, *, strides: tuple[int, ...], training: bool = False
) -> dict[str, Tensor]:
    """conv1, block1 ... block4 of spectrograms (N, 1, L, F): time first, as the file has them."""
    x = F.conv2d(x, state["audio_model.conv1.0.weight"], None, 2, 3)
    maps = {"conv1": (x := normed(state, "audio_model.conv1.1", x, training).relu())}
    for stage, stride in enumerate(strides):
        at = f"audio_model.block{stage + 1}."
        x = F.conv2d(x, state[f"{at}conv1.weight"], None, stride, 1)
        x = normed(state, f"{at}bn1", x, training).relu()
        x = F.conv2d(x, state[f"{at}conv2.weight"], None, 1, 1)
        maps[f"block{stage + 1}"] = x = normed(state, f"{at}bn2", x, training).relu()
    return maps


def normed(state: State, at: str, x: Tensor, training: bool) -> Tensor:
    """Batch norm written out."""
    mean, var = state[f"{at}.running_mean"], state[f"{at}.running_var"]
    if training:
        others = [0, *range(2, x.ndim)]
        mean, var = x.mean(others), x.var(others, unbiased=False)
    scale = state[f"{at}.weight"] / (var + EPS).sqrt()
    shape = (-1, *[1] * (x.ndim - 2))
    return (x - mean.view(shape)) * scale.view(shape) + state[f"{at}.bias"].view(shape)


def head(state: State, name: str, x: Tensor) -> Tensor:
    """`name` is video or audio."""
    at = f"{name}_proj.projection."
    for layer in (0, 2):
        x = (x @ state[f"{at}{layer}.weight"].T + state[f"{at}{layer}.bias"]).relu()
    return x @ state[f"{at}4.weight"].T + state[f"{at}4.bias"]
