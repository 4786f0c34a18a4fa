"""Where a spectrogram's rows and columns stand: hertz and seconds of the clip."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..pipelines.config import AudioConfig
from ..pipelines.sound import centres

OCTAVES = (125, 250, 500, 1000, 2000, 4000, 8000, 16000)  # Hz
STEPS = (500, 1000, 2000, 5000, 10000)


def band_centres(audio: AudioConfig) -> NDArray[np.float64]:
    """(F,) Hz: centres of the bands that an encoder is given, the lowest first; resized ones lie between the others."""
    bands, n = _bands(audio), audio.stft_bands
    rows = (np.arange(audio.shape[0]) + 0.5) * n / audio.shape[0] - 0.5
    return np.interp(rows, np.arange(n), bands)


def _bands(audio: AudioConfig) -> NDArray[np.float64]:
    if audio.spectrum == "mel":
        return _mel_centres(audio.rate / 2, audio.mels)
    bins = np.arange(audio.stft_bands, dtype=np.float64)
    if audio.spectrum == "paired":  # band j > 0 is the mean of bins 2j - 1 and 2j
        bins = np.maximum(2 * bins - 0.5, 0.0)
    return bins * audio.rate / audio.n_fft


def _mel_centres(nyquist: float, mels: int) -> NDArray[np.float64]:
    """Slaney's scale, linear up to 1 kHz and logarithmic from there."""
    step, ratio = 200 / 3, np.log(6.4) / 27
    top = nyquist / step if nyquist < 1000 else 15 + np.log(nyquist / 1000) / ratio
    places = np.linspace(0, top, mels + 2)[1:-1]
    return np.where(places < 15, places * step, 1000 * np.exp((places - 15) * ratio))


def column_edges(audio: AudioConfig) -> tuple[float, float]:
    """Seconds of the clip where the first column begins and the last one ends.

    A column stands for the hop around the middle of its window; resizing moves neither end.
    """
    middles = centres(audio)
    return (middles[0] - audio.hop_samples / 2) / audio.rate, (
        middles[-1] + audio.hop_samples / 2
    ) / audio.rate


def ticks(audio: AudioConfig, most: int) -> dict[int, float]:
    """Round frequencies (Hz) and the rows where they stand, no closer than `most` of them would: octaves of mel bands,
    else even steps."""
    bands = band_centres(audio)
    step = next((s for s in STEPS if bands[-1] / s < most), STEPS[-1])
    round_ones = OCTAVES if audio.spectrum == "mel" else range(step, int(bands[-1]) + 1, step)
    found: dict[int, float] = {}
    for hz in reversed(round_ones):
        row = float(np.interp(hz, bands, np.arange(len(bands))))
        free = min(found.values(), default=np.inf) - row >= len(bands) / most
        if bands[0] <= hz <= bands[-1] and free:
            found[hz] = row
    return found


def hertz(value: float, digits: int = 1) -> str:
    """Such as "440 Hz" or "1.5 kHz"."""
    return f"{round(value / 1000, digits):g} kHz" if value >= 1000 else f"{value:.0f} Hz"
