from pathlib import Path

import avid_published as published
import pytest
import torch
from avid_published import CODE, ONE, TABLE_9, TWO, WIDTH, near, parts
from torch import Tensor, nn

from coaug.models.avid_checkpoint import (
    CheckpointError,
    load_published,
    published_state,
    save_published,
)
from coaug.models.avid_networks import AvidVideo

MIXED = (1, 2, 1, 1)


@pytest.fixture
def write(tmp_path: Path):
    def _write(state: dict[str, Tensor], *, prefix: str = "module.", **more: object) -> Path:
        path = tmp_path / "checkpoint.pth.tar"
        torch.save({"model": {prefix + key: value for key, value in state.items()}, **more}, path)
        return path

    return _write


@pytest.mark.parametrize("blocks", [ONE, TWO, (3, 4, 6, 3)])
def test_names_and_shapes_are_the_published_ones(blocks):
    with torch.device("meta"):
        state = published_state(parts(blocks, width=64))
    assert {name: tuple(value.shape) for name, value in state.items()} == published.shapes(blocks)


@pytest.mark.parametrize("blocks", [ONE, TWO, MIXED])
@pytest.mark.parametrize("pool", [True, False])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("size", [(2, 3, 8, 32, 32), (3, 3, 5, 19, 34)])
def test_video_equals_plain_3d_functions_of_the_file(write, blocks, pool, training, size):
    state = published.random_state(blocks, WIDTH)
    ours, x = parts(blocks, pool=pool), torch.randn(size, dtype=torch.float64, generator=torch.manual_seed(1))
    load_published(write(state), ours)
    network = ours["video"].train(training)
    maps, expected = network.feature_maps(x), published.video_maps(state, x, pool=pool, training=training)
    assert list(maps) == list(expected)
    for name, reference in expected.items():
        near(maps[name], reference)
    y = network(x)
    near(y, expected["block4"].amax((2, 3, 4)))
    near(ours["video_head"](y), published.head(state, "video", expected["block4"].amax((2, 3, 4))))


@pytest.mark.parametrize("strides", [TABLE_9, CODE])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("size", [(2, 1, 50, 65), (3, 1, 31, 22)])
def test_audio_equals_plain_functions_of_the_file_on_transposed_spectrograms(write, strides, training, size):
    state = published.random_state(ONE, WIDTH)
    ours, x = parts(strides=strides), torch.randn(size, dtype=torch.float64, generator=torch.manual_seed(1))
    load_published(write(state), ours)
    network, mirrored = ours["audio"].train(training), x.transpose(2, 3)
    maps = network.feature_maps(mirrored)
    expected = published.audio_maps(state, x, strides=strides, training=training)
    assert list(maps) == list(expected)
    for name, reference in expected.items():
        near(maps[name], reference.transpose(2, 3))
    y = network(mirrored)
    near(y, expected["block4"].amax((2, 3)))
    near(ours["audio_head"](y), published.head(state, "audio", expected["block4"].amax((2, 3))))


@pytest.mark.parametrize("pool", [True, False])
def test_gradients_equal_those_of_plain_3d_functions(write, pool):
    state = published.random_state(MIXED, WIDTH)
    ours, x = parts(MIXED, pool=pool), torch.randn(2, 3, 6, 33, 32, dtype=torch.float64)
    load_published(write(state), ours)
    leaves = {k: v.requires_grad_() for k, v in state.items() if "running" not in k and "batches" not in k}
    weight = torch.randn(2, 8 * WIDTH, dtype=torch.float64)
    (
        published.video_maps(state, x, pool=pool, training=True)["block4"].amax((2, 3, 4)) * weight
    ).sum().backward()
    (ours["video"](x) * weight).sum().backward()
    for parameter in ours["video"].parameters():
        parameter.data = parameter.grad  # whose views in published shapes are then the gradients
    for name, gradient in published_state({"video": ours["video"]}).items():
        if name in leaves:
            near(gradient, leaves[name].grad, 1e-8)


@pytest.mark.parametrize("blocks", [ONE, MIXED])
def test_what_is_saved_is_what_was_loaded(write, tmp_path, blocks):
    state = published.random_state(blocks, WIDTH)
    ours, memory = (
        parts(blocks),
        {"nce_average.view1_mem": torch.randn(5, 128), "criterion.avg_exp_score": torch.ones(1)},
    )
    extras = load_published(write(state, epoch=3, train_criterion=memory, optimizer={"state": {}}), ours)
    save_published(tmp_path / "back.pth.tar", ours, epoch=3, criterion=extras.criterion)
    back = torch.load(tmp_path / "back.pth.tar")
    assert back["epoch"] == extras.epoch == 3
    assert set(back["model"]) == {f"module.{name}" for name in state}
    assert all(torch.equal(back["model"][f"module.{name}"], value) for name, value in state.items())
    assert set(back["train_criterion"]) == set(memory)
    assert all(torch.equal(back["train_criterion"][name], value) for name, value in memory.items())
    assert [p.name for p in tmp_path.iterdir() if "part" in p.name] == []


