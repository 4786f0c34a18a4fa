"""Every front end against librosa and torch, window for window."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import librosa
import numpy as np
import pytest
import torch
import torchaudio
from nvidia.dali import fn, pipeline_def, types
from torch.nn import functional as F

from coaug.config import ConfigError, build
from coaug.pipelines.config import AudioConfig
from coaug.pipelines.sound import centres, spectrogram
from coaug.pipelines.stats import StatsError

DEVICES = ["cpu", pytest.param("gpu", marks=pytest.mark.gpu)]
WITHIN, DEPTH = 0.01, 60.0  # decibels

SVACLR = AudioConfig(rate=24000, seconds=1.0, window=0.02, hop=0.01, n_fft=512, mels=40)
AVID = AudioConfig(
    rate=24000, seconds=2.0, spectrum="paired", n_fft=1024, window=1024 / 24000, hop=0.01, centred=True
)
STAUG = AudioConfig(rate=44100, seconds=1.28, n_fft=1024, window=1024 / 44100, mels=80)
PRESETS = {
    "svaclr": (SVACLR, (40, 99)),
    "svaclr-fine": (replace(SVACLR, window=0.01, hop=0.005), (40, 199)),
    "avid": (AVID, (257, 200)),
    "avid-small": (replace(AVID, n_fft=512, window=512 / 24000, hop=0.02), (129, 100)),
    "tempssl": (replace(SVACLR, mels=80, resize=(224, 224)), (224, 224)),
    **{
        f"staug-{hop}": (replace(STAUG, hop=hop / 44100), (80, (56448 - 1024) // hop + 1))
        for hop in (32, 64, 128, 256)
    },
    "linear": (replace(SVACLR, spectrum="linear", rate=44100, window=0.01), (257, 100)),
    "linear-centred": (replace(SVACLR, spectrum="linear", rate=44100, window=0.01, centred=True), (257, 100)),
    "paired-short-window": (replace(AVID, window=0.02, seconds=0.731), (257, 73)),
}


def spectra(waves: np.ndarray, audio: AudioConfig, device: str = "cpu") -> np.ndarray:
    """(N, F, L) in decibels from (N, samples)."""

    @pipeline_def(batch_size=len(waves), num_threads=1, device_id=None if device == "cpu" else 0)
    def graph() -> object:
        rows = [wave.astype(np.float32) for wave in waves]
        played = fn.external_source(lambda: rows, dtype=types.FLOAT, ndim=1)
        return spectrogram(played.gpu() if device == "gpu" else played, audio, device)

    pipeline = graph()
    pipeline.build()
    (found,) = pipeline.run()
    values = np.array(found.as_cpu().as_tensor())
    assert values.dtype == np.float32
    assert values.shape == (len(waves), 1, *audio.shape)
    return np.asarray(values[:, 0].astype(np.float64) * audio.std + audio.mean)


def sounds(audio: AudioConfig) -> np.ndarray:
    """Noise, tones, a sweep, and a beep in silence: (4, S) float32."""
    t = np.arange(audio.samples) / audio.rate
    noise = np.random.default_rng(0).standard_normal(audio.samples) * 0.1
    tones = sum(0.2 * np.sin(2 * np.pi * f * t + f) for f in (55.0, 440.0, 1234.5, 9876.5))
    sweep = 0.5 * np.sin(2 * np.pi * (100 + 0.2 * audio.rate / audio.seconds * t) * t)
    beep = 0.9 * np.sin(2 * np.pi * 3000 * t) * (t > 0.4 * audio.seconds)
    return np.stack([noise, tones, sweep, beep]).astype(np.float32)


def padded(wave: np.ndarray, audio: AudioConfig) -> np.ndarray:
    """So that both libraries, whose frames are n_fft long with the window in the middle, see every whole window."""
    spare = audio.n_fft - audio.window_samples
    return np.pad(wave.astype(np.float64), (spare // 2, spare - spare // 2))


def power_by_librosa(wave: np.ndarray, audio: AudioConfig) -> np.ndarray:
    wave = wave.astype(np.float64) if audio.centred else padded(wave, audio)
    found = librosa.stft(
        wave,
        n_fft=audio.n_fft,
        hop_length=audio.hop_samples,
        win_length=audio.window_samples,
        center=audio.centred,
        pad_mode="reflect",
    )
    return np.asarray(np.abs(found) ** 2)


def power_by_torch(wave: np.ndarray, audio: AudioConfig) -> np.ndarray:
    found = torch.stft(
        torch.from_numpy(wave.astype(np.float64) if audio.centred else padded(wave, audio)),
        audio.n_fft,
        audio.hop_samples,
        audio.window_samples,
        torch.hann_window(audio.window_samples, dtype=torch.float64),
        center=audio.centred,
        pad_mode="reflect",
        return_complex=True,
    )
    return np.asarray(found.abs().square().numpy())


def mel_by_librosa(audio: AudioConfig) -> np.ndarray:
    return np.asarray(
        librosa.filters.mel(sr=audio.rate, n_fft=audio.n_fft, n_mels=audio.mels, dtype=np.float64)
    )


def mel_by_torchaudio(audio: AudioConfig) -> np.ndarray:
    bank = torchaudio.functional.melscale_fbanks(
        audio.n_fft // 2 + 1, 0.0, audio.rate / 2, audio.mels, audio.rate, norm="slaney", mel_scale="slaney"
    )
    return np.asarray(bank.double().numpy().T)


LIBRARIES = {
    "librosa": (power_by_librosa, mel_by_librosa),
    "torch": (power_by_torch, mel_by_torchaudio),
}


def reference(wave: np.ndarray, audio: AudioConfig, library: str) -> np.ndarray:
    """(F, L) decibels before any resizing, in float64."""
    power_by, mel_by = LIBRARIES[library]
    power = power_by(wave, audio)
    if audio.spectrum == "mel":
        power = mel_by(audio) @ power
    if audio.spectrum == "paired":
        rows = [power[0]] + [(power[i] + power[i + 1]) / 2 for i in range(1, len(power), 2)]
        power = np.stack(rows)
    if audio.centred:
        power = power[:, : round(audio.samples / audio.hop_samples)]
    return np.asarray(10 * np.log10(np.maximum(power, 10 ** (audio.floor_db / 10))))


def bilinear(decibels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    image = torch.from_numpy(decibels)[None, None]
    return np.asarray(F.interpolate(image, size=size, mode="bilinear", align_corners=False)[0, 0].numpy())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("name", PRESETS)
def test_spectrograms_are_those_of_other_programs(name: str, library: str, device: str) -> None:
    audio, shape = PRESETS[name]
    assert audio.shape == shape
    waves = sounds(audio)
    for ours, wave in zip(spectra(waves, audio, device), waves, strict=True):
        theirs = reference(wave, audio, library)
        if audio.resize:
            theirs = bilinear(theirs, audio.resize)
        assert ours.shape == theirs.shape
        loud = theirs > theirs.max() - DEPTH
        assert np.abs(ours - theirs)[loud].max() < WITHIN


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("spectrum", ["mel", "linear", "paired"])
def test_the_floor_is_absolute(spectrum: str, device: str) -> None:
    """Silence is the floor, and so is what lies below it beside the loudest sound; nothing follows the maximum."""
    audio = replace(SVACLR, spectrum=spectrum, floor_db=-60.0)  # type: ignore[arg-type]
    silence, loud = (
        np.zeros(audio.samples),
        1000 * np.sin(2 * np.pi * 300 * np.arange(audio.samples) / audio.rate),
    )
    loud[audio.samples // 2 :] = 0
    flat, half = spectra(np.stack([silence, loud]), audio, device)
    assert np.abs(flat + 60).max() < 1e-4
    assert half.max() > 60
    assert np.abs(half[:, -10:] + 60).max() < 1e-4


def triangle(values: np.ndarray, size: int) -> np.ndarray:
    """The last axis shrunk to `size` by a triangle of half-width n / size, its ends repeated."""
    step = values.shape[-1] / size
    reach = int(np.ceil(step)) + 1
    wide = np.pad(values, [(0, 0)] * (values.ndim - 1) + [(reach, reach)], mode="edge")
    at = np.arange(wide.shape[-1]) - reach + 0.5
    weights = np.maximum(1 - np.abs(at - step * (np.arange(size)[:, None] + 0.5)) / step, 0)
    return np.asarray(wide @ (weights / weights.sum(axis=1, keepdims=True)).T)


@pytest.mark.parametrize("device", DEVICES)
def test_resizing(device: str) -> None:
    """Bilinear where an axis grows; a triangle where it shrinks, which is torch's but for the ends."""
    waves = sounds(SVACLR)[:1]
    plain = reference(waves[0], SVACLR, "librosa")
    size = (20, 150)
    expected = bilinear(triangle(plain.T, 20).T, size)
    (ours,) = spectra(waves, replace(SVACLR, resize=size), device)
    assert np.abs(ours - expected).max() < 0.02
    image = torch.from_numpy(plain)[None, None]
    theirs = F.interpolate(image, size=size, mode="bilinear", align_corners=False, antialias=True)[0, 0]
    assert np.abs(ours - theirs.numpy())[1:-1].max() < 0.02


