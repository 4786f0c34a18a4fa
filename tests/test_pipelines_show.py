"""Frames through gain, fill and noise: the compiled function, the CUDA kernel and the operator against NumPy."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit
from nvidia.dali import fn, pipeline_def, types
from scipy.stats import kstest, norm

from coaug.pipelines.curves import quantiles
from coaug.pipelines.show import show, show_cpu, show_gpu

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LEVELS = np.array([[1 / (255 * s), 1 / s, m / s] for m, s in zip(MEAN, STD, strict=True)], np.float32)
compiled = njit(show_cpu)


def lowbias32(x: np.ndarray) -> np.ndarray:
    """Hash-prospector's C code, on arrays of uint32, which wrap round."""
    x = x ^ (x >> np.uint32(16))
    x = x * np.uint32(0x7FEB352D)
    x = x ^ (x >> np.uint32(15))
    x = x * np.uint32(0x846CA68B)
    return np.asarray(x ^ (x >> np.uint32(16)))


def noise(key: int, height: int, width: int) -> np.ndarray:
    """(H, W, 3): normal quantiles of 16 bits each, two from a pixel's first hash and one from its second."""
    high, low = (np.array([half], np.uint32) for half in (key >> 32, key & 0xFFFFFFFF))
    seed = lowbias32(lowbias32(high) ^ low)
    words = lowbias32(seed ^ np.arange(2 * height * width, dtype=np.uint32)).reshape(-1, 2)
    ranks = np.stack([words[:, 0] & 0xFFFF, words[:, 0] >> 16, words[:, 1] & 0xFFFF], axis=-1)
    return np.asarray(norm.ppf((ranks + 0.5) / 65536)).reshape(height, width, 3)


def literal(frames: np.ndarray, tone: np.ndarray) -> np.ndarray:
    """((g · x / 255 + w) + a · (mean + std · n) - mean) / std, (3, T, H, W)."""
    mean, std = np.array(MEAN), np.array(STD)
    played = []
    for frame, (gain, fill, amplitude, key) in zip(frames, tone, strict=True):
        n = noise(int(key), *frame.shape[:2])
        played.append((gain * frame / 255.0 + fill + amplitude * (mean + std * n) - mean) / std)
    return np.stack(played).transpose(3, 0, 1, 2)


def run(frames: np.ndarray, tone: np.ndarray) -> np.ndarray:
    t, height, width, _ = frames.shape
    out = np.full((3, t, height, width), np.nan, np.float32)
    compiled(out, frames, tone, LEVELS, quantiles())
    return out


rows = st.tuples(
    st.floats(0, 4),
    st.floats(-1, 1),
    st.sampled_from([0.0, 0.0, 0.25, 1.0]),
    st.integers(0, 2**53 - 1).map(float),
)


@settings(deadline=None, max_examples=200)
@given(
    st.lists(rows, min_size=1, max_size=5), st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1)
)
def test_the_compiled_function_is_the_definition(
    tone: list[tuple[float, ...]], height: int, width: int, seed: int
) -> None:
    frames = np.random.default_rng(seed).integers(0, 256, (len(tone), height, width, 3), dtype=np.uint8)
    rows = np.array(tone, np.float64)
    np.testing.assert_allclose(run(frames, rows), literal(frames, rows), atol=2e-5)


def test_noise_is_normal_and_repeats_with_its_key() -> None:
    keys = [5, 6, 5, 5 + 2**40, 2**53 - 1]
    tone = np.array([[0, 0, 1, key] for key in keys], np.float64)
    shown = run(np.zeros((5, 128, 128, 3), np.uint8), tone).transpose(1, 2, 3, 0)
    np.testing.assert_array_equal(shown[0], shown[2])
    for frame in shown[[0, 1, 3, 4]]:
        for channel in range(3):
            assert kstest(frame[..., channel].ravel(), "norm").pvalue > 1e-3
    different = shown[[0, 1, 3, 4]].reshape(4, -1)
    neighbours = [shown[0][1:], shown[0][:-1], shown[0][:, 1:], shown[0][:, :-1]]
    pairs = [(different[i], different[j]) for i in range(4) for j in range(i)]
    pairs += [(neighbours[0], neighbours[1]), (neighbours[2], neighbours[3])]
    pairs += [(shown[0][..., i], shown[0][..., j]) for i in range(3) for j in range(i)]
    for one, other in pairs:  # independent: a correlation of 0 +- 1 / sqrt(n)
        assert abs((one * other).mean()) < 4 / np.sqrt(one.size)


