"""The fused timeline operator against a literal walk of its table: on the CPU, and the CUDA kernel under simulation."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

from coaug.pipelines.play import play_cpu
from coaug.pipelines.timeline import Stage, TimeMap

compiled = njit(play_cpu)
Arguments = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, int]


def literal(
    pcm: np.ndarray, table: np.ndarray, bank: np.ndarray, gain: np.ndarray, fill: np.ndarray, samples: int
):  # type: ignore[no-untyped-def]
    """y[i] = g · Σ_k bank[phase, k] · pcm[first + k] + f at the position that the stages lead to."""
    out = np.zeros(samples, np.float32)
    for i in range(samples):
        p = i + 0.5
        for stage in sorted(set(table[:, 0])):
            rows = table[table[:, 0] == stage]
            hold = rows[0, 1]
            q = hold * math.floor(p / hold) if hold else p
            _, _, start, source, slope = rows[max([0, *np.flatnonzero(rows[:, 2] <= q)])]
            p = source + slope * (q - start)
        steps = math.floor((p - 0.5) * len(bank) + 0.5)
        before, phase = divmod(steps, len(bank))
        total = 0.0
        for k in range(bank.shape[1]):
            at = before - (bank.shape[1] - 1) // 2 + k
            total += float(bank[phase, k]) * float(pcm[at]) if 0 <= at < len(pcm) else 0.0
        out[i] = gain[min(i, len(gain) - 1)] * total + fill[min(i, len(fill) - 1)]
    return out


# quarters and powers of two: every sum and product is exact, so that no rounding decides between two pieces
quarters = st.integers(-80, 80).map(lambda n: n / 4)
slopes = st.sampled_from([-2.0, -1.0, -0.5, 0.0, 0.25, 0.5, 1.0, 2.0, 4.0])
values = st.integers(-8, 8).map(lambda n: n / 8)


@st.composite
def arguments(draw: st.DrawFn) -> Arguments:
    rows = []
    for stage in range(draw(st.integers(1, 3))):
        starts = sorted(draw(st.lists(quarters, min_size=1, max_size=4, unique=True)))
        hold = draw(st.sampled_from([0.0, 0.0, 0.5, 2.0, 4.0]))
        rows += [(stage, hold, start, draw(quarters), draw(slopes)) for start in starts]
    samples = draw(st.integers(1, 12))

    def floats(low: int, high: int) -> np.ndarray:
        return np.array(draw(st.lists(values, min_size=low, max_size=high)), np.float32)

    curves = [floats(n, n) for n in draw(st.tuples(*[st.sampled_from([1, samples])] * 2))]
    phases, taps = draw(st.sampled_from([1, 2, 4])), draw(st.integers(1, 6))
    bank = floats(phases * taps, phases * taps).reshape(phases, taps)
    return floats(1, 30), np.array(rows, np.float64), bank, curves[0], curves[1], samples


def run(
    pcm: np.ndarray, table: np.ndarray, bank: np.ndarray, gain: np.ndarray, fill: np.ndarray, samples: int
):  # type: ignore[no-untyped-def]
    out = np.full(samples, np.nan, np.float32)
    compiled(out, pcm, table, bank, gain, fill)
    return out


@settings(deadline=None, max_examples=300)
@given(arguments())
def test_the_compiled_function_is_the_definition(case: Arguments) -> None:
    np.testing.assert_allclose(run(*case), literal(*case), atol=1e-5)


@settings(deadline=None)
@given(
    st.lists(
        st.builds(
            lambda source, slope, hold: TimeMap((Stage((0.0,), (source,), (slope,), hold),)),
            values,
            slopes,
            st.sampled_from([0.0, 0.25]),
        ),
        min_size=1,
        max_size=3,
    )
)
def test_a_table_is_its_map(maps: list[TimeMap]) -> None:
    """Sample i of the output is the source at m((i + 0.5) / S), read off a ramp."""
    time = maps[0]
    for inner in maps[1:]:
        time = time.after(inner)
    samples, length, origin = 16, 64.0, 512.0
    pcm = np.arange(2048, dtype=np.float32)
    one = np.ones((1, 1), np.float32)
    heard = run(pcm, time.table(samples, origin, length), one, one[0], np.zeros(1, np.float32), samples)
    at = origin + length * time((np.arange(samples) + 0.5) / samples)
    inside = (at > 1) & (at < 2047)
    assert (np.abs(heard + 0.5 - at)[inside] <= 0.5 + 1e-6).all()


SIMULATED = """
import sys, threading
import numpy as np
from numba import cuda
from coaug.pipelines.play import play_gpu
kernel, cases = cuda.jit(play_gpu()), np.load(sys.argv[1], allow_pickle=True)["cases"]
def index(_):
    thread = threading.current_thread()
    return thread.blockIdx.x * 4 + thread.threadIdx.x
cuda.grid, cuda.gridsize = index, lambda _: 8  # the simulator swaps `cuda` only where it is a global name
heard = []
for pcm, table, bank, gain, fill, samples in cases:
    out = np.full(samples, np.nan, np.float32)
    kernel[2, 4](out, pcm, table, bank, gain, fill)
    heard.append(out)
np.savez(sys.argv[2], *heard)
"""


def test_the_cuda_kernel_is_the_definition(tmp_path: Path) -> None:
    """Under Numba's simulator, where every thread is a Python function: the arithmetic, not the hardware."""
    rng = np.random.default_rng(0)
    cases = np.empty(6, object)
    for i in range(len(cases)):
        rows = [
            (s, h, a, rng.integers(-8, 24) / 4, m)
            for s, h in ((0, 0.0), (1, 2.0))
            for a, m in ((0.0, 2.0), (4.0, -0.5))
        ]
        samples, n = int(rng.integers(1, 14)), int(rng.integers(1, 20))
        bank = rng.integers(-4, 5, (2, 1 + i)).astype(np.float32)
        gain, fill = (rng.integers(-4, 5, samples if i % 2 else 1).astype(np.float32) for _ in range(2))
        cases[i] = (rng.integers(-9, 9, n).astype(np.float32), np.array(rows), bank, gain, fill, samples)
    np.savez(tmp_path / "cases.npz", cases=cases)
    command = [sys.executable, "-c", SIMULATED, str(tmp_path / "cases.npz"), str(tmp_path / "heard.npz")]
    done = subprocess.run(
        command, env={**os.environ, "NUMBA_ENABLE_CUDASIM": "1"}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    heard = np.load(tmp_path / "heard.npz")
    for i, case in enumerate(cases):
        np.testing.assert_allclose(heard[f"arr_{i}"], literal(*case), atol=1e-5)
