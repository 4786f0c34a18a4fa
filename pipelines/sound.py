"""The audio front end: from the sound that was played to a normalised spectrogram in decibels, in the DALI graph.

STFT -> bands -> dB -> normalisation -> size. The first steps run with time as the outer axis: DALI computes one window
after the other, and writing each as a row instead of a column halves the cost of small hops on a CPU. There one
operator of our own does what follows the bands; on a GPU it is DALI's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from nvidia.dali import fn, types
from nvidia.dali.pipeline import do_not_convert

from .config import AudioConfig
from .decibels import finished
from .stats import load_stats


@do_not_convert  # type: ignore[untyped-decorator]  # no condition here is on data
def spectrogram(played: Any, audio: AudioConfig, device: str) -> Any:
    """(1, F, L) float32, `audio.shape`, of one view.

    Equal to 10·log10(max(power, 10^(floor_db / 10))) of librosa's or torch's STFT (unnormalised, power 2), less mean,
    over std. AVID-CMA's own code differs in one point: its floor lies 100 dB below each clip's maximum, so that a
    clip's loudest event moves all its quiet bins; ours is absolute.

    `audio.resize` comes last, as torch's bilinear interpolate(align_corners=False). An axis that shrinks goes through
    a triangle as wide as two output steps, which is interpolate(antialias=True) but for the ends: DALI repeats the
    outermost value where torch cuts the triangle.

    Args:
        played: DALI node, float32. (S,) at audio.rate; with speed_on="spectrogram" (L·W,), the samples of window j
            in [j·W, (j + 1)·W), where `centres` says which part of the clip that is.
        audio: the front end.
        device: "cpu" or "gpu", where `played` is.

    Raises:
        StatsError: `audio.stats` cannot be used.
    """
    power = _power(played, audio)
    if audio.spectrum == "mel":
        power = fn.mel_filter_bank(power, sample_rate=float(audio.rate), nfilter=audio.mels)
    if device == "cpu":
        return finished(power, audio)
    normal = fn.transpose(_normal(_bands(power, audio), audio), perm=[1, 0])
    shaped = fn.reshape(normal, shape=[1, audio.stft_bands, audio.stft_frames], layout="CHW")
    return fn.resize(shaped, size=list(audio.resize), antialias=True) if audio.resize else shaped


def centres(audio: AudioConfig) -> NDArray[np.float64]:
    """(L,) middles of the STFT's windows, in samples of the clip: sample i is [i, i + 1), so 0 and S are its ends.

    Window j is the W samples [centre - W/2, centre + W/2); when `audio.centred`, the first and last reach beyond the
    clip. (A periodic Hann weighs most the sample that begins at the centre.)
    """
    odd = audio.window_samples % 2
    first = (
        -odd / 2 if audio.centred else audio.window_samples / 2
    )  # librosa centres an odd window half a step early
    return first + np.arange(audio.stft_frames, dtype=np.float64) * audio.hop_samples


def _power(played: Any, audio: AudioConfig) -> Any:
    """(windows, n_fft/2 + 1) |STFT|²."""
    cut = audio.speed_on == "spectrogram"
    centred = audio.centred and not cut
    window = _hann(audio.window_samples)
    if centred and len(window) % 2:
        window.append(0.0)  # an odd window, centred where librosa and torch have it
    return fn.spectrogram(
        played,
        nfft=audio.n_fft,
        window_length=len(window),
        window_step=audio.window_samples if cut else audio.hop_samples,
        window_fn=window,  # DALI's own Hann is sampled at half-integers
        center_windows=centred,
        reflect_padding=True,
        power=2,
        layout="tf",
    )


def _hann(samples: int) -> list[float]:
    """The periodic Hann window of torch.hann_window and librosa."""
    return [float(w) for w in 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(samples) / samples)]


def _bands(power: Any, audio: AudioConfig) -> Any:
    """(L, F) powers, in pairs as in AVID-CMA's datasets/preprocessing.py: n_fft doubled, two bins averaged."""
    if audio.spectrum == "paired":
        power = fn.cat(power[:, :1], 0.5 * (power[:, 1::2] + power[:, 2::2]), axis=1)
    # DALI adds a window centred on the very end
    return power[: audio.stft_frames] if audio.centred else power


def _normal(power: Any, audio: AudioConfig) -> Any:
    """(dB - mean) / std: of two numbers in DALI's own formula, of one for each band after it."""
    if audio.stats is None:
        reference, floor = 10 ** (audio.mean / 10), (audio.floor_db - audio.mean) / audio.std
        return fn.to_decibels(power, multiplier=10 / audio.std, reference=reference, cutoff_db=floor)
    levels = fn.to_decibels(power, multiplier=10.0, reference=1.0, cutoff_db=audio.floor_db)
    mean, std = (types.Constant(values, device="gpu") for values in load_stats(audio))
    return (levels - mean) / std
