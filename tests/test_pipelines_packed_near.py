"""Frames near a moment: within the slack, of the lowest level, no frame twice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from catalogs import recording
from hypothesis import given
from hypothesis import strategies as st
from media import write_clip
from packs import opened, write

from coaug.pipelines.config import VideoConfig
from coaug.pipelines.packed.near import cheapest
from coaug.pipelines.packed.settings import Packing
from coaug.pipelines.packets import PacketTable

TICK = 1 / 32
LEVELS = np.tile([0, 2, 2, 2, 2, 2, 2, 2, 1, 2, 2, 2, 2, 2, 2, 2], 8).astype(np.uint8)  # I b… P b…
ORDER = np.arange(128)


def table(order: np.ndarray = ORDER) -> PacketTable:
    return PacketTable(order.astype(np.int64), LEVELS[order] == 0, np.ones(128, bool), TICK)


@given(start=st.floats(0, 1), stride=st.floats(0.5, 16), share=st.floats(0.01, 0.5), data=st.randoms())
def test_against_all_frames_one_by_one(start: float, stride: float, share: float, data: object) -> None:
    instants = start + stride * TICK * np.arange(12)
    instants = instants[instants < 120 * TICK]
    slack = np.full(len(instants), share * stride * TICK)
    order = np.random.default_rng(data.getrandbits(32)).permutation(128)  # type: ignore[attr-defined]
    found = cheapest(table(order), LEVELS[order], instants, slack)
    for instant, moment in zip(instants, found, strict=True):
        own = int(np.floor((instant + 1e-6) / TICK))
        near = [n for n in range(128) if instant - slack[0] - 1e-6 <= n * TICK < instant + slack[0] - 1e-6]
        better = [n for n in near if LEVELS[n] < LEVELS[own]]
        if not better:
            assert moment == instant
            continue
        best = [n for n in better if LEVELS[n] == min(LEVELS[better])]
        assert round(moment / TICK) in best
        assert abs(moment - instant) <= min(abs(n * TICK - instant) for n in best) + 1e-9


@pytest.mark.parametrize(("stride", "kinds"), [(8, {0, 1}), (16, {0})])
def test_of_strides_as_long_as_the_layers_only_these_are_left_each_once(stride: int, kinds: set[int]) -> None:
    rng = np.random.default_rng(0)
    for start in rng.uniform(0.5, 1.5, 50) * stride * TICK:
        instants = start + stride * TICK * np.arange(6)
        slack = np.full(len(instants), stride / 2 * TICK)
        frames = np.floor(cheapest(table(), LEVELS, instants, slack) / TICK + 1e-4).astype(int)
        assert set(LEVELS[frames].tolist()) <= kinds
        assert (np.diff(frames) > 0).all()


@pytest.mark.parametrize(("speed", "most"), [(2, 1.2), (4, 1.2), (8, 1.01)])
def test_a_layered_film_decodes_little_more_than_it_shows(tmp_path: Path, speed: int, most: float) -> None:
    film = recording(write_clip(tmp_path / "film.mp4", size=(64, 48), fps=30, frames=300).path)
    media = opened(write(tmp_path / "0.tar", [film], Packing("layered", size=48)))
    count, stride, rng = 16 // (speed // 4 or 1), speed / 15, np.random.default_rng(speed)
    decoded = shown = 0
    for start in rng.uniform(film.start, film.end - count * stride, 20):
        instants = start + stride * (np.arange(count) + 0.5)
        moments = media.near(instants, np.full(count, stride / 2))
        assert np.abs(moments - instants).max() <= stride / 2
        frames = media.frames(moments, lambda frame, room: room((1,)))
        decoded, shown = decoded + frames.decoded, shown + len(np.unique(frames.index))
    assert decoded / shown <= most


def test_slack_beyond_half_a_frame_is_refused() -> None:
    with pytest.raises(ValueError, match="slack"):
        VideoConfig(slack=0.6)
