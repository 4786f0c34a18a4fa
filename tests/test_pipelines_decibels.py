"""The spectrogram's last operator, as a plain function, against NumPy."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numba import njit

from coaug.pipelines.decibels import finisher

POWERS = st.floats(2.0**-120, 2.0**120, width=32) | st.just(0.0)


@settings(deadline=None)  # the first call compiles
@given(arrays(np.float32, (12, 17), elements=POWERS), st.booleans())
def test_decibels(power: np.ndarray, pairs: bool) -> None:
    """(10 log10(max(power, floor)) - mean) / std of every band, for powers of any size."""
    bins = power.astype(np.float64)
    bands = np.hstack([bins[:, :1], (bins[:, 1::2] + bins[:, 2::2]) / 2]) if pairs else bins
    mean, std = np.linspace(-50, 10, bands.shape[1]), np.linspace(1, 20, bands.shape[1])
    expected = ((10 * np.log10(np.maximum(bands, 1e-10)) - mean) / std).T
    levels = np.array([np.full(len(mean), 1e-10), 10 * np.log10(2) / std, -mean / std], np.float32)
    out = np.empty((1, *expected.shape), np.float32)
    FINISH[pairs](out, power, levels)
    assert np.abs(out[0] - expected).max() < 2e-4  # of up to 420 dB, in float32


FINISH = {pairs: njit(finisher(12, pairs, False)) for pairs in (False, True)}
