"""The picture's half of the graph against NumPy, SciPy and Pillow: crop, size, colour, blur, gain, normalisation."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit
from nvidia.dali import fn, pipeline_def, types
from PIL import Image
from scipy.ndimage import gaussian_filter

from coaug.pipelines.config import DataConfig, VideoConfig
from coaug.pipelines.picture import operators, pictures
from coaug.pipelines.show import quantiles
from coaug.pipelines.spatial.develop import develop_cpu

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
WHOLE, MIRRORED, PART = (0, 0, 1, 1), (1, 0, 0, 1), (0.13, 0.21, 0.77, 0.94)
NEUTRAL, VIVID = (1, 1, 1, 0), (1.2, 0.7, 1.5, -25)
GAIN = [0.8, 0.1, 0, 0]
EITHER = pytest.mark.parametrize("device", ["cpu", pytest.param("gpu", marks=pytest.mark.gpu)])
compiled = njit(develop_cpu)


def resized(frames: np.ndarray, crop: tuple[float, ...], size: int) -> np.ndarray:
    """Every output averages what lies under a triangle around its centre; beyond the border stands the last pixel."""
    for axis, (low, high) in ((1, (crop[1], crop[3])), (2, (crop[0], crop[2]))):
        length = frames.shape[axis]
        step = (high - low) * length / size
        reach, matrix = max(abs(step), 1), np.zeros((size, length))
        for i in range(size):
            centre = low * length + (i + 0.5) * step - 0.5
            taps = np.arange(ceil(centre - reach) - 1, ceil(centre + reach) + 1)
            weights = np.maximum(0, 1 - abs(taps - centre) / reach)
            np.add.at(matrix[i], np.clip(taps, 0, length - 1), weights / weights.sum())
        frames = np.moveaxis(np.moveaxis(frames, axis, -1) @ matrix.T, -1, axis)
    return frames


def recoloured(frames: np.ndarray, colour: tuple[float, ...]) -> np.ndarray:
    """Hue and saturation in YIQ (FCC NTSC), then contrast around 128, then brightness; clipped to what uint8 holds."""
    brightness, contrast, saturation, hue = colour
    yiq = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.321], [0.211, -0.523, 0.311]])
    luma, i, q = np.moveaxis(frames @ yiq.T, -1, 0)
    chroma = saturation * (i + 1j * q) * np.exp(-1j * np.deg2rad(hue))
    rgb = np.stack([luma, chroma.real, chroma.imag], -1) @ np.linalg.inv(yiq).T
    return np.clip(brightness * (contrast * (rgb - 128) + 128), 0, 255)


def blurred(frames: np.ndarray, sigma: float) -> np.ndarray:
    if sigma == 0:
        return frames
    return np.asarray(gaussian_filter(frames, sigma, mode="mirror", radius=ceil(3 * sigma), axes=(1, 2)))


def literal(
    frames: np.ndarray, crop: tuple[float, ...], colour: tuple[float, ...], sigma: float, size: int
) -> np.ndarray:
    """(T, S, S, 3), in [0, 255], nothing rounded on the way."""
    return blurred(recoloured(resized(frames.astype(np.float64), crop, size), colour), sigma)


def clips(count: int, frames: int = 2, height: int = 60, width: int = 83) -> list[np.ndarray]:
    """Noise over a gradient: every frequency, every pixel different."""
    rng = np.random.default_rng(7)
    ramp = np.add.outer(np.arange(height), np.arange(width))[..., None] * np.array([2.0, 1.0, 1.5])
    noise = rng.integers(0, 128, (count, frames, height, width, 3))
    return list(((ramp + noise) % 256).astype(np.uint8))


def developed(
    frames: np.ndarray, crop: tuple[float, ...], colour: tuple[float, ...], sigma: float, size: int
) -> np.ndarray:
    """What the operator makes of one view, unnormalised: (T, S, S, 3) uint8."""
    count = len(frames)
    out, index = np.zeros((1, 3, count, size, size), np.float32), np.arange(count, dtype=np.int32)[None]
    plain, levels = np.tile([1.0, 0, 0, 0], (1, count, 1)), np.tile(np.float32([1, 255, 0]), (3, 1))
    compiled(out, index, frames, np.array([[*crop, *colour, sigma]], np.float32), plain, levels, quantiles())
    return np.ascontiguousarray(np.moveaxis(out[0], 0, -1), np.uint8)


def build(
    batch: Sequence[tuple[np.ndarray, tuple[float, ...], tuple[float, ...], float]],
    video: VideoConfig,
    device: str = "cpu",
    tone: list[np.ndarray] | None = None,
    only_operators: bool = False,
) -> list[np.ndarray]:
    """`pictures` of a batch of clips, crops, colours and sigmas, or DALI's operators on their own."""
    frames = [clip for clip, *_ in batch]
    looks = [
        (*crop, *(colour if video.jitters else NEUTRAL), sigma if video.blur else 0)
        for _, crop, colour, sigma in batch
    ]

    def numbers(values: Any, ndim: int, dtype: Any = np.float32) -> Any:
        """One array a clip, of its single view."""
        arrays = [np.array([value], dtype) for value in values]
        kind = {np.float32: types.FLOAT, np.float64: types.FLOAT64, np.int32: types.INT32}[dtype]
        return fn.external_source([arrays], ndim=ndim, dtype=kind, cycle=True)

    @pipeline_def(enable_conditionals=True)  # type: ignore[untyped-decorator]
    def graph() -> Any:
        shown = fn.external_source([frames], ndim=4, dtype=types.UINT8, cycle=True)
        shown = shown.gpu() if device == "gpu" else shown
        look = numbers(looks, 2)
        if only_operators:
            return operators(shown, look[0], video)
        index = numbers([np.arange(video.frames)] * len(looks), 2, np.int32)
        rows = numbers(tone, 3, np.float64) if tone is not None else None
        shown = fn.reshape(shown, layout="FHWC")
        return pictures(shown, index, look, rows, DataConfig(video=video), device)[0]

    built = graph(batch_size=len(batch), num_threads=2, device_id=0 if device == "gpu" else None)
    built.build()
    (out,) = built.run()
    return [np.array(clip) for clip in out.as_cpu()]


