"""The fused timeline operator against a literal reading of its tables, on the CPU and simulated as CUDA."""

from __future__ import annotations

import math
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
from hearing import NEAREST, evaluate, hear
from hypothesis import given, settings
from hypothesis import strategies as st

from coaug.pipelines.curves import NOISE, Curve, constant, segment, white
from coaug.pipelines.program import Program, sound_program
from coaug.pipelines.timeline import Factor, Stage, Timeline, TimeMap

Case = tuple[Timeline, np.ndarray, np.ndarray, int]


def look(stages: tuple[Stage, ...], u: float) -> float:
    for stage in stages:
        q = stage.hold * (math.floor(u / stage.hold + 1e-9) + 0.5) if stage.hold else u
        i = max([0, *(i for i, start in enumerate(stage.start) if start <= q)])
        u = stage.source[i] + stage.slope[i] * (q - stage.start[i])
    return u


def curve(c: Curve, v: float) -> float:
    """By the definitions, from the words of `curves.value`."""
    if c.kind == NOISE:
        return float(c.level * c.samples()[min(max(math.floor(v * c.b + 1e-6), 0), int(c.b) - 1)])
    return float(c([v])[0])  # ramps and segments are compared with torchaudio in test_pipelines_temporal.py


def literal(timeline: Timeline, pcm: np.ndarray, taps: np.ndarray, samples: int) -> np.ndarray:
    """y(u) = g(u) · x(m(u)) + f(u), x read by the nearest phase of `taps`."""
    out = np.zeros(samples)
    for i in range(samples):
        u = (i + 0.5) / samples
        steps = math.floor((look(timeline.time.stages, u) * samples - 0.5) * len(taps) + 0.5 + 1e-6)
        before, phase = divmod(steps, len(taps))
        x = 0.0
        for k in range(taps.shape[1]):
            at = before - (taps.shape[1] - 1) // 2 + k
            x += float(taps[phase, k]) * float(pcm[at]) if 0 <= at < len(pcm) else 0.0
        gain, *fills = (
            math.prod(curve(f.curve, look(f.time.stages, u)) for f in product)
            for product in (timeline.gain, *timeline.fill)
        )
        out[i] = gain * x + sum(fills)
    return out


# sixteenths and powers of two: every sum and product is exact, so that no rounding decides between two pieces
parts = st.integers(-32, 48).map(lambda n: n / 16 + 1 / 64)
slopes = st.sampled_from([-2.0, -1.0, -0.5, 0.0, 0.25, 0.5, 1.0, 2.0])
values = st.integers(-8, 8).map(lambda n: n / 8)


@st.composite
def maps(draw: st.DrawFn) -> TimeMap:
    found = TimeMap()
    for _ in range(draw(st.integers(0, 3))):
        starts = sorted(draw(st.lists(parts, min_size=1, max_size=4, unique=True)))
        rest = [tuple(draw(st.lists(s, min_size=len(starts), max_size=len(starts)))) for s in (parts, slopes)]
        hold = draw(st.sampled_from([0.0, 0.0, 0.125, 0.5]))
        found = TimeMap((*found.stages, Stage(tuple(starts), *rest, hold=hold)))
    return found


curves = st.one_of(
    st.builds(constant, values),
    st.builds(lambda a, n, level, out: segment(a, a + n / 4, level=level, outside=out), parts,
              st.integers(1, 6), values, st.booleans()),
    st.builds(white, st.integers(0, 9), st.sampled_from([4.0, 16.0]), values),
)  # fmt: skip
factors = st.builds(Factor, curves, maps())
gains = st.lists(factors, max_size=2).map(tuple)
fills = st.lists(st.lists(factors, min_size=1, max_size=2).map(tuple), max_size=2).map(tuple)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    timeline = Timeline(draw(maps()), draw(gains), draw(fills))
    phases, taps = draw(st.sampled_from([1, 2, 4])), draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    bank = rng.integers(-8, 9, (phases, taps)).astype(np.float32) / 8
    pcm = rng.integers(-8, 9, draw(st.integers(1, 30))).astype(np.float32)
    return timeline, pcm, bank, draw(st.sampled_from([1, 2, 4, 8, 16]))


@settings(deadline=None, max_examples=300)
@given(cases())
def test_the_compiled_function_is_the_definition(case: Case) -> None:
    timeline, pcm, taps, samples = case
    np.testing.assert_allclose(hear(timeline, pcm, samples, taps=taps), literal(*case), atol=1e-4)


