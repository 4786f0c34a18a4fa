"""The picture's half of the graph against NumPy, SciPy and Pillow: crop, size, colour, blur, gain, normalisation."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit
from nvidia.dali import fn, pipeline_def, types
from PIL import Image
from scipy.ndimage import gaussian_filter, zoom

from coaug.pipelines.config import DataConfig, VideoConfig
from coaug.pipelines.curves import quantiles
from coaug.pipelines.picture import pictures, spatial
from coaug.pipelines.spatial.develop import develop_cpu
from coaug.pipelines.spatial.rgb import rgb_gpu

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
WHOLE, MIRRORED, PART = (0, 0, 1, 1), (1, 0, 0, 1), (0.13, 0.21, 0.77, 0.94)
NEUTRAL, VIVID = (1, 1, 1, 0), (1.2, 0.7, 1.5, -25)
GAIN = [0.8, 0.1, 0, 0]
EITHER = pytest.mark.parametrize("device", ["cpu", pytest.param("gpu", marks=pytest.mark.gpu)])
compiled = njit(develop_cpu)
MATRIX = np.array([[1.164, 0, 1.596, -222.9], [1.164, -0.392, -0.813, 135.6], [1.164, 2.017, 0, -276.8]])
AS_IT_IS = np.eye(3, 4)


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


def clips(count: int, frames: int = 2, height: int = 60, width: int = 84) -> list[np.ndarray]:
    """Planes with noise over a gradient: every frequency, every pixel different."""
    rng = np.random.default_rng(7)
    ramp = 2 * np.add.outer(np.arange(3 * height // 2), np.arange(width))
    noise = rng.integers(0, 128, (count, frames, *ramp.shape))
    return list(((ramp + noise) % 256).astype(np.uint8))


def split(planes: np.ndarray) -> list[np.ndarray]:
    """Luma (T, h, w, 1), and both planes of chroma (T, h/2, w/2, 1)."""
    height, width = 2 * planes.shape[1] // 3, planes.shape[2]
    parts = planes[:, :height], planes[:, height:, : width // 2], planes[:, height:, width // 2 :]
    return [part[..., None].astype(np.float64) for part in parts]


def rgb(planes: list[np.ndarray]) -> np.ndarray:
    """(T, S, S, 3) of three planes (T, S, S, 1)."""
    return np.clip(np.concatenate(planes, -1) @ MATRIX[:, :3].T + MATRIX[:, 3], 0, 255)


def literal(
    frames: np.ndarray, crop: tuple[float, ...], colour: tuple[float, ...], sigma: float, size: int
) -> np.ndarray:
    """(T, S, S, 3), in [0, 255], nothing rounded on the way."""
    small = rgb([resized(plane, crop, size) for plane in split(frames)])
    return blurred(recoloured(small, colour), sigma)


def developed(
    frames: np.ndarray,
    crop: tuple[float, ...],
    colour: tuple[float, ...],
    sigma: float,
    size: int,
    matrix: np.ndarray | None = None,
) -> np.ndarray:
    """What the operator makes of one view, unnormalised: (T, S, S, 3) float32."""
    count = len(frames)
    out, index = np.zeros((1, 3, count, size, size), np.float32), np.arange(count, dtype=np.int32)[None]
    plain, levels = np.tile([1.0, 0, 0, 0], (1, count, 1)), np.tile(np.float32([1, 255, 0]), (3, 1))
    look = np.array([[*crop, *colour, sigma]], np.float32)
    colours = np.concatenate([MATRIX if matrix is None else matrix, levels], 1).astype(np.float32)
    compiled(out, index, frames, look, plain, colours, quantiles())
    return np.moveaxis(out[0], 0, -1)


def build(
    batch: Sequence[tuple[np.ndarray, tuple[float, ...], tuple[float, ...], float]],
    video: VideoConfig,
    device: str = "cpu",
    tone: list[np.ndarray] | None = None,
) -> list[np.ndarray]:
    """`pictures` of a batch of clips, crops, colours and sigmas."""
    frames = [clip for clip, *_ in batch]
    looks = [
        (*crop, *(colour if video.jitters else NEUTRAL), sigma if video.blur else 0)
        for _, crop, colour, sigma in batch
    ]

    @pipeline_def(enable_conditionals=True)  # type: ignore[untyped-decorator]
    def graph() -> Any:
        planes = fn.external_source([frames], ndim=3, dtype=types.UINT8, cycle=True)
        index = numbers([np.arange(video.frames)] * len(looks), 2, np.int32)
        rows = numbers(tone, 3, np.float64) if tone is not None else None
        matrix = numbers([MATRIX] * len(looks), 3)[0]
        return pictures(planes, matrix, index, numbers(looks, 2), rows, DataConfig(video=video), device)[0]

    return ran(graph, len(batch), device)


def numbers(values: Any, ndim: int, dtype: Any = np.float32) -> Any:
    """One array a clip, of its single view."""
    arrays = [np.array([value], dtype) for value in values]
    kind = {np.float32: types.FLOAT, np.float64: types.FLOAT64, np.int32: types.INT32}[dtype]
    return fn.external_source([arrays], ndim=ndim, dtype=kind, cycle=True)


def chained(
    batch: Sequence[tuple[np.ndarray, tuple[float, ...], tuple[float, ...], float]], video: VideoConfig
) -> list[np.ndarray]:
    """DALI's operators, on RGB frames (T, H, W, 3) uint8."""
    looks = [(*crop, *colour, sigma) for _, crop, colour, sigma in batch]

    @pipeline_def(enable_conditionals=True)  # type: ignore[untyped-decorator]
    def graph() -> Any:
        shown = fn.external_source([[clip for clip, *_ in batch]], ndim=4, dtype=types.UINT8, cycle=True)
        return spatial(shown, numbers(looks, 2)[0], video)

    return ran(graph, len(batch), "cpu")