def options(size: int, frames: int = 2, **changed: Any) -> VideoConfig:
    jitter = {"brightness": 0.4, "hue": 0.1, "blur": 0.5} | changed
    return VideoConfig(frames=frames, size=size, mean=tuple(MEAN), std=tuple(STD), **jitter)


def normalised(frames: np.ndarray) -> np.ndarray:
    return np.moveaxis((frames / 255 - MEAN) / STD, -1, 0)


LEVEL = 1 / (255 * STD.min())  # one level of uint8, normalised
MANY = [
    (WHOLE, NEUTRAL, 0.0),
    (MIRRORED, VIVID, 1.3),
    (PART, VIVID, 0.0),
    (PART, NEUTRAL, 0.3),
    ((0.4, 0.5, 0.2, 0.7), (0.6, 1.4, 0.0, 170.0), 2.0),
]


sides = st.lists(st.floats(0, 1, width=32), min_size=2, max_size=2).filter(lambda s: abs(s[0] - s[1]) > 0.05)
colours = st.tuples(*[st.floats(0, 2, width=32)] * 3, st.floats(-180, 180, width=32))
ROUNDING = 0.501  # to uint8, once


@settings(deadline=None, max_examples=150)
@given(sides, sides.map(sorted), *[st.integers(1, 40)] * 2, st.integers(1, 24), st.integers(0, 2**32 - 1))
def test_the_cpu_s_crops_are_the_definition(
    across: list[float], down: list[float], height: int, width: int, size: int, seed: int
) -> None:
    frames = np.random.default_rng(seed).integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    crop = (across[0], down[0], across[1], down[1])
    got = developed(frames, crop, NEUTRAL, 0, size)
    assert abs(got - resized(frames.astype(np.float64), crop, size)).max() < ROUNDING


@settings(deadline=None)
@given(colours, st.sampled_from([0.0, 0.1, 0.75, 2.0]), st.integers(1, 24), st.integers(0, 2**32 - 1))
def test_the_cpu_s_colours_and_blur_are_the_definition(
    colour: tuple[float, ...], sigma: float, size: int, seed: int
) -> None:
    frames = np.random.default_rng(seed).integers(0, 256, (2, size, size, 3), dtype=np.uint8)
    tinted = developed(frames, WHOLE, colour, 0, size)
    assert abs(tinted - recoloured(frames, colour)).max() < ROUNDING
    soft = developed(tinted, WHOLE, NEUTRAL, sigma, size)
    assert abs(soft - blurred(tinted.astype(np.float64), sigma)).max() < ROUNDING
    np.testing.assert_array_equal(developed(frames, WHOLE, colour, sigma, size), soft)  # in this order