def test_overlapping_pieces_are_faded_into_each_other() -> None:
    """Two pieces of a constant 1 and a constant 3, spliced at sample 8 over 4 samples."""
    stage = Stage((0.0, 0.5), (0.0, 1.0), (0.0, 0.0), overlap=0.25)
    pcm = np.concatenate([np.full(16, 1.0), np.full(16, 3.0)])
    heard = hear(Timeline(TimeMap((stage,))), pcm, 16, origin=4.0, taps=NEAREST)
    weight = 1 - (np.arange(4) + 0.5) / 4
    np.testing.assert_allclose(heard, [1.0] * 8 + list(weight * 1 + (1 - weight) * 3) + [3.0] * 4, atol=1e-6)


def test_every_position_has_a_phase() -> None:
    """The nearest one; also just below 0, where position - floor(position) is rounded to 1."""
    from coaug.pipelines.reading import locate

    tie = (0.5 + 1e-6) / 4
    places, first, phase = np.array([0.5 - tie, 10.5, 10.7, 10.9, 1.6]), np.zeros(5), np.zeros(5)
    locate(places, np.zeros(5), 5, 1, 4, first, phase)
    assert phase.tolist() == [3, 0, 1, 2, 0]
    assert first.tolist() == [-1, 10, 10, 10, 1]


def test_windows_are_moved_and_not_sped_up() -> None:
    """speed_on = spectrogram: windows of 8 samples, 4 apart in the clip, 8 in a source played twice as fast."""
    from numba import njit

    from coaug.pipelines.play import play_cpu

    ramp = np.arange(64, dtype=np.float32)
    program = sound_program(Timeline(TimeMap.affine(0.0, 2.0)), 24, 0.0, 24)
    out = np.zeros(5 * 8, np.float32)
    run = njit(play_cpu(8, 4, 4.0))
    run(out, ramp, program.maps, program.curves, NEAREST, program.noise, np.array([1.0]))
    centres = 2.0 * (4 * np.arange(5) + 4)  # of the windows, in the source
    expected = centres[:, None] + np.arange(8) - 4
    np.testing.assert_allclose(out.reshape(5, 8), np.where(expected < 64, expected, 0))


SIMULATED = """
import pickle, sys, threading, types
import numpy as np
from numba import cuda
from coaug.pipelines.play import play_gpu
kernel, cases = cuda.jit(play_gpu()), pickle.load(open(sys.argv[1], "rb"))
def index(_):
    thread = threading.current_thread()
    return thread.blockIdx.x * 4 + thread.threadIdx.x
cuda.local = types.SimpleNamespace(array=lambda shape, dtype: np.empty(shape))
cuda.grid, cuda.gridsize = index, lambda _: 8  # the simulator swaps `cuda` only where it is a global name
heard = []
for pcm, maps, curves, taps, noise, samples in cases:
    out = np.full(samples, np.nan, np.float32)
    kernel[2, 4](out, pcm, maps, curves, taps, noise, np.array([1.0]))
    heard.append(out)
pickle.dump(heard, open(sys.argv[2], "wb"))
"""


def spoken(seed: int) -> tuple[Program, np.ndarray]:
    """A timeline with everything in it."""
    held = TimeMap((Stage((0.0, 0.3), (0.7, 0.0), (1.0, 1.0), hold=0.25),))
    fill = (Factor(segment(0.25, 0.75), held), Factor(white(seed, 8, 0.5)))
    spliced = Stage((0.0, 0.5), (0.05, 0.4), (1.25, 1.25), overlap=0.25)
    whole = Timeline(TimeMap((spliced, *held.stages)), (Factor(Curve(4, 0.0, 0.5)),), (fill,))
    rng = np.random.default_rng(seed)
    return sound_program(whole, 13, 3.0, 20.0), rng.normal(size=30).astype(np.float32)


def test_the_cuda_kernel_computes_the_same(tmp_path: Path) -> None:
    """Under Numba's simulator, where every thread is a Python function: the arithmetic, not the hardware."""
    rng, inputs, expected = np.random.default_rng(0), [], []
    for seed in range(6):
        program, pcm = spoken(seed)
        taps = rng.normal(size=(2, 1 + seed)).astype(np.float32)
        inputs.append((pcm, program.maps, program.curves, taps, program.noise, 13))
        expected.append(evaluate(program, pcm, taps, 13))
    (tmp_path / "in.pickle").write_bytes(pickle.dumps(inputs))
    command = [sys.executable, "-c", SIMULATED, str(tmp_path / "in.pickle"), str(tmp_path / "out.pickle")]
    done = subprocess.run(
        command, env={**os.environ, "NUMBA_ENABLE_CUDASIM": "1"}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    heard = pickle.loads((tmp_path / "out.pickle").read_bytes())
    for ours, theirs in zip(heard, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
