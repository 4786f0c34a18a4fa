"""The resampling filter inside the timeline operator: aliases, passband, other programs, and CUDA compilation."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import scipy.signal
import torch
import torchaudio
from hearing import hear
from threadpoolctl import threadpool_limits

from coaug.pipelines.play import play_gpu
from coaug.pipelines.resample import MOST, bank, phases, thin
from coaug.pipelines.timeline import Timeline, TimeMap

RATE = 24000
PASS = 0.85  # share of the narrower band that is left alone
MARGIN = 0.04  # seconds of sound before the clip: a whole number of samples at all these rates


def played(sound: np.ndarray, file_rate: int, factor: float) -> np.ndarray:
    """One second at RATE of `sound`, which begins MARGIN before the clip."""
    timeline = Timeline(TimeMap.affine(0.0, factor))
    return hear(timeline, sound, RATE, origin=MARGIN * file_rate, rates=Fraction(file_rate, RATE))


def tone(frequency: float, file_rate: int, factor: float) -> np.ndarray:
    seconds = np.arange(int(file_rate * (factor + 2 * MARGIN))) / file_rate - MARGIN
    return np.sin(
        2 * np.pi * frequency * (seconds + 0.5 / file_rate)
    )  # sample k stands at the middle of its span


def level(x: np.ndarray) -> float:
    return float(10 * np.log10(2 * np.mean(x.astype(np.float64) ** 2) + 1e-30))


SETTINGS = [(44100, 1), (44100, 2), (44100, 4), (48000, 3), (32000, 1), (44100, 1.5), (22050, 1), (16000, 1)]
UNEVEN = [(44100, 1.23456), (24000, 2**0.5), (48000, 3.21987), (16000, 0.777)]  # any phase may occur


@pytest.mark.parametrize(("file_rate", "factor"), SETTINGS + UNEVEN)
def test_aliases_are_60_db_down(file_rate: int, factor: float) -> None:
    above = np.linspace(RATE / 2, 2 * RATE, 20) / factor  # would come out above what the clip can hold
    audible = [f for f in above if f < file_rate / 2]
    loudest = max(
        (level(played(tone(f, file_rate, factor), file_rate, factor)) for f in audible), default=-99.0
    )
    assert loudest < -60


def delay(file_rate: int, factor: float) -> float:
    """Seconds by which a clip is late because it starts at one of the filter's phases."""
    ratio = Fraction(file_rate, RATE) * Fraction(factor)
    _, every = thin(np.zeros(1, np.float32), float(ratio))
    ratio, rate = ratio / every, file_rate / every
    place = (MARGIN * rate + 0.5 * float(ratio) - 0.5) * phases(ratio)
    late = (place - np.floor(place + 0.5 + 1e-6)) / phases(ratio) / rate
    assert abs(late) <= 1 / 64 / rate + 1e-12
    return float(late)


@pytest.mark.parametrize(("file_rate", "factor"), SETTINGS)
def test_a_tone_comes_out_higher_and_otherwise_unchanged(file_rate: int, factor: float) -> None:
    narrower = min(RATE / factor, file_rate) / 2  # in the file
    for share in (0.05, 0.4, 0.98 * PASS):
        frequency = share * narrower
        out = played(tone(frequency, file_rate, factor), file_rate, factor)
        instants = (np.arange(RATE) + 0.5) / RATE * factor - delay(file_rate, factor)
        assert level(out - np.sin(2 * np.pi * frequency * instants)) < -60, (file_rate, factor, frequency)


@pytest.mark.parametrize(("file_rate", "factor"), UNEVEN)
def test_any_other_speed_is_as_good_within_55_db(file_rate: int, factor: float) -> None:
    """Positions are rounded to 1/512 of a source sample, which is heard as faint noise."""
    narrower = min(RATE / factor, file_rate) / 2
    for share in (0.05, 0.4, 0.95 * PASS):
        frequency = share * narrower
        out = played(tone(frequency, file_rate, factor), file_rate, factor)
        instants = (np.arange(RATE) + 0.5) / RATE * factor
        assert level(out - np.sin(2 * np.pi * frequency * instants)) < -55, (file_rate, factor, frequency)