def write_stats(path: Path, audio: AudioConfig) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(1)
    mean, std = draw.uniform(-50, -10, audio.stft_bands), draw.uniform(5, 20, audio.stft_bands)
    about = {
        "spectrum": audio.spectrum,
        "bands": audio.stft_bands,
        "rate": audio.rate,
        "window_samples": audio.window_samples,
        "n_fft": audio.n_fft,
        "floor_db": audio.floor_db,
    }
    path.write_text(json.dumps({"mean": mean.tolist(), "std": std.tolist(), "clips": 1, **about}))
    return mean, std


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", [None, (300, 210)])
@pytest.mark.parametrize("name", ["svaclr", "avid"])
def test_every_band_has_its_own_mean_and_std(
    tmp_path: Path, name: str, size: tuple[int, int] | None, device: str
) -> None:
    """They belong to the bands before any resizing."""
    audio = replace(PRESETS[name][0], resize=size, stats=str(tmp_path / "stats.json"), mean=0.0, std=1.0)
    mean, std = write_stats(tmp_path / "stats.json", audio)
    waves = sounds(audio)[:1]
    expected = (reference(waves[0], audio, "librosa") - mean[:, None]) / std[:, None]
    (ours,) = spectra(waves, audio, device)
    assert np.abs(ours - (bilinear(expected, size) if size else expected)).max() < 0.002


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", ["svaclr", "avid", "linear", "linear-centred"])
def test_windows_that_were_cut_before(name: str, device: str) -> None:
    """speed_on: spectrogram. Windows taken where `centres` says give the spectrogram of the sound itself."""
    audio = PRESETS[name][0]
    wave, size = sounds(audio)[2], audio.window_samples
    starts = centres(audio) - size / 2
    assert (starts == np.round(starts)).all()
    wide = np.pad(wave, size, mode="reflect")
    cut = np.concatenate([wide[int(start) + size :][:size] for start in starts])
    (whole,) = spectra(wave[None], audio, device)
    (windows,) = spectra(cut[None], replace(audio, speed_on="spectrogram"), device)
    assert np.abs(whole - windows)[whole > whole.max() - DEPTH].max() < WITHIN


