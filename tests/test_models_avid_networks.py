import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from torch import Tensor, nn

from coaug.models.avid_networks import AvidAudio, AvidVideo, Stem, SumBlock, avid_head
from coaug.models.r2plus1d import Frames, Timelines

VIDEO = {  # Table 9: X_s, X_t, C, K_s, K_t, S_s, S_t
    "conv1": (56, 16, 64, 7, 3, 2, 1),
    "block2.1": (56, 16, 64, 3, 3, 1, 1),
    "block2.2": (56, 16, 64, 3, 3, 1, 1),
    "block3.1": (28, 8, 128, 3, 3, 2, 2),
    "block3.2": (28, 8, 128, 3, 3, 1, 1),
    "block4.1": (14, 4, 256, 3, 3, 2, 2),
    "block4.2": (14, 4, 256, 3, 3, 1, 1),
    "block5.1": (7, 2, 512, 3, 3, 2, 2),
    "block5.2": (7, 2, 512, 3, 3, 1, 1),
}
AUDIO = {  # Table 9: X_f, X_t, C, K_f, K_t, S_f, S_t
    "conv1": (65, 50, 64, 7, 7, 2, 2),
    "block2.1": (65, 50, 64, 3, 3, 1, 1),
    "block2.2": (65, 50, 64, 3, 3, 1, 1),
    "block3.1": (33, 25, 128, 3, 3, 2, 2),
    "block3.2": (33, 25, 128, 3, 3, 1, 1),
    "block4.1": (17, 13, 256, 3, 3, 2, 2),
    "block4.2": (17, 13, 256, 3, 3, 1, 1),
    "block5.1": (17, 13, 512, 3, 3, 1, 1),
    "block5.2": (17, 13, 512, 3, 3, 1, 1),
}
HEAD = {"fc1": 512, "fc2": 512, "fc3": 128}


def test_video_layers_are_those_of_table_9():
    with torch.device("meta"):
        network, clip, seen = AvidVideo(), torch.empty(1, 3, 16, 112, 112), {}
        for name, layer, convolutions in video_rows(network):
            layer.register_forward_hook(row(seen, name, *convolutions))
        pooled = network(clip)
    assert {name: seen[name] for name in VIDEO} == VIDEO
    assert pooled.shape == (1, 512)


def video_rows(network: AvidVideo):
    """Each row of the table: where it ends, and its convolution in space and in time."""
    (stem,) = (m for m in network.modules() if isinstance(m, Stem))
    yield "conv1", stem, (stem[0], None)
    for n, block in enumerate((m for m in network.modules() if isinstance(m, SumBlock)), 2):
        yield f"block{n}.1", block.temporal1, (block.spatial1[0], block.temporal1[0])
        yield f"block{n}.2", block, (block.spatial2[0], block.temporal2[0])


def row(seen: dict, name: str, space: nn.Conv2d, time: nn.Conv2d | None):
    """Hook on a layer of (N, T, H, W, C): its line of Table 9."""
    k_t, s_t = (3, 1) if time is None else (time.kernel_size[0], time.stride[0])  # a stem sees three frames

    def hook(_module: nn.Module, _inputs: object, y: Tensor) -> None:
        _, frames, height, width, channels = y.shape
        assert height == width and space.kernel_size[0] == space.kernel_size[1]
        assert space.out_channels == channels  # plain mid channels
        seen[name] = (height, frames, channels, space.kernel_size[0], k_t, space.stride[0], s_t)

    return hook


def test_audio_layers_are_those_of_table_9():
    with torch.device("meta"):
        network, sound, seen = AvidAudio(), torch.empty(1, 1, 129, 100), []
        for layer in (m for m in network.modules() if isinstance(m, nn.Conv2d)):
            layer.register_forward_hook(
                lambda m, _, y: seen.append((*y.shape[2:], y.shape[1], *m.kernel_size, *m.stride))
            )
        pooled = network(sound)
    assert dict(zip(AUDIO, seen, strict=True)) == AUDIO
    assert pooled.shape == (1, 512)


def test_heads_are_those_of_table_9():
    head = avid_head()
    layers = [layer for layer in head if isinstance(layer, nn.Linear)]
    assert [layer.out_features for layer in layers] == list(HEAD.values())
    assert [type(layer) for layer in head] == [nn.Linear, nn.ReLU, nn.Linear, nn.ReLU, nn.Linear]
    assert avid_head(16, (8, 4))(torch.randn(3, 2, 16)).shape == (3, 2, 4)


@pytest.mark.parametrize(
    ("shape", "blocks", "pool", "sizes"),
    [
        ((16, 112), (1, 1, 1, 1), False, [(16, 56), (16, 56), (8, 28), (4, 14), (2, 7)]),
        ((16, 112), (1, 1, 1, 1), True, [(16, 28), (16, 28), (8, 14), (4, 7), (2, 4)]),
        ((8, 224), (2, 2, 2, 2), True, [(8, 56), (8, 56), (4, 28), (2, 14), (1, 7)]),
        ((8, 224), (2, 2, 2, 2), False, [(8, 112), (8, 112), (4, 56), (2, 28), (1, 14)]),
        ((32, 224), (2, 2, 2, 2), True, [(32, 56), (32, 56), (16, 28), (8, 14), (4, 7)]),
    ],
)
def test_video_maps_at_both_sizes_with_and_without_the_pool(shape, blocks, pool, sizes):
    frames, side = shape
    with torch.device("meta"):
        maps = AvidVideo(blocks=blocks, stem_pool=pool).feature_maps(torch.empty(1, 3, frames, side, side))
    widths = (64, 64, 128, 256, 512)
    names = ("conv1", "block1", "block2", "block3", "block4")
    expected = {n: (1, c, t, s, s) for n, c, (t, s) in zip(names, widths, sizes, strict=True)}
    assert {name: tuple(x.shape) for name, x in maps.items()} == expected


