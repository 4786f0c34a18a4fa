"""The augmentation benchmark compares like with like: the peer does the same work, and steps add up."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

FOLDER = str(Path(__file__).parents[1] / "benchmarks")


class Scripts(NamedTuple):
    """They stand beside each other."""

    augment: ModuleType
    clips: ModuleType
    ours: ModuleType
    peers: ModuleType


@pytest.fixture(scope="module")
def benchmark() -> Iterator[Scripts]:
    sys.path.insert(0, FOLDER)
    try:
        import augment
        import augment_clips
        import augment_ours
        import augment_peers

        yield Scripts(augment, augment_clips, augment_ours, augment_peers)
    finally:
        sys.path.remove(FOLDER)


@pytest.mark.parametrize(("name", "quieter"), [("svaclr", 0.01), ("tempssl", 0.01), ("staug", 0.15)])
def test_both_chains_give_the_same(benchmark: Scripts, name: str, quieter: float) -> None:
    """Up to whole-pixel crops (0.1 is 6 shades), and where samples stand between those of the file (0.01 is 0.2 dB)."""
    _, clips, scripts, peers = benchmark
    setup = clips.Setup.of(clips.recipe(name), batch=2)
    with clips.in_memory(setup.memories):
        ours = scripts.Ours(setup.source, 2, "cpu", 1).tensors()
        video, audio = peers.Peer(setup.source.config)(setup.clips(0))
    for mine, theirs in zip(ours["video"].flatten(0, 1), video, strict=True):
        assert (mine - theirs).abs().mean() < 0.1 < mine.std()
    for mine, theirs in zip(ours["audio"].flatten(0, 1), audio, strict=True):
        assert (mine - theirs).abs().median() < quieter < mine.std()


def test_blur_is_a_gaussian(benchmark: Scripts) -> None:
    pictures = np.random.default_rng(0).random((1, 3, 2, 20, 31), np.float32)
    expected = gaussian_filter(pictures, 1.3, mode="mirror", radius=4, axes=(3, 4))
    np.testing.assert_allclose(benchmark.peers.soften(torch.from_numpy(pictures), 1.3), expected, atol=1e-5)


def test_neutral_colours_change_nothing(benchmark: Scripts) -> None:
    np.testing.assert_allclose(benchmark.peers.matrix((1, 1, 1, 0)), np.eye(3, 4), atol=1e-6)


def test_frames_that_are_repeated_are_shown_once(benchmark: Scripts) -> None:
    index = np.array([4, 4, 2, 2, 2, 7], np.int32)
    shown, repeats = benchmark.clips.once(index)
    assert shown.tolist() == [2, 4, 7]
    assert shown[repeats].tolist() == index.tolist()
    backwards, none = benchmark.clips.once(np.array([5, 3, 1], np.int32))
    assert backwards.tolist() == [5, 3, 1]
    assert none is None


def test_steps_are_what_longer_parts_take_more(benchmark: Scripts) -> None:
    ours = {
        "plan": 1.0,
        "play": 2.0,
        "spectrogram": 5.0,
        "feed": 1.0,
        "resize": 5.0,
        "colour": 6.0,
        "whole": 14.0,
    }
    peer = {
        "play": 1.0,
        "spectrogram": 3.0,
        "resize": 3.0,
        "colour": 4.0,
        "normalise": 8.0,
        "convert": 2.0,
        "whole": 14.0,
        "quick": 7.0,
        "copy": 2.0,
    }
    middle = {"whole": (0.8, 0.9), "quick": (0.5, 0.6)}
    rows = {row["part"]: (row["ours"], row["peer"]) for row in benchmark.augment.rows_of(ours, peer, middle)}
    assert rows == {
        "plan, compile": (1.0, None),
        "play": (2.0, 1.0),
        "spectrogram": (3.0, 2.0),
        "resize": (5.0, 7.0),  # the choice of frames and the normalisation count with it
        "colour": (1.0, 1.0),
        "to RGB": (0.0, 2.0),
        "hand over": (2.0, 1.0),
        "whole": (14.0, 14.0),
        "quick": (14.0, 7.0),
        "copy": (2.0, 2.0),
    }