@pytest.mark.parametrize("file_rate", [44100, 32000, 22050])
def test_agrees_with_torchaudio_on_noise(file_rate: int) -> None:
    rng = np.random.default_rng(0)
    spectrum = np.fft.rfft(rng.normal(size=file_rate))
    spectrum[int(0.75 * min(file_rate, RATE) / 2) :] = 0  # both filters leave this band alone
    noise = np.fft.irfft(spectrum, file_rate)
    sound = np.roll(np.tile(noise, 2), round(MARGIN * file_rate))
    reference = torchaudio.functional.resample(
        torch.from_numpy(np.tile(noise, 3)), file_rate, RATE, lowpass_filter_width=64, rolloff=0.95
    )[RATE : 2 * RATE].numpy()
    # torchaudio lets the first samples of both stand at one instant, we let their spans begin at one
    late = delay(file_rate, 1) + 0.5 / file_rate - 0.5 / RATE
    turn = np.exp(-2j * np.pi * np.fft.rfftfreq(RATE, 1 / RATE) * late)
    reference = np.fft.irfft(np.fft.rfft(reference) * turn)
    assert level(played(sound, file_rate, 1) - reference) - level(reference) < -60


def test_equal_rates_copy() -> None:
    sound = np.random.default_rng(1).normal(size=2 * RATE).astype(np.float32)
    first = round(MARGIN * RATE)
    np.testing.assert_array_equal(played(sound, RATE, 1), sound[first : first + RATE])


def test_phases_are_those_of_the_ratio() -> None:
    assert phases(Fraction(147, 80)) == 80
    assert phases(Fraction(1, 10_007)) == MOST
    for ratio in (Fraction(1), Fraction(147, 80), Fraction(6), Fraction(1, 3)):
        taps = bank(ratio, 1.0)
        assert len(taps) % ratio.denominator == 0
        np.testing.assert_allclose(taps.sum(axis=1), 1, atol=1e-6)
    assert np.array_equal(bank(Fraction(1), 4.0), bank(Fraction(4), 1.0))
    assert len(bank(Fraction(1), 1.2345)) == MOST


@pytest.mark.parametrize(("ratio", "every"), [(1.0, 1), (3.0, 1), (3.675, 2), (8.0, 4), (14.7, 8)])
def test_thinning_is_one_long_filter_and_every_nth_sample(ratio: float, every: int) -> None:
    """By scipy: a symmetric filter, read where its middle lies between the samples that the thinned one stands for."""
    sound = np.random.default_rng(2).normal(size=1001).astype(np.float32)
    thinned, found = thin(sound, ratio)
    assert found == every and len(thinned) == -(-1001 // every)
    if every == 1:
        assert thinned is sound
        return
    taps = scipy.signal.firwin(11 * every, 0.95 / every, window=("kaiser", 7.0))
    expected = scipy.signal.convolve(sound, taps)[6 * every - 1 :: every]
    np.testing.assert_allclose(thinned, expected[: len(thinned)], atol=1e-5)


@pytest.mark.parametrize("windows", [(), (480, 240, 240.0)])
@pytest.mark.parametrize("capability", [(7, 0), (7, 5), (8, 0), (8, 6), (8, 9), (9, 0)])
def test_the_cuda_kernel_compiles(capability: tuple[int, int], windows: tuple[int, ...]) -> None:
    from numba import cuda, float32, float64, void

    signal, table, numbers = float32[::1], float64[:, ::1], float64[::1]
    signature = void(signal, signal, table, table, float32[:, ::1], signal, numbers)
    kernel = play_gpu(*windows)
    ptx, _ = cuda.compile_ptx(kernel, signature, cc=capability)
    assert f".target sm_{capability[0]}{capability[1]}" in ptx


@pytest.mark.parametrize("ratio", [4, 8, 16, 64])
def test_threads_change_not_a_bit(ratio: float) -> None:
    sound = np.random.default_rng(0).standard_normal(300_000).astype(np.float32)
    found = []
    for threads in (1, 2, 3, 8):
        with threadpool_limits(threads):
            found.append(thin(sound, ratio)[0])
    assert all(np.array_equal(each, found[0]) for each in found)