@pytest.mark.parametrize("size", [112, 128, 224, 256])
def test_the_cpu_s_one_pass_is_dali_s_chain(size: int) -> None:
    batch = [(clip, *numbers) for clip, numbers in zip(clips(len(MANY), 2, 120, 161), MANY, strict=True)]
    for case, chain in zip(batch, build(batch, options(size), only_operators=True), strict=True):
        difference = abs(developed(*case, size).astype(int) - chain)
        assert difference.max() <= 2 + 3 * (case[2] != NEUTRAL) and difference.mean() < 0.01


@EITHER
def test_a_batch_is_the_definition(device: str) -> None:
    """Each clip has its own numbers, blurred ones stand beside sharp ones, and gain and fill come last."""
    batch = [(clip, *numbers) for clip, numbers in zip(clips(len(MANY)), MANY, strict=True)]
    tone = [np.array([GAIN, [1 - i / 10, i / 20, 0, 0]]) for i in range(len(batch))]
    for i, shown in enumerate(build(batch, options(48), device, tone)):
        gain, fill = (tone[i][:, part, None, None, None] for part in range(2))
        expected = normalised(gain * literal(*batch[i], size=48) + 255 * fill)
        difference = abs(shown - expected)
        assert difference.max() < (2.1 if batch[i][2] == NEUTRAL else 6) * LEVEL
        assert difference.mean() < 0.6 * LEVEL


@EITHER
@pytest.mark.parametrize("tone", [None, [np.array([[1.0, 0, 0, 0]] * 2)]])
def test_what_is_not_asked_for_is_left_out(device: str, tone: list[np.ndarray] | None) -> None:
    (clip,) = clips(1)
    (shown,) = build([(clip, PART, VIVID, 2.0)], options(40, brightness=0.0, hue=0.0, blur=0.0), device, tone)
    assert abs(shown - normalised(resized(clip.astype(np.float64), PART, 40))).max() < 0.51 * LEVEL


@EITHER
def test_numbers_hold_for_all_frames(device: str) -> None:
    still = np.repeat(clips(1)[0][:1], 5, axis=0)
    batch = [(still, *numbers) for numbers in MANY]
    for shown in build(batch, options(32, frames=5), device):
        np.testing.assert_array_equal(shown, np.repeat(shown[:, :1], 5, axis=1))


@pytest.mark.parametrize("size", [20, 64])
def test_sizes_are_pillow_s(size: int) -> None:
    (clip,) = clips(1, 1, 100, 140)
    box = (21, 25, 105, 75)  # away from the border, where Pillow leaves out what is beyond
    crop = tuple(side / length for side, length in zip(box, (140, 100, 140, 100), strict=True))
    expected = Image.fromarray(clip[0]).resize((size, size), Image.Resampling.BILINEAR, box=box)
    assert abs(developed(clip, crop, NEUTRAL, 0.0, size)[0].astype(int) - np.array(expected)).max() <= 1


@pytest.mark.parametrize("sigma", [0.05, 0.5, 1.0, 2.0, 7.0])
@pytest.mark.parametrize("own", [True, False])
def test_blur_is_scipy_s(sigma: float, own: bool) -> None:
    (clip,) = clips(1, 2, 32, 32)
    case = (clip, WHOLE, NEUTRAL, sigma)
    if own:
        shown = developed(*case, 32)
    else:
        (shown,) = build([case], options(32, brightness=0.0, hue=0.0), only_operators=True)
    assert abs(shown - blurred(clip.astype(np.float64), sigma)).max() < ROUNDING


def test_hue_turns_through_the_primaries() -> None:
    """A third of a turn takes no colour's luma away, and a whole turn none of its chroma."""
    solid = np.zeros((1, 4, 4, 3), np.uint8) + np.array([140, 100, 90], np.uint8)
    luma = np.array([0.299, 0.587, 0.114])
    for hue in (-120.0, 60.0, 120.0):
        shown = developed(solid, WHOLE, (1, 1, 1, hue), 0.0, 4)
        assert abs((shown - solid.astype(int)) @ luma).max() < 1 and abs(shown.astype(int) - solid).max() > 20
    np.testing.assert_array_equal(developed(solid, WHOLE, (1, 1, 1, 360.0), 0.0, 4), solid)
    grey = developed(solid, WHOLE, (1, 1, 0, 0), 0.0, 4)
    assert abs(grey - solid[0, 0, 0] @ luma).max() <= 1
