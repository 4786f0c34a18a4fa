import pytest
import torch
from torch import Tensor, nn

from coaug.models.r2plus1d import Frames, R2Plus1d, Timelines, mid_channels


class Conv3dBlock(nn.Module):
    """torchvision's BasicBlock with Conv2Plus1D, from its source."""

    def __init__(self, inputs: int, outputs: int, stride: int, mid: int) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(
            *conv2plus1d(inputs, mid, outputs, stride), nn.BatchNorm3d(outputs), nn.ReLU()
        )
        self.conv2 = nn.Sequential(*conv2plus1d(outputs, mid, outputs), nn.BatchNorm3d(outputs))
        self.downsample = nn.Identity()
        if stride != 1 or inputs != outputs:
            shortcut = nn.Conv3d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm3d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv2(self.conv1(x)) + self.downsample(x))


def conv2plus1d(inputs: int, mid: int, outputs: int, stride: int = 1) -> list[nn.Module]:
    spatial = nn.Conv3d(inputs, mid, (1, 3, 3), (1, stride, stride), (0, 1, 1), bias=False)
    temporal = nn.Conv3d(mid, outputs, (3, 1, 1), (stride, 1, 1), (1, 0, 0), bias=False)
    return [spatial, nn.BatchNorm3d(mid), nn.ReLU(), temporal]


def conv3d_network(width: int, blocks: tuple[int, ...], *, plain: bool = False) -> nn.Sequential:
    inner = round(45 * width / 64)
    layers: list[nn.Module] = [
        nn.Conv3d(3, inner, (1, 7, 7), (1, 2, 2), (0, 3, 3), bias=False),
        nn.BatchNorm3d(inner),
        nn.ReLU(),
        nn.Conv3d(inner, width, (3, 1, 1), 1, (1, 0, 0), bias=False),
        nn.BatchNorm3d(width),
        nn.ReLU(),
    ]
    inputs = width
    for stage, depth in enumerate(blocks):
        for block in range(depth):
            outputs, stride = width * 2**stage, 2 if stage and not block else 1
            mid = outputs if plain else (inputs * outputs * 3 * 3 * 3) // (inputs * 3 * 3 + 3 * outputs)
            layers.append(Conv3dBlock(inputs, outputs, stride, mid))
            inputs = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool3d(1), nn.Flatten())


def twin(
    width: int, blocks: tuple[int, int, int, int], *, plain: bool = False
) -> tuple[R2Plus1d, nn.Sequential]:
    """Both forms with the same, non-trivial, parameters and running statistics."""
    torch.manual_seed(0)
    ours = R2Plus1d(width, blocks, "plain" if plain else "balanced")
    reference = conv3d_network(width, blocks, plain=plain)
    pairs = list(zip(ours.state_dict().values(), reference.state_dict().values(), strict=True))
    for a, b in pairs:
        if a.is_floating_point():
            b.copy_(torch.rand_like(b) + 0.5 if b.ndim == 1 else torch.randn_like(b) / b[0].numel() ** 0.5)
        a.copy_(b.reshape(a.shape))
    return ours, reference


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
@pytest.mark.parametrize("shape", [(2, 3, 8, 24, 24), (1, 3, 5, 17, 30)])
@pytest.mark.parametrize("plain", [False, True])
def test_conv2d_form_equals_conv3d(dtype, rtol, shape, plain):
    ours, reference = (m.to(dtype) for m in twin(8, (1, 2, 1, 1), plain=plain))
    x, y = (
        torch.randn(shape, dtype=dtype, generator=torch.manual_seed(1)).requires_grad_() for _ in range(2)
    )
    out, expected = ours(x), reference(y)
    weight = torch.randn_like(expected)
    (out * weight).sum().backward()
    (expected * weight).sum().backward()
    close(out, expected, rtol)
    close(x.grad, y.grad, rtol)
    for a, b in zip(ours.parameters(), reference.parameters(), strict=True):
        close(a.grad.reshape(b.shape), b.grad, rtol)
    for a, b in zip(ours.buffers(), reference.buffers(), strict=True):  # running statistics after the step
        close(a, b, rtol)
    close(ours.eval()(x), reference.eval()(y), rtol)


def close(a: Tensor, b: Tensor, rtol: float) -> None:
    scale = b.abs().max().item() if b.is_floating_point() else 0.0
    torch.testing.assert_close(a, b, rtol=0, atol=rtol * scale)


def test_output_sizes_are_those_of_table_7():
    with torch.device("meta"):
        maps = R2Plus1d().feature_maps(torch.empty(1, 3, 30, 128, 128))
        pooled = R2Plus1d()(torch.empty(1, 3, 30, 128, 128))
    sizes = {name: tuple(x.shape[1:]) for name, x in maps.items()}
    assert sizes == {
        "conv1_1": (45, 30, 64, 64),
        "conv1_2": (64, 30, 64, 64),
        "conv2": (64, 30, 64, 64),
        "conv3": (128, 15, 32, 32),
        "conv4": (256, 8, 16, 16),
        "conv5": (512, 4, 8, 8),
    }
    assert pooled.shape == (1, 512)


def test_mid_channels_are_those_of_the_published_network():
    widths = [(64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 512), (512, 512)]
    assert [mid_channels(*pair) for pair in widths] == [144, 230, 288, 460, 576, 921, 1152]


def test_eighteen_layers_have_the_published_number_of_parameters():
    # torchvision publishes 31,505,325 for r2plus1d_18, of which 512 * 400 + 400 are the classifier's
    with torch.device("meta"):
        count = sum(p.numel() for p in R2Plus1d().parameters())
        assert count == sum(p.numel() for p in conv3d_network(64, (2, 2, 2, 2)).parameters())
    assert count == 31_505_325 - 205_200


def test_activations_are_never_copied_between_the_two_views():
    network, seen = R2Plus1d(8, (1, 1, 1, 1)), []
    for module in network.modules():
        if isinstance(module, Frames | Timelines):
            module.register_forward_hook(lambda _, __, y: seen.append(y.is_contiguous()))
    network(torch.randn(2, 3, 4, 32, 32))
    assert len(seen) == 2 + 4 * 4 + 3  # stem, two (2+1)D convolutions a block, shortcuts
    assert all(seen)


def test_feature_maps_pool_to_the_output():
    network, x = R2Plus1d(8, (1, 1, 1, 1)).eval(), torch.randn(2, 3, 4, 16, 16)
    torch.testing.assert_close(network.feature_maps(x)["conv5"].mean((2, 3, 4)), network(x))
