import pytest
import torch
from torch import Tensor, nn

from coaug.models.resnet_audio import AudioResNet


def test_output_sizes_are_those_of_table_8():
    maps = AudioResNet().feature_maps(torch.randn(1, 1, 40, 99))
    assert {name: (*x.shape[2:], x.shape[1]) for name, x in maps.items()} == {
        "conv1": (18, 48, 64),
        "pool_max": (8, 23, 64),
        "layer1": (8, 23, 64),
        "layer2": (4, 12, 128),
        "layer3": (2, 6, 256),
        "layer4": (1, 3, 512),
    }


@pytest.mark.parametrize(("bands", "frames"), [(40, 99), (40, 199), (80, 200), (224, 224), (9, 9)])
def test_takes_other_spectrograms(bands, frames):
    assert AudioResNet(8)(torch.randn(2, 1, bands, frames)).shape == (2, 64)


def test_has_nine_layers_with_weights_by_default():
    convolutions = [
        m for m in AudioResNet().modules() if isinstance(m, nn.Conv2d) and m.kernel_size != (1, 1)
    ]
    assert len(convolutions) == 9


def test_equals_a_plain_functional_form():
    torch.manual_seed(0)
    network = AudioResNet(8, (1, 2, 1, 1)).double().eval()
    x = torch.randn(2, 1, 40, 99, dtype=torch.float64)
    torch.testing.assert_close(network(x), functional(dict(network.state_dict()), x, (1, 2, 1, 1)))


def functional(state: dict[str, Tensor], x: Tensor, blocks: tuple[int, ...]) -> Tensor:
    def norm(x: Tensor, name: str) -> Tensor:
        mean, var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
        scale = state[f"{name}.weight"] / (var + 1e-5).sqrt()
        return (x - mean[:, None, None]) * scale[:, None, None] + state[f"{name}.bias"][:, None, None]

    def conv(x: Tensor, name: str, stride: int, padding: int) -> Tensor:
        return nn.functional.conv2d(x, state[f"{name}.weight"], None, stride, padding)

    x = norm(conv(x, "stages.conv1.0", 2, 1), "stages.conv1.1").relu()
    x = nn.functional.max_pool2d(x, 3, 2)
    for stage, depth in enumerate(blocks):
        for block in range(depth):
            at, stride = f"stages.layer{stage + 1}.{block}", 2 if stage and not block else 1
            y = norm(conv(x, f"{at}.conv1", stride, 1), f"{at}.bn1").relu()
            y = norm(conv(y, f"{at}.conv2", 1, 1), f"{at}.bn2")
            if stride == 2:
                x = norm(conv(x, f"{at}.downsample.0", 2, 0), f"{at}.downsample.1")
            x = (x + y).relu()
    return x.mean((2, 3))