def ran(graph: Any, size: int, device: str) -> list[np.ndarray]:
    built = graph(batch_size=size, num_threads=2, device_id=0 if device == "gpu" else None)
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
CLOSE = 0.01  # of a level: single precision
Q = st.integers(1, 20)


@settings(deadline=None, max_examples=150)
@given(sides, sides.map(sorted), Q, Q, st.integers(8, 27), st.integers(0, 2**32 - 1))
def test_the_cpu_s_crops_are_the_definition(
    across: list[float], down: list[float], height: int, width: int, size: int, seed: int
) -> None:
    frames = np.random.default_rng(seed).integers(0, 256, (2, 3 * height, 2 * width), dtype=np.uint8)
    crop = (across[0], down[0], across[1], down[1])
    got = developed(frames, crop, NEUTRAL, 0, size, AS_IT_IS)
    for channel, plane in enumerate(split(frames)):
        assert abs(got[..., channel] - resized(plane, crop, size)[..., 0]).max() < CLOSE


@settings(deadline=None)
@given(colours, st.sampled_from([0.0, 0.1, 0.75, 2.0]), st.integers(4, 12), st.integers(0, 2**32 - 1))
def test_the_cpu_s_colours_and_blur_are_the_definition(
    colour: tuple[float, ...], sigma: float, half: int, seed: int
) -> None:
    frames = np.random.default_rng(seed).integers(0, 256, (2, 3 * half, 2 * half), dtype=np.uint8)
    got = developed(frames, WHOLE, colour, sigma, 2 * half)
    assert abs(got - literal(frames, WHOLE, colour, sigma, 2 * half)).max() < 0.05  # rounded parameters


@pytest.mark.parametrize("size", [112, 128, 224, 256])
def test_the_cpu_s_one_pass_is_dali_s_chain(size: int) -> None:
    """Plain chroma and no clipped luma, so that to resize before or after RGB is the same: only rounding differs."""
    batch = [(clip, *numbers) for clip, numbers in zip(clips(len(MANY), 2, 120, 160), MANY, strict=True)]
    for clip, *_ in batch:
        clip[:, :120], clip[:, 120:] = 60 + clip[:, :120] // 2, 140
    frames = [np.rint(rgb(grown(clip))) for clip, *_ in batch]
    coloured = [(f.astype(np.uint8), *case[1:]) for f, case in zip(frames, batch, strict=True)]
    for case, chain in zip(batch, chained(coloured, options(size)), strict=True):
        difference = abs(developed(*case, size) - chain)
        assert difference.max() <= 2.5 + 3 * (case[2] != NEUTRAL) and difference.mean() < 0.6


def grown(planes: np.ndarray) -> list[np.ndarray]:
    luma, *chroma = split(planes)
    return [luma, *(plane.repeat(2, 1).repeat(2, 2) for plane in chroma)]


@EITHER
def test_a_batch_is_the_definition(device: str) -> None:
    """Each clip has its own numbers, blurred ones stand beside sharp ones, and gain and fill come last."""
    batch = [(clip, *numbers) for clip, numbers in zip(clips(len(MANY)), MANY, strict=True)]
    tone = [np.array([GAIN, [1 - i / 10, i / 20, 0, 0]]) for i in range(len(batch))]
    for i, shown in enumerate(build(batch, options(48), device, tone)):
        gain, fill = (tone[i][:, part, None, None, None] for part in range(2))
        expected = normalised(gain * literal(*batch[i], size=48) + 255 * fill)
        difference = abs(shown - expected)
        assert difference.max() < (0.1 if device == "cpu" else 6) * LEVEL


@EITHER
@pytest.mark.parametrize("tone", [None, [np.array([[1.0, 0, 0, 0]] * 2)]])
def test_what_is_not_asked_for_is_left_out(device: str, tone: list[np.ndarray] | None) -> None:
    (clip,) = clips(1)
    (shown,) = build([(clip, PART, VIVID, 2.0)], options(40, brightness=0.0, hue=0.0, blur=0.0), device, tone)
    expected = normalised(literal(clip, PART, NEUTRAL, 0.0, 40))
    assert abs(shown - expected).max() < (0.1 if device == "cpu" else 2.1) * LEVEL


