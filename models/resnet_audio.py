"""ResNet audio encoder on log-mel spectrograms (SvaCLR, Table 8: ResNet-9)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .r2plus1d import initialise


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al. 2016), (N, C, H, W) -> (N, C', ceil(H/s), ceil(W/s))."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """relu(conv(relu(conv(x))) + shortcut(x)), each convolution with batch norm."""
        y: Tensor = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu_()))
        return (y + (x if self.downsample is None else self.downsample(x))).relu_()


class AudioResNet(nn.Module):
    """Spectrograms to vectors: (N, 1, F, L) -> (N, 8*width). Any F, L of at least 9.

    The stem pads by 1 and the pool not at all: only so does a 40 x 99 input give the 18 x 48 and 8 x 23 of Table 8.

    Args:
        width: channels of the stem and the first stage; the four stages have 1, 2, 4 and 8 times as many.
        blocks: residual blocks in each stage: (1, 1, 1, 1) is ResNet-9.
    """

    def __init__(self, width: int = 64, blocks: tuple[int, int, int, int] = (1, 1, 1, 1)) -> None:
        super().__init__()
        self.out_features = 8 * width
        stem = [nn.Conv2d(1, width, 7, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        self.stages = nn.ModuleDict({"conv1": nn.Sequential(*stem), "pool_max": nn.MaxPool2d(3, 2)})
        inputs = width
        for stage, depth in enumerate(blocks):
            outputs = width << stage
            first = BasicBlock(inputs, outputs, 1 if stage == 0 else 2)
            rest = (BasicBlock(outputs, outputs) for _ in range(depth - 1))
            self.stages[f"layer{stage + 1}"] = nn.Sequential(first, *rest)
            inputs = outputs
        self.apply(initialise)

    def forward(self, audio: Tensor) -> Tensor:
        """Mean of the last stage over frequency and time (Table 8, pool_avg)."""
        x = audio.contiguous(memory_format=torch.channels_last)
        for stage in self.stages.values():
            x = stage(x)
        return x.mean((2, 3))

    def feature_maps(self, audio: Tensor) -> dict[str, Tensor]:
        """Every stage's output by its name in Table 8 (`conv1`, `pool_max`, `layer1` ...), each (N, C, H, W)."""
        x, maps = audio.contiguous(memory_format=torch.channels_last), {}
        for name, stage in self.stages.items():
            x = maps[name] = stage(x)
        return maps