def operator(frames: np.ndarray, tone: np.ndarray, device: str) -> list[Any]:
    """`show` on a batch of two in a pipeline: the clip, and the clip backwards."""

    @pipeline_def(enable_conditionals=True)  # type: ignore[untyped-decorator]
    def graph() -> Any:
        clips = fn.external_source([[frames, frames[::-1].copy()]], dtype=types.UINT8, ndim=4, cycle=True)
        rows = fn.external_source([[tone, tone[::-1].copy()]], dtype=types.FLOAT64, ndim=2, cycle=True)
        if device == "gpu":
            clips, rows = clips.gpu(), rows.gpu()
        return show(clips, rows, mean=MEAN, std=STD, device=device)

    built = graph(batch_size=2, num_threads=1, device_id=0 if device == "gpu" else None)
    built.build()
    (shown,) = built.run()
    assert shown.layout() == "CFHW"
    return [np.array(clip) for clip in shown.as_cpu()]


CASE = np.array(
    [[1, 0, 0, 0], [0.5, 0.25, 0, 0], [0, 0, 1, 2**52 + 7], [0.3, 0, 0.7, 11], [0, 0, 1, 2**52 + 7.0]]
)


@pytest.mark.parametrize("device", ["cpu", pytest.param("gpu", marks=pytest.mark.gpu)])
def test_the_operator_is_the_definition(device: str) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (len(CASE), 20, 33, 3), dtype=np.uint8)
    forwards, backwards = operator(frames, CASE, device)
    np.testing.assert_allclose(forwards, literal(frames, CASE), atol=2e-5)
    np.testing.assert_array_equal(backwards, forwards[:, ::-1])


SIMULATED = """
import sys, threading
import numpy as np
from numba import cuda
from coaug.pipelines.curves import quantiles
from coaug.pipelines.show import show_gpu
kernel, case = cuda.jit(show_gpu()), np.load(sys.argv[1])
class Here:
    def __init__(self, name):
        self.name = name
    x = property(lambda self: getattr(threading.current_thread(), self.name).x)
class Size:
    x = 2
# the simulator swaps `cuda` only where it is a global name
cuda.blockIdx, cuda.threadIdx, cuda.gridDim, cuda.blockDim = Here("blockIdx"), Here("threadIdx"), Size, Size
frames = case["frames"]
out = np.full((3, *frames.shape[:3]), np.nan, np.float32)
kernel[2, 2](out, frames, case["tone"], case["levels"], quantiles())
np.save(sys.argv[2], out)
"""


def test_the_cuda_kernel_is_the_definition(tmp_path: Path) -> None:
    """Under Numba's simulator, where every thread is a Python function: the arithmetic, not the hardware."""
    frames = np.random.default_rng(1).integers(0, 256, (len(CASE), 3, 5, 3), dtype=np.uint8)
    np.savez(tmp_path / "case.npz", frames=frames, tone=CASE, levels=LEVELS)
    command = [sys.executable, "-c", SIMULATED, str(tmp_path / "case.npz"), str(tmp_path / "out.npy")]
    done = subprocess.run(
        command, env={**os.environ, "NUMBA_ENABLE_CUDASIM": "1"}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), literal(frames, CASE), atol=2e-5)


@pytest.mark.parametrize("capability", [(7, 0), (7, 5), (8, 0), (8, 6), (8, 9), (9, 0)])
def test_the_cuda_kernel_compiles(capability: tuple[int, int]) -> None:
    from numba import cuda, float32, float64, uint8, void

    signature = void(
        float32[:, :, :, ::1], uint8[:, :, :, ::1], float64[:, ::1], float32[:, ::1], float32[::1]
    )
    ptx, _ = cuda.compile_ptx(show_gpu(), signature, cc=capability)
    assert f".target sm_{capability[0]}{capability[1]}" in ptx
    assert "div.f64" not in ptx and "mul.f64" not in ptx  # slow on all but the largest devices