@EITHER
def test_numbers_hold_for_all_frames(device: str) -> None:
    still = np.repeat(clips(1)[0][:1], 5, axis=0)
    batch = [(still, *numbers) for numbers in MANY]
    for shown in build(batch, options(32, frames=5), device):
        np.testing.assert_array_equal(shown, np.repeat(shown[:, :1], 5, axis=1))


@pytest.mark.parametrize("size", [20, 64])
def test_sizes_are_pillow_s(size: int) -> None:
    (clip,) = clips(1, 1, 100, 140)
    box = (22, 26, 104, 74)  # away from the border, where Pillow leaves out what is beyond
    crop = tuple(side / length for side, length in zip(box, (140, 100, 140, 100), strict=True))
    got = developed(clip, crop, NEUTRAL, 0.0, size, AS_IT_IS)[0]
    for channel, plane in enumerate(split(clip)):
        image = Image.fromarray(plane[0, ..., 0].astype(np.uint8))
        part = box if channel == 0 else tuple(side / 2 for side in box)
        expected = np.array(image.resize((size, size), Image.Resampling.BILINEAR, box=part))
        assert abs(got[..., channel] - expected).max() < 1.01


@pytest.mark.parametrize("sigma", [0.05, 0.5, 1.0, 2.0, 7.0])
@pytest.mark.parametrize("own", [True, False])
def test_blur_is_scipy_s(sigma: float, own: bool) -> None:
    (clip,) = clips(1, 2, 32, 32)
    sharp = literal(clip, WHOLE, NEUTRAL, 0.0, 32)
    if own:
        shown = developed(clip, WHOLE, NEUTRAL, sigma, 32)
    else:
        sharp = np.rint(sharp)
        plain = options(32, brightness=0.0, hue=0.0)
        (shown,) = chained([(sharp.astype(np.uint8), WHOLE, NEUTRAL, sigma)], plain)
    assert abs(shown - blurred(sharp, sigma)).max() < (0.01 if own else 0.501)


def test_hue_turns_through_the_primaries() -> None:
    """A third of a turn takes no colour's luma away, and a whole turn none of its chroma."""
    solid = np.full((1, 12, 8), 110, np.uint8)
    solid[:, 8:, 4:] = 150
    luma, start = np.array([0.299, 0.587, 0.114]), developed(solid, WHOLE, NEUTRAL, 0.0, 8)
    for hue in (-120.0, 60.0, 120.0):
        shown = developed(solid, WHOLE, (1, 1, 1, hue), 0.0, 8)
        assert abs((shown - start) @ luma).max() < 1 and abs(shown - start).max() > 20
    np.testing.assert_allclose(developed(solid, WHOLE, (1, 1, 1, 360.0), 0.0, 8), start, atol=1e-2)
    grey = developed(solid, WHOLE, (1, 1, 0, 0), 0.0, 8)
    assert abs(grey - start[0, 0, 0] @ luma).max() <= 1


SIMULATED = """
import sys, threading
import numpy as np
from numba import cuda
from coaug.pipelines.spatial.rgb import rgb_gpu
kernel, case = cuda.jit(rgb_gpu()), np.load(sys.argv[1])
class Here:
    def __init__(self, name):
        self.name = name
    x = property(lambda self: getattr(threading.current_thread(), self.name).x)
class Size:
    x = 2
# the simulator swaps `cuda` only where it is a global name
cuda.blockIdx, cuda.threadIdx, cuda.gridDim, cuda.blockDim = Here("blockIdx"), Here("threadIdx"), Size, Size
planes = case["planes"]
out = np.zeros((len(planes), 2 * planes.shape[1] // 3, planes.shape[2], 3), np.uint8)
kernel[2, 2](out, planes, case["matrix"])
np.save(sys.argv[2], out)
"""


def test_the_gpu_s_rgb_is_the_definition(tmp_path: Path) -> None:
    """Under Numba's simulator: chroma interpolated as by a resize to twice its size."""
    (clip,) = clips(1, 2, 6, 10)
    np.savez(tmp_path / "case.npz", planes=clip, matrix=MATRIX.astype(np.float32))
    command = [sys.executable, "-c", SIMULATED, str(tmp_path / "case.npz"), str(tmp_path / "out.npy")]
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    luma, *chroma = split(clip)
    doubled = [zoom(plane, (1, 2, 2, 1), order=1, mode="nearest", grid_mode=True) for plane in chroma]
    assert abs(np.load(tmp_path / "out.npy") - rgb([luma, *doubled])).max() < 0.51


@pytest.mark.parametrize("capability", [(7, 0), (7, 5), (8, 0), (8, 6), (8, 9), (9, 0)])
def test_the_gpu_s_rgb_compiles(capability: tuple[int, int]) -> None:
    from numba import cuda, float32, uint8, void

    signature = void(uint8[:, :, :, ::1], uint8[:, :, ::1], float32[:, ::1])
    ptx, _ = cuda.compile_ptx(rgb_gpu(), signature, cc=capability)
    assert f".target sm_{capability[0]}{capability[1]}" in ptx and ".f64" not in ptx
