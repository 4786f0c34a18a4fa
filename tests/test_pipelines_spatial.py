"""Crops against the code of the papers they come from, and their distributions."""

from __future__ import annotations

import math
import random
from collections import Counter
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare, ks_2samp

from coaug.pipelines.recipe import RecipeError, parse
from coaug.pipelines.spatial import CROPS, Box, Crop


def crop(recipe: str) -> Crop:
    (step,) = parse(recipe, CROPS)
    return step.what


def tsn_crops(width: int, height: int, scales: list[float]) -> list[Box]:
    """Everything that GroupMultiScaleCrop of the TSN authors may return, as often as it is likely."""
    base = min(width, height)
    sizes = [round(base * scale) for scale in scales]
    boxes = []
    for i, h in enumerate(sizes):
        for j, w in enumerate(sizes):
            if abs(i - j) <= 1:
                w_step, h_step = (width - w) // 4, (height - h) // 4
                offsets = [(0, 0), (4 * w_step, 0), (0, 4 * h_step), (4 * w_step, 4 * h_step)]
                offsets += [(2 * w_step, 2 * h_step), (0, 2 * h_step), (4 * w_step, 2 * h_step)]
                offsets += [(2 * w_step, 4 * h_step), (2 * w_step, 0 * h_step)]
                offsets += [(1 * w_step, 1 * h_step), (3 * w_step, 1 * h_step)]
                offsets += [(1 * w_step, 3 * h_step), (3 * w_step, 3 * h_step)]
                boxes += [Box(left, top, w, h) for left, top in offsets]
    return boxes


def rounded(box: Box) -> Box:
    return Box(*(round(side, 6) for side in box))


@pytest.mark.parametrize("size", [(1600, 800), (800, 1600), (800, 800)])  # all steps are whole pixels
def test_multiscale_is_that_of_tsn(size: tuple[int, int]) -> None:
    expected = tsn_crops(*size, [1, 0.875, 0.75, 0.66])
    pairs, places = 10, 13
    draws = product((np.arange(pairs) + 0.5) / pairs, (np.arange(places) + 0.5) / places)
    found = [rounded(crop("multiscale").box(*size, np.array(draw), 0)) for draw in draws]
    assert Counter(found) == Counter(expected)
    assert crop("multiscale(1, 0.875, 0.75, 0.66)") == crop("multiscale")


def test_multiscale_draws_every_crop_alike() -> None:
    expected = Counter(tsn_crops(1600, 800, [1, 0.75, 0.5]))
    rng, multiscale, count = np.random.default_rng(0), crop("multiscale(1, 0.75, 0.5)"), 20_000
    found = Counter(rounded(multiscale.box(1600, 800, rng.random(2), 0)) for _ in range(count))
    assert found.keys() == expected.keys()
    shares = [expected[box] / expected.total() * count for box in expected]
    assert chisquare([found[box] for box in expected], shares).pvalue > 1e-3


def torchvision_crop(rng: random.Random, width: int, height: int) -> Box:
    """RandomResizedCrop.get_params with scale (0.2, 1) and ratio (3/4, 4/3)."""
    for _ in range(10):
        area = width * height * rng.uniform(0.2, 1)
        aspect = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return Box(rng.randint(0, width - w), rng.randint(0, height - h), w, h)
    ratio = width / height
    w, h = width, height
    if ratio < 3 / 4:
        h = round(w / (3 / 4))
    elif ratio > 4 / 3:
        w = round(h * (4 / 3))
    return Box((width - w) // 2, (height - h) // 2, w, h)


@pytest.mark.parametrize("size", [(34000, 25600), (25600, 34000), (60000, 21000)])  # the last often gives up
def test_resized_is_distributed_as_torchvisions(size: tuple[int, int]) -> None:
    rng, other, resized = np.random.default_rng(0), random.Random(0), crop("resized(0.2, 1)")
    ours = np.array([resized.box(*size, rng.random(resized.draws), 0) for _ in range(4000)])
    theirs = np.array([torchvision_crop(other, *size) for _ in range(4000)], np.float64)
    for boxes in (ours, theirs):  # places as shares of the room; one pixel is too small to be seen
        boxes[:, :2] /= np.maximum(np.array(size) - boxes[:, 2:], 1)
    for column in range(4):
        assert ks_2samp(ours[:, column], theirs[:, column]).pvalue > 1e-3


@pytest.mark.parametrize(
    ("size", "expected"),
    [((340, 256), [(0, 0), (42, 0), (84, 0)]), ((256, 340), [(0, 0), (0, 42), (0, 84)])],
)
def test_three_cover_the_longer_side(size: tuple[int, int], expected: list[tuple[int, int]]) -> None:
    boxes = [crop("three").box(*size, np.empty(0), view) for view in range(6)]
    assert boxes == [Box(left, top, 256, 256) for left, top in expected] * 2
    assert crop("centre").box(*size, np.empty(0), 7) == boxes[1]


@given(
    st.sampled_from(
        ["resized", "resized(0.08, 0.9, 0.5, 2)", "multiscale", "multiscale(0.3)", "centre", "three"]
    ),
    st.integers(1, 4000),
    st.integers(1, 4000),
    st.integers(0, 2**32),
)
def test_crops_lie_inside(recipe: str, width: int, height: int, seed: int) -> None:
    chosen = crop(recipe)
    for view in range(3):
        box = chosen.box(width, height, np.random.default_rng(seed).random(chosen.draws), view)
        assert box.width > 0 and box.height > 0 and box.left >= 0 and box.top >= 0
        assert box.left + box.width <= width + 1e-6 and box.top + box.height <= height + 1e-6


@pytest.mark.parametrize(
    ("recipe", "told"),
    [
        ("multiscale(1.5)", r"shares of the shorter side, in \(0, 1\], not \(1.5,\)"),
        ("multiscale(0)", "shares of the shorter side"),
        ("multiscale(big)", "multiscale takes numbers, not 'big'"),
        ("multiscale([1, 0.5])", "a step is written as name"),
        ("resized(0.5, 0.2)", "0 < low <= high <= 1, not 0.5, 0.2"),
        ("resized(0.5, 1, 2, 1)", "0 < narrow <= wide, not 2, 1"),
        ("resized(0.5, 1, 2, 1e999)", "a step is written as name"),
        ("resized(half)", "resized takes numbers, not 'half'"),
        ("thre", "did you mean 'three'"),
    ],
)
def test_wrong_arguments_are_named(recipe: str, told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        crop(recipe)
