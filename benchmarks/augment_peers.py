"""The augmentation chain as a competent user writes it with torch and torchaudio: what `augment.py` compares with.

It is given what costs it little: every drawn number, which decoded frame each moment shows, and gain and fill of every
frame. What it does itself is all work on pixels and samples, each step in the plausible way that was measured fastest
on a CPU, clip by clip, which stays in the caches; on a GPU in batches:

    convert     swscale, one context a sample; what torchcodec and PyAV hand out has gone through it as well
    frames      index_select on the cropped view, and frames that are repeated only once; advanced indexing takes 3x
    resize      interpolate(antialias=True) on channels-last uint8, torch's SIMD path; planar uint8 takes 3x, float 8x
    colour      one 3x4 matrix on planar pixels; chained adjustments of kornia.enhance take 15x
    blur        weighted sums of shifted pictures; kornia.filters.gaussian_blur2d takes 1.5x (kept for batches on a
                GPU), depthwise conv2d or dense matrices 2-4x
    normalise   one multiplication and one addition in place, which play gain and fill as well; addcmul takes 3x
    speed       torchaudio.transforms.Resample with its kernels kept; functional.resample takes 1.5x
    hold        interpolate("nearest-exact"), down and up
    fade        torchaudio.transforms.Fade on the two ends alone
    pitch       torchaudio's phase vocoder, then resampling by a fraction of at most 32: functional.pitch_shift, the
                same with an exact one, was measured at 41 CPU seconds for 1.28 s of sound (4 semitones), 5000x
    spectrum    torch.stft's real and imaginary part squared; torchaudio.transforms.Spectrogram(power=2) takes 2x
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import torchaudio
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray
from torch import Tensor

from coaug.pipelines.config import AudioConfig, DataConfig
from coaug.pipelines.spatial.look import RGB, YIQ
from coaug.pipelines.temporal.fade import SHAPES, Fade
from coaug.pipelines.temporal.jitter import Volume
from coaug.pipelines.temporal.mask import Mask
from coaug.pipelines.temporal.pitch import Pitch
from coaug.pipelines.temporal.resample import Resample
from coaug.pipelines.temporal.shift import Shift
from coaug.pipelines.temporal.speed import Reverse

NAMES = {kind: name for name, kind in SHAPES.items()}
PERCENT = 100  # steps of a continuous speed: each has a kernel of its own
CHEAP: Mapping[str, Any] = {}  # torchaudio's defaults: Hann, 6 zero crossings
MATCHED: Mapping[str, Any] = {  # the design of `pipelines/resample.py`
    "lowpass_filter_width": 24,
    "rolloff": 0.925,
    "resampling_method": "sinc_interp_kaiser",
    "beta": 6.0,
}
Parameters = Sequence[float]


@dataclass(frozen=True)
class Clip:
    """One view of one sample.

    Attributes:
        coded: the U decoded frames of the sample, 4:2:0.  pixels: (U, H, W, 3) uint8, the same as RGB.
        shown: (u,) those of them in this view, each once.
        repeats: (T,) which of these each moment shows; None where they are T, in order.
        box: left, top, right, bottom in whole pixels.  flip: mirrored.
        colour: factors of brightness, contrast, saturation; turn of the hue in degrees.  sigma: of the blur, or 0.
        tone: (T, 4) gain, fill, noise, key of each frame.
        sound: (n,) float32 at `rate`, from where the clip begins.  speed: times as fast.
        steps: transforms of the sound with what was drawn for them, in order.
    """

    coded: Sequence[Any]
    pixels: Tensor
    shown: Tensor
    repeats: Tensor | None
    box: tuple[int, int, int, int]
    flip: bool
    colour: tuple[float, ...]
    sigma: float
    tone: Tensor
    sound: Tensor
    rate: int
    speed: float
    steps: tuple[tuple[Any, Parameters], ...]


class Peer:
    """The chain for clips of one config. Call it with the clips of a batch."""

    def __init__(self, config: DataConfig, device: str = "cpu", filters: Mapping[str, Any] = CHEAP) -> None:
        self.video, self.audio, self.device, self.filters = config.video, config.audio, device, filters
        self.resamplers: dict[tuple[int, int], Any] = {}
        self.spectrum = Spectrum(config.audio, device)

    def __call__(self, clips: Sequence[Clip]) -> tuple[Tensor, Tensor]:
        """(N, 3, T, S, S) pictures and (N, 1, F, L) spectrograms."""
        return self.pictures(clips), self.sounds(clips)

    def converted(self, clips: Sequence[Clip]) -> list[Clip]:
        """The clips with their pictures made RGB now; those of a sample once."""
        samples = {id(clip.coded): clip.coded for clip in clips}
        ready = {key: torch.from_numpy(as_rgb(coded)) for key, coded in samples.items()}
        return [replace(clip, pixels=ready[id(clip.coded)]) for clip in clips]

    def pictures(self, clips: Sequence[Clip], depth: int = 4) -> Tensor:
        """All steps, or only the first `depth` of: resize, colour, blur, normalise (and then the last group only)."""
        size, frames = self.video.size, self.video.frames
        out = torch.empty(len(clips), 3, frames, size, size, device=self.device)
        together = 1 if self.device == "cpu" else len(clips)
        for first in range(0, len(clips), together):
            group = clips[first : first + together]
            shown = self._resized(group)
            if depth > 1 and self.video.jitters:
                shown = self._coloured(shown, group)
            if depth > 2 and self.video.blur:
                shown = self._blurred(shown, group)
            if depth > 3:
                self._normalised(shown, group, out[first : first + together])
        return out

    def _resized(self, group: Sequence[Clip]) -> Tensor:
        """(N, 3, T, S, S) float32 in [0, 255]; on a CPU without repeated frames."""
        pixels = {id(clip.pixels): clip.pixels.to(self.device, non_blocking=True) for clip in group}
        parts = [self._cut(clip, pixels[id(clip.pixels)]) for clip in group]
        return parts[0][None] if len(parts) == 1 else torch.stack(parts)

    def _cut(self, clip: Clip, pixels: Tensor) -> Tensor:
        left, top, right, bottom = clip.box
        on_cpu = self.device == "cpu"
        shown = clip.shown if on_cpu or clip.repeats is None else clip.shown[clip.repeats]
        frames = pixels[:, top:bottom, left:right].index_select(0, shown.to(self.device, non_blocking=True))
        planes = frames.permute(0, 3, 1, 2) if on_cpu else frames.permute(0, 3, 1, 2).float()
        small = F.interpolate(planes, (self.video.size,) * 2, mode="bilinear", antialias=True)
        if clip.flip:
            small = small.flip(3)
        return small.permute(1, 0, 2, 3).to(torch.float32, memory_format=torch.contiguous_format)

    def _coloured(self, shown: Tensor, group: Sequence[Clip]) -> Tensor:
        matrices = torch.from_numpy(np.stack([matrix(clip.colour) for clip in group])).to(self.device)
        flat = torch.baddbmm(matrices[:, :, 3:], matrices[:, :, :3], shown.flatten(2))
        return flat.clamp_(0, 255).view(shown.shape)

    def _blurred(self, shown: Tensor, group: Sequence[Clip]) -> Tensor:
        blurred = [n for n, clip in enumerate(group) if clip.sigma > 0]
        if not blurred:
            return shown
        if self.device == "cpu":
            return soften(shown, group[0].sigma)
        sigmas = torch.tensor([[group[n].sigma] * 2 for n in blurred], device=self.device)
        reach = 2 * math.ceil(3 * max(group[n].sigma for n in blurred)) + 1
        from kornia.filters import gaussian_blur2d  # the extra `bench`; only batches on a GPU need it

        soft = gaussian_blur2d(shown[blurred].flatten(1, 2), (reach, reach), sigmas)
        shown[blurred] = soft.view(len(blurred), *shown.shape[1:])
        return shown

    def _normalised(self, shown: Tensor, group: Sequence[Clip], out: Tensor) -> None:
        tone = torch.stack([clip.tone for clip in group])  # (N, T, 4)
        mean, std = (torch.tensor(v)[:, None] for v in (self.video.mean, self.video.std))
        factor = tone[:, None, :, 0] / (255 * std)
        summand = (tone[:, None, :, 1] + (tone[:, None, :, 2] - 1) * mean) / std  # (N, 3, T)
        factor, summand = (v[..., None, None].to(self.device, torch.float32) for v in (factor, summand))
        if self.device == "cpu":
            shown = shown if group[0].repeats is None else shown[:, :, group[0].repeats]
        torch.mul(shown, factor, out=out).add_(summand)
        for n, t in tone[..., 2].nonzero().tolist():
            out[n, :, t].add_(torch.randn_like(out[n, :, t]), alpha=float(tone[n, t, 2]))

    def sounds(self, clips: Sequence[Clip]) -> Tensor:
        """(N, 1, F, L) normalised spectrograms."""
        if self.device == "cpu":
            return torch.stack([self.spectrum(self.heard(clip)[None]) for clip in clips])
        return self.spectrum(torch.stack([self.heard(clip) for clip in clips]))[:, None]

    def heard(self, clip: Clip) -> Tensor:
        """(S,) the clip's sound after all its transforms."""
        sound = clip.sound.to(self.device, non_blocking=True)
        played = self._sped(sound, clip)[: self.audio.samples]
        for what, drawn in clip.steps:
            if step := SOUND.get(type(what)):
                played = step(played, drawn, sound, what)
        return played

    def _sped(self, sound: Tensor, clip: Clip) -> Tensor:
        """Resampled from s times the recording's rate: SpeedAug's way."""
        rate = round(clip.rate * clip.speed)
        if clip.speed * clip.rate != rate or clip.speed % 1:
            rate = round(clip.rate * clip.speed / PERCENT) * PERCENT
        if rate == self.audio.rate:
            return sound.clone()
        key = (rate, self.audio.rate)
        if key not in self.resamplers:
            self.resamplers[key] = torchaudio.transforms.Resample(*key, **self.filters).to(self.device)
        return self.resamplers[key](sound)  # type: ignore[no-any-return]


