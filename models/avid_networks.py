"""AVID's networks (Morgado et al. 2021, Table 9 and the authors' code): video, audio and the heads on both.

    video   R(2+1)D as in `r2plus1d`, all convolutions 2d and channels-last. Otherwise than there, the stem is one full
            3 x 7 x 7 convolution, a block's inner convolutions have as many channels as it puts out, its shortcut is
            added before the last batch norm, and the end is a global max-pool.
    audio   nine 3 x 3 convolutions without shortcuts, global max-pool.

Table 9 and the code differ in size, not in weights: the code pools after the video's stem, and halves the sound in
`block1` too. So a checkpoint fits both, and does not tell which. All weights begin as torch has it, as in the code.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .r2plus1d import Frames, Timelines, spatial, temporal


class Stem(Frames):
    """2d layers over frames that stand with their neighbours, (N, T, H, W, C) -> (N, T, H', W', C').

    A 3 x k x k convolution is k x k over 3C channels, of which 3c + t is channel c of the frame before, itself, after:
    the order of a flattened (C', C, 3, k, k) weight.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Pad T by a frame of zeros on either side, gather three frames each, apply."""
        padded = F.pad(x, (0, 0, 0, 0, 0, 0, 1, 1))
        return super().forward(padded.unfold(1, 3, 1).flatten(4))


class SumBlock(nn.Module):
    """Two (2+1)D convolutions and a shortcut, y = relu(norm(conv(conv(x)) + shortcut(x))), on (N, T, H, W, C)."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.spatial1 = spatial(inputs, outputs, stride=stride)
        self.temporal1 = temporal(outputs, outputs, stride)
        self.spatial2 = spatial(outputs, outputs)
        self.temporal2 = Timelines(nn.Conv2d(outputs, outputs, (3, 1), 1, (1, 0), bias=False))
        self.norm = Frames(nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))
        self.stride = stride
        self.shortcut: Frames | None = None
        if stride != 1 or inputs != outputs:
            self.shortcut = Frames(nn.Conv2d(inputs, outputs, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, H, W, C) -> (N, ceil(T/s), ceil(H/s), ceil(W/s), C')."""
        y: Tensor = self.temporal2(self.spatial2(self.temporal1(self.spatial1(x))))
        if self.shortcut is not None:
            s = self.stride
            x = self.shortcut(x[:, ::s, ::s, ::s])
        summed: Tensor = self.norm(y + x)
        return summed


class AvidVideo(nn.Module):
    """Clips to vectors: (N, 3, T, H, W) -> (N, 8*width).

    Args:
        width: channels of the stem and the first stage; the four stages have 1, 2, 4 and 8 times as many.
        blocks: residual blocks in each stage: (1, 1, 1, 1) is Table 9, (2, 2, 2, 2) the code's depth 18, which
            Table 10 is of.
        stem_pool: 1 x 3 x 3 max-pool of stride 2 at the end of the stem, as in the code, or none, as Table 9 has it.
    """

    def __init__(
        self, width: int = 64, blocks: tuple[int, int, int, int] = (1, 1, 1, 1), stem_pool: bool = False
    ) -> None:
        super().__init__()
        self.out_features = 8 * width
        pool = [nn.MaxPool2d(3, 2, 1)] if stem_pool else []
        self.stages = nn.ModuleDict({"conv1": Stem(*spatial(9, width, 7, 2), *pool)})
        inputs = width
        for stage, depth in enumerate(blocks):
            outputs = width << stage
            first = SumBlock(inputs, outputs, 1 if stage == 0 else 2)
            rest = (SumBlock(outputs, outputs) for _ in range(depth - 1))
            self.stages[f"block{stage + 1}"] = nn.Sequential(first, *rest)
            inputs = outputs

    def forward(self, video: Tensor) -> Tensor:
        """Maximum of the last stage over time and space (Table 9, max pool)."""
        x = video.permute(0, 2, 3, 4, 1)
        for stage in self.stages.values():
            x = stage(x)
        return x.amax((1, 2, 3))

    def feature_maps(self, video: Tensor) -> dict[str, Tensor]:
        """Every stage's output, each (N, C, T, H, W): `conv1`, and `block1` ... `block4` as Table 1 probes them.

        Table 9 counts its blocks from 2: its block2 is `block1`, its block5 `block4`.
        """
        x, maps = video.permute(0, 2, 3, 4, 1), {}
        for name, stage in self.stages.items():
            x = stage(x)
            maps[name] = x.permute(0, 4, 1, 2, 3)
        return maps


class AvidAudio(nn.Module):
    """Log spectrograms to vectors: (N, 1, F, L) -> (N, 8*width). Any F and L.

    Args:
        width: channels of the stem and the first stage; the four stages have 1, 2, 4 and 8 times as many.
        strides: of the four stages: (1, 2, 2, 1) is Table 9, (2, 2, 2, 1) the code.
    """

    def __init__(self, width: int = 64, strides: tuple[int, int, int, int] = (1, 2, 2, 1)) -> None:
        super().__init__()
        self.out_features = 8 * width
        self.stages = nn.ModuleDict({"conv1": nn.Sequential(*_conv(1, width, 7, 2))})
        inputs = width
        for stage, stride in enumerate(strides):
            outputs = width << stage
            layers = [*_conv(inputs, outputs, 3, stride), *_conv(outputs, outputs, 3, 1)]
            self.stages[f"block{stage + 1}"] = nn.Sequential(*layers)
            inputs = outputs

    def forward(self, audio: Tensor) -> Tensor:
        """Maximum of the last stage over frequency and time (Table 9, max pool)."""
        x = audio.contiguous(memory_format=torch.channels_last)
        for stage in self.stages.values():
            x = stage(x)
        return x.amax((2, 3))

    def feature_maps(self, audio: Tensor) -> dict[str, Tensor]:
        """Every stage's output, each (N, C, F', L'): `conv1`, and `block1` ... `block4` as Table 1 probes them."""
        x, maps = audio.contiguous(memory_format=torch.channels_last), {}
        for name, stage in self.stages.items():
            x = maps[name] = stage(x)
        return maps


def avid_head(inputs: int = 512, widths: tuple[int, ...] = (512, 512, 128)) -> nn.Sequential:
    """MLP (..., inputs) -> (..., widths[-1]), Table 9's fc1 to fc3: a ReLU between layers, no norm, none at the end."""
    layers: list[nn.Module] = []
    for before, after in pairwise((inputs, *widths)):
        layers += [nn.Linear(before, after), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers[:-1])


def _conv(inputs: int, outputs: int, kernel: int, stride: int) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return [conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