def test_files_without_prefix_epoch_or_memory_load_too(write):
    state, ours = published.random_state(ONE, WIDTH), parts()
    extras = load_published(write(state, prefix=""), ours)
    assert extras.epoch is None and extras.criterion == {}
    assert all(torch.equal(value, state[name]) for name, value in published_state(ours).items())


def test_files_of_old_torch_load_too(tmp_path):
    state, ours = published.random_state(ONE, WIDTH), parts()
    old = {"model": state, "train_criterion": None}
    torch.save(old, tmp_path / "old.pth.tar", _use_new_zipfile_serialization=False)
    load_published(tmp_path / "old.pth.tar", ours)
    assert all(torch.equal(value, state[name]) for name, value in published_state(ours).items())


def test_channels_last_weights_are_loaded_and_saved_alike(write):
    state, ours = published.random_state(ONE, WIDTH), parts()
    for network in ours.values():
        network.to(memory_format=torch.channels_last)
    load_published(write(state), ours)
    assert all(torch.equal(value, state[name]) for name, value in published_state(ours).items())


def test_a_wrapped_network_is_an_error(write):
    wrapped = nn.DataParallel(AvidVideo(WIDTH))
    with pytest.raises(TypeError, match="video: want a bare AvidVideo, got a DataParallel"):
        load_published(write({}), {"video": wrapped})


def test_parts_may_be_left_out(write):
    state, ours = published.random_state(TWO, WIDTH), parts(TWO)
    before = ours["audio"].state_dict()["stages.conv1.0.weight"].clone()
    load_published(write(state), {"video": ours["video"]})
    assert torch.equal(
        ours["video"].state_dict()["stages.conv1.1.weight"], state["video_model.conv1.1.weight"]
    )
    assert torch.equal(ours["audio"].state_dict()["stages.conv1.0.weight"], before)


def test_weights_of_another_type_are_converted(write):
    state, ours = published.random_state(ONE, WIDTH), parts(dtype=torch.float32)
    load_published(write(state), ours)
    name = "video_model.conv2x.tmp_conv1.weight"
    torch.testing.assert_close(published_state(ours)[name], state[name].float(), rtol=0, atol=0)


def test_errors_name_the_keys_and_nothing_is_copied(write):
    state, ours = published.random_state(ONE, WIDTH), parts()
    before = {name: value.clone() for name, value in published_state(ours).items()}
    gone, odd = "audio_model.block2.bn1.bias", "video_model.conv2x.tmp_conv1.weight"
    del state[gone]
    state |= {"video_model.conv6x.bias": torch.ones(1), "extra": torch.ones(1), odd: torch.ones(2, 2)}
    with pytest.raises(CheckpointError) as caught:
        load_published(write(state), ours)
    message = str(caught.value)
    assert "checkpoint.pth.tar" in message
    assert f"missing: {gone};" in message
    assert "unexpected: video_model.conv6x.bias, extra;" in message
    assert f"of another shape: {odd} (there (2, 2), here (8, 8, 3, 1, 1))" in message
    assert all(torch.equal(value, before[name]) for name, value in published_state(ours).items())


def test_another_depth_is_an_error_of_a_few_lines(write):
    with pytest.raises(CheckpointError, match=r"missing: video_model\.conv2x\.0\..* and \d+ more") as caught:
        load_published(write(published.random_state(ONE, WIDTH)), parts(TWO))
    assert len(str(caught.value)) < 1500


@pytest.mark.parametrize(
    "content", [{"state_dict": {}, "epoch": 3}, [1, 2], {"model": 3}, {"model": {"a": 3}}]
)
def test_other_files_of_torch_are_an_error(tmp_path, content):
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=r"x\.pt: .*'model'; here is (state_dict, epoch|list|model)"):
        load_published(tmp_path / "x.pt", parts())


@pytest.mark.parametrize("content", [b"", b"no checkpoint", None])
def test_unreadable_files_are_an_error(tmp_path, content):
    if content is not None:
        (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"x\.pt: cannot be read"):
        load_published(tmp_path / "x.pt", parts())