@pytest.mark.parametrize(
    ("shape", "strides", "sizes"),
    [
        ((129, 100), (1, 2, 2, 1), [(65, 50), (65, 50), (33, 25), (17, 13), (17, 13)]),
        ((257, 200), (2, 2, 2, 1), [(129, 100), (65, 50), (33, 25), (17, 13), (17, 13)]),
    ],
)
def test_audio_maps_at_both_sizes(shape, strides, sizes):
    with torch.device("meta"):
        maps = AvidAudio(strides=strides).feature_maps(torch.empty(1, 1, *shape))
    widths = (64, 64, 128, 256, 512)
    names = ("conv1", "block1", "block2", "block3", "block4")
    expected = {n: (1, c, *size) for n, c, size in zip(names, widths, sizes, strict=True)}
    assert {name: tuple(x.shape) for name, x in maps.items()} == expected


def test_eighteen_layers_have_as_many_weights_as_the_code_s():
    # stem 3*3*7*7*64, (9 + 3) a pair of channels and convolution, shortcuts without batch norm
    convolutions = 28_224
    for inputs, outputs in ((64, 64), (64, 128), (128, 256), (256, 512)):
        convolutions += 9 * inputs * outputs + 3 * 9 * outputs**2 + 4 * 3 * outputs**2
        convolutions += inputs * outputs if inputs != outputs else 0
    norms = 2 * 64 + sum(2 * 8 * c for c in (64, 128, 256, 512))
    with torch.device("meta"):
        network = AvidVideo(blocks=(2, 2, 2, 2))
    assert sum(p.numel() for p in network.parameters()) == convolutions + norms


def test_no_convolution_is_3d():
    assert not any(isinstance(m, nn.Conv3d | nn.BatchNorm3d | nn.MaxPool3d) for m in AvidVideo(8).modules())


@examples(max_examples=25)
@given(
    n=st.integers(1, 2),
    t=st.integers(1, 6),
    h=st.integers(1, 12),
    w=st.integers(1, 12),
    channels=st.integers(1, 3),
)
def test_stem_is_a_full_3d_convolution(n, t, h, w, channels):
    draw = torch.Generator().manual_seed(t * h + w)
    stem = Stem(nn.Conv2d(3 * channels, 4, 7, 2, 3, bias=False).double())
    x = torch.randn(n, channels, t, h, w, generator=draw, dtype=torch.float64)
    weight = stem[0].weight.detach().reshape(4, channels, 3, 7, 7)
    expected = nn.functional.conv3d(x, weight, None, (1, 2, 2), (1, 3, 3))
    torch.testing.assert_close(stem(x.permute(0, 2, 3, 4, 1)).permute(0, 4, 1, 2, 3), expected)


@examples(max_examples=15)
@given(t=st.integers(1, 9), h=st.integers(1, 40), w=st.integers(1, 40), pool=st.booleans())
def test_takes_clips_of_any_size(t, h, w, pool):
    network = AvidVideo(4, stem_pool=pool).eval()
    assert network(torch.randn(1, 3, t, h, w)).shape == (1, network.out_features)


@examples(max_examples=15)
@given(bands=st.integers(1, 60), frames=st.integers(1, 60), first=st.sampled_from([1, 2]))
def test_takes_spectrograms_of_any_size(bands, frames, first):
    network = AvidAudio(4, (first, 2, 2, 1)).eval()
    assert network(torch.randn(2, 1, bands, frames)).shape == (2, network.out_features)


@pytest.mark.parametrize("pool", [True, False])
def test_maps_pool_to_the_output(pool):
    network, x = AvidVideo(8, stem_pool=pool).eval(), torch.randn(2, 3, 4, 32, 32)
    torch.testing.assert_close(network.feature_maps(x)["block4"].amax((2, 3, 4)), network(x))
    audio, x = AvidAudio(8).eval(), torch.randn(2, 1, 30, 40)
    torch.testing.assert_close(audio.feature_maps(x)["block4"].amax((2, 3)), audio(x))


def test_activations_are_never_copied_between_the_two_views():
    network, seen = AvidVideo(8, stem_pool=True), []
    for module in network.modules():
        if isinstance(module, Frames | Timelines):
            module.register_forward_hook(lambda _, __, y: seen.append(y.is_contiguous()))
    network(torch.randn(2, 3, 4, 32, 32))
    assert len(seen) == 1 + 5 * 4 + 3  # stem, four halves of convolutions and a norm a block, shortcuts
    assert all(seen)


@pytest.mark.parametrize("network", [AvidVideo(4, stem_pool=True), AvidAudio(4)])
def test_every_weight_learns(network):
    shape = (2, 3, 4, 32, 32) if isinstance(network, AvidVideo) else (2, 1, 30, 40)
    (network(torch.randn(shape)) ** 2).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())