@pytest.mark.parametrize("name", ["svaclr", "avid", "linear-centred"])
def test_a_click_is_loudest_where_a_centre_is_nearest(name: str) -> None:
    audio = PRESETS[name][0]
    moments = np.random.default_rng(2).integers(
        audio.window_samples, audio.samples - audio.window_samples, 32
    )
    clicks = np.zeros((32, audio.samples))
    clicks[np.arange(32), moments] = 1.0
    loudest = spectra(clicks, replace(audio, floor_db=-200.0)).mean(axis=1).argmax(axis=1)
    away = np.abs(centres(audio)[loudest] - (moments + 0.5))
    assert away.max() <= audio.hop_samples / 2 + 1


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"n_fft": 256}, "n_fft: 256, not a multiple of 2 that holds the window's 480 samples"),
        ({"n_fft": 513}, "n_fft: 513, not a multiple of 2"),
        ({"n_fft": 514, "spectrum": "paired"}, "n_fft: 514, not a multiple of 4"),
        ({"seconds": 0.01}, "seconds: 0.01, too short"),
        ({"seconds": 0.004, "centred": True}, "seconds: 0.004, too short"),
        ({"resize": [0, 99]}, "resize: (0, 99)"),
        ({"mels": 0}, "mels: 0"),
        ({"hop": 0.00001}, "hop: 0.02 s and 1e-05 s"),
        ({"window": 0.0}, "window and hop: 0.0 s"),
        ({"std": 0.0}, "std: 0.0"),
    ],
)
def test_front_ends_that_cannot_be(keys: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build(AudioConfig, keys, "data.audio.")
    assert said in str(caught.value)


def test_missing_statistics_are_said_so_when_the_graph_is_built(tmp_path: Path) -> None:
    with pytest.raises(StatsError, match="coaug stats"):
        spectra(sounds(SVACLR), replace(SVACLR, stats=str(tmp_path / "none.json")))
