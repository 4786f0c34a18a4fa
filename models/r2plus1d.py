"""R(2+1)D video encoder (Tran et al. 2018; SvaCLR, Table 7), every convolution a channels-last conv2d.

A (2+1)D network needs no Conv3d. Activations live in memory as (N, T, H, W, C) and are seen in two ways, neither
of which moves a byte:

    frames     (N*T, C, H, W)   channels-last: 1 x k x k convolutions are conv2d k x k
    timelines  (N, C, T, H*W)   channels-last: k x 1 x 1 convolutions are conv2d k x 1

Batch norm sees the same elements per channel through either view, so it is BatchNorm2d. That is exact, and it is
quick where Conv3d is not (bf16 Conv3d of torch 2.9 and later; Conv3d on a CPU). A video whose memory is already
(N, T, H, W, 3) is not copied either.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

Mid = Literal["balanced", "plain"]


def mid_channels(inputs: int, outputs: int) -> int:
    """Channels between the two halves of a (2+1)D convolution: as many parameters as a full 3x3x3 one would have.

    Tran et al. (2018), section 3.5, with t = d = 3: 144, 230, 288, 460, 576, 921, 1152 for the widths of R(2+1)D-18.
    """
    return 27 * inputs * outputs // (9 * inputs + 3 * outputs)


class Frames(nn.Sequential):
    """2d layers over the frames of an (N, T, H, W, C) activation; returns (N, T, H', W', C')."""

    def forward(self, x: Tensor) -> Tensor:
        """Fold T into N, apply, unfold."""
        n, t, h, w, c = x.shape
        y = _channels_last(self, x.reshape(n * t, h, w, c))
        return y.reshape(n, t, *y.shape[1:])


class Timelines(nn.Sequential):
    """2d layers over T x (H*W) of an (N, T, H, W, C) activation; returns (N, T', H, W, C')."""

    def forward(self, x: Tensor) -> Tensor:
        """Fold H into W, apply, unfold."""
        n, t, h, w, c = x.shape
        y = _channels_last(self, x.reshape(n, t, h * w, c))
        return y.reshape(n, y.shape[1], h, w, y.shape[3])


def _channels_last(layers: nn.Sequential, x: Tensor) -> Tensor:
    """The 2d layers on memory laid out as (N, H, W, C), which is what torch calls channels-last."""
    x = x.permute(0, 3, 1, 2)
    for layer in layers:
        x = layer(x)
    return x.permute(0, 2, 3, 1)


def spatial(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> Frames:
    """1 x k x k convolution of that stride in space, batch norm, ReLU."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return Frames(conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def temporal(inputs: int, outputs: int, stride: int = 1, *, relu: bool = True) -> Timelines:
    """3 x 1 x 1 convolution of that stride in time, batch norm and, if asked, ReLU."""
    conv = nn.Conv2d(inputs, outputs, (3, 1), (stride, 1), (1, 0), bias=False)
    return Timelines(conv, nn.BatchNorm2d(outputs), *([nn.ReLU(inplace=True)] if relu else []))


class Block(nn.Module):
    """Basic residual block of two (2+1)D convolutions on (N, T, H, W, C); `stride` is that of time and space."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1, mid: Mid = "balanced") -> None:
        super().__init__()
        between = mid_channels(inputs, outputs) if mid == "balanced" else outputs
        self.conv1 = nn.Sequential(
            spatial(inputs, between, stride=stride), temporal(between, outputs, stride)
        )
        self.conv2 = nn.Sequential(spatial(outputs, between), temporal(between, outputs, relu=False))
        self.stride = stride
        self.downsample: Frames | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = Frames(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, H, W, C) -> (N, ceil(T/s), ceil(H/s), ceil(W/s), C')."""
        y: Tensor = self.conv2(self.conv1(x))
        if self.downsample is not None:
            s = self.stride
            x = self.downsample(x[:, ::s, ::s, ::s])
        return (y + x).relu_()


class R2Plus1d(nn.Module):
    """Clips to vectors: (N, 3, T, H, W) -> (N, 8*width).

    Args:
        width: channels of the first stage; the four stages have 1, 2, 4 and 8 times as many, the stem's inner
            convolution 45/64 as many (rounded).
        blocks: residual blocks in each stage: (2, 2, 2, 2) is R(2+1)D-18, (1, 1, 1, 1) R(2+1)D-10.
        mid: channels inside a (2+1)D convolution: "balanced" after Tran et al. (`mid_channels`, per block, as in
            torchvision), or "plain", as many as it puts out, which is what Table 7 prints.
    """

    def __init__(
        self, width: int = 64, blocks: tuple[int, int, int, int] = (2, 2, 2, 2), mid: Mid = "balanced"
    ) -> None:
        super().__init__()
        inner = round(width * 45 / 64)
        self.out_features = 8 * width
        self.stages = nn.ModuleDict({"conv1_1": spatial(3, inner, 7, 2), "conv1_2": temporal(inner, width)})
        inputs = width
        for stage, depth in enumerate(blocks):
            outputs = width << stage
            first = Block(inputs, outputs, 1 if stage == 0 else 2, mid)
            rest = (Block(outputs, outputs, mid=mid) for _ in range(depth - 1))
            self.stages[f"conv{stage + 2}"] = nn.Sequential(first, *rest)
            inputs = outputs
        self.apply(initialise)

    def forward(self, video: Tensor) -> Tensor:
        """Mean of the last stage over time and space (Table 7, pool_avg)."""
        x = video.permute(0, 2, 3, 4, 1)
        for stage in self.stages.values():
            x = stage(x)
        return x.mean((1, 2, 3))

    def feature_maps(self, video: Tensor) -> dict[str, Tensor]:
        """Every stage's output by its name in Table 7 (`conv1_1` ... `conv5`), each (N, C, T, H, W)."""
        x, maps = video.permute(0, 2, 3, 4, 1), {}
        for name, stage in self.stages.items():
            x = stage(x)
            maps[name] = x.permute(0, 4, 1, 2, 3)
        return maps


def initialise(module: nn.Module) -> None:
    """He et al.'s normal initialisation, fan out, as torchvision's video networks have it."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