def as_rgb(coded: Sequence[Any]) -> NDArray[np.uint8]:
    """(U, H, W, 3) of decoded frames, by one context of FFmpeg's swscale on one thread."""
    reformatter = VideoReformatter()
    frames = (reformatter.reformat(frame, format="rgb24", threads=1) for frame in coded)
    return np.stack([frame.to_ndarray() for frame in frames])


class Spectrum:
    """The front end; windows and bands as torchaudio.transforms.MelSpectrogram(norm="slaney", mel_scale="slaney")."""

    def __init__(self, audio: AudioConfig, device: str) -> None:
        self.audio = audio
        self.window = torch.hann_window(audio.window_samples, device=device)
        # torch centres a short window in n_fft samples; ours begins with the clip
        self.room = 0 if audio.centred else (audio.n_fft - audio.window_samples) // 2
        if audio.spectrum == "mel":
            scale = (audio.n_fft // 2 + 1, 0.0, audio.rate / 2, audio.mels, audio.rate)
            bands = torchaudio.functional.melscale_fbanks(*scale, norm="slaney", mel_scale="slaney")
            self.bands = bands.T.contiguous().to(device)

    def __call__(self, played: Tensor) -> Tensor:
        """(N, S) -> (N, F, L)."""
        audio = self.audio
        padded = F.pad(played, (self.room, self.room)) if self.room else played
        spectrum = torch.stft(
            padded,
            audio.n_fft,
            audio.hop_samples,
            audio.window_samples,
            self.window,
            center=audio.centred,
            return_complex=True,
        )[..., : audio.stft_frames]
        power = spectrum.real.square().add_(spectrum.imag.square())
        if audio.spectrum == "mel":
            power = self.bands @ power
        elif audio.spectrum == "paired":
            power = torch.cat([power[:, :1], (power[:, 1::2] + power[:, 2::2]).mul_(0.5)], 1)
        decibels = power.clamp_(10.0 ** (audio.floor_db / 10)).log10_()
        normal = decibels.mul_(10 / audio.std).sub_(audio.mean / audio.std)
        if not audio.resize:
            return normal
        return F.interpolate(normal[:, None], audio.resize, mode="bilinear", antialias=True)[:, 0]


def matrix(colour: Sequence[float]) -> np.ndarray:
    """(3, 4) of a colour jitter: hue and saturation on YIQ's chroma, contrast around the middle grey."""
    brightness, contrast, saturation, turn = colour[0], colour[1], colour[2], math.radians(colour[3])
    cos, sin = saturation * math.cos(turn), saturation * math.sin(turn)
    mixed = RGB @ np.array([[1, 0, 0], [0, cos, sin], [0, -sin, cos]]) @ YIQ
    grey = np.full((3, 1), 128 * (1 - contrast))
    return (brightness * np.hstack([contrast * mixed, grey])).astype(np.float32)


def soften(pictures: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of the last two axes, 3 sigma to each side, mirrored at the border."""
    reach = math.ceil(3 * sigma)
    weights = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2)
    values, shape = (weights / weights.sum()).tolist(), pictures.shape
    planes = pictures.flatten(0, 2)[None]
    for axis, sides in ((2, (0, 0, reach, reach)), (3, (reach, reach, 0, 0))):
        padded, length = F.pad(planes, sides, mode="reflect"), planes.shape[axis]
        planes = padded.narrow(axis, reach, length) * values[reach]
        for k in (k for k in range(2 * reach + 1) if k != reach):
            planes.add_(padded.narrow(axis, k, length), alpha=values[k])
    return planes.view(shape)


def _faded(played: Tensor, drawn: Parameters, sound: Tensor, what: Any) -> Tensor:
    for length, end in ((round(drawn[0] * len(played)), 0), (round(drawn[1] * len(played)), 1)):
        if length:
            part = played[-length:] if end else played[:length]
            lengths = (0, length) if end else (length, 0)
            part.copy_(torchaudio.transforms.Fade(*lengths, NAMES[int(drawn[2])])(part))
    return played


def _masked(played: Tensor, drawn: Parameters, sound: Tensor, what: Any) -> Tensor:
    part = played[round(drawn[0] * len(played)) : round(drawn[1] * len(played))]
    if what.fill == "noise":
        part.normal_().mul_(sound.square().mean().sqrt())
    else:
        part.fill_(what.fill)
    return played


def _held(played: Tensor, drawn: Parameters, sound: Tensor, what: Any) -> Tensor:
    kept = max(round(len(played) * (1 - drawn[0])), 1)
    low = F.interpolate(played[None, None], kept, mode="nearest-exact")
    return F.interpolate(low, len(played), mode="nearest-exact")[0, 0]


def _pitched(played: Tensor, drawn: Parameters, sound: Tensor, what: Any) -> Tensor:
    """Slower by a phase vocoder (windows and hop of functional.pitch_shift), then read faster; or the reverse."""
    fraction = Fraction(2.0 ** (drawn[0] / 12)).limit_denominator(32)
    window, advance, read = _vocoder(str(played.device), fraction)
    spectrum = torch.stft(played, 512, 128, window=window, return_complex=True)
    longer = torchaudio.functional.phase_vocoder(spectrum, float(1 / fraction), advance)
    slow = torch.istft(longer, 512, 128, window=window, length=math.ceil(len(played) * fraction))
    return read(slow)[: len(played)]  # type: ignore[no-any-return]


@cache
def _vocoder(device: str, fraction: Fraction) -> tuple[Tensor, Tensor, Any]:
    advance = torch.linspace(0, math.pi * 128, 257, device=device)[:, None]
    read = torchaudio.transforms.Resample(fraction.numerator, fraction.denominator).to(device)
    return torch.hann_window(512, device=device), advance, read


SOUND: Mapping[type, Callable[[Tensor, Parameters, Tensor, Any], Tensor]] = {
    Reverse: lambda played, drawn, sound, what: played.flip(0) if drawn[0] else played,
    Fade: _faded,
    Mask: _masked,
    Shift: lambda played, drawn, sound, what: played.roll(round(drawn[0] * len(played))),
    Resample: _held,
    Volume: lambda played, drawn, sound, what: played.mul_(drawn[0]),
    Pitch: _pitched,
}
