"""The compiled timeline operator as a plain function of arrays."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from numba import njit

from coaug.pipelines.play import play_cpu
from coaug.pipelines.program import Program, sound_program
from coaug.pipelines.resample import bank, thin
from coaug.pipelines.timeline import Timeline

run = njit(play_cpu())
NEAREST = np.array([[1]], np.float32)  # the very samples


def hear(
    timeline: Timeline,
    pcm: np.ndarray,
    samples: int,
    *,
    origin: float = 0.0,
    rates: Fraction = Fraction(1),
    taps: np.ndarray | None = None,
) -> np.ndarray:
    """`samples` of the clip that `pcm` makes when it is played through `timeline`.

    Args:
        origin: position in `pcm` where the clip begins.
        rates: samples of `pcm` in one of the clip.
        taps: the filter to read with; default: the one that the timeline's speed needs.
    """
    if taps is None:
        pcm, every = thin(pcm.astype(np.float32), float(rates) * timeline.time.steepest)
        origin, rates = origin / every, rates / every
        taps = bank(rates, timeline.time.steepest)
    program = sound_program(timeline, samples, origin, samples * float(rates))
    return evaluate(program, pcm, taps, samples, float(rates))


def evaluate(
    program: Program, pcm: np.ndarray, taps: np.ndarray, samples: int, step: float = 1.0
) -> np.ndarray:
    """`samples` of a program's output."""
    out = np.full(samples, np.nan, np.float32)
    run(out, pcm.astype(np.float32), program.maps, program.curves, taps, program.noise, np.array([step]))
    return out
