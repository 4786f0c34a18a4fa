"""What a clip is: the `data:` section of every config, in seconds, hertz and pixels."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from ..config import STRICT
from .recipe import parse
from .spatial import CROPS, Crop
from .temporal import SCOPES, TRANSFORMS, Pitch, Transform

Modality = Literal["video", "audio"]
SMALLEST = 8  # pixels: the CPU resizes eight rows at a time


@dataclass(frozen=True)
class VideoConfig:
    """Shape and image-space augmentation of a clip's picture; whatever is drawn is the same for all its frames."""

    __pydantic_config__ = STRICT
    frames: int = 30
    fps: float = 30.0
    """Output frames per second of clip time; a frame is the one on screen at its instant, whatever the file's rate."""
    slack: float = 0.0
    """How far a frame may lie from its instant, in output frames, up to 0.5: layered shards then decode less."""
    size: int = 128
    """Height and width in pixels, at least 8."""
    crop: str = "resized(0.2, 1)"
    """One step of `spatial/`: resized(area_low, area_high, …), multiscale(…), centre or three."""
    flip: float = 0.5
    """Probability of a mirrored clip."""
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    """Colour jitter: factors in 1 ± value; hue in turns, ± value."""
    blur: float = 0.0
    """Probability of a Gaussian blur."""
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    """Its standard deviation (lowest, highest), in pixels of the output at a size of 224."""
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        _ = self.cropping
        if self.size < SMALLEST:
            raise ValueError(f"size {self.size}: a picture is at least {SMALLEST} pixels high and wide")
        if not 0 <= self.slack <= 0.5:
            raise ValueError(f"slack {self.slack}: 0 to 0.5 output frames")

    @cached_property
    def cropping(self) -> Crop:
        """The crop that `crop` names."""
        steps = parse(self.crop, CROPS)
        if len(steps) != 1:
            raise ValueError(f"one crop, such as resized(0.2, 1), not {self.crop!r}")
        return steps[0].what

    @property
    def jitters(self) -> bool:
        """Whether any colour is changed."""
        return any((self.brightness, self.contrast, self.saturation, self.hue))

    @property
    def seconds(self) -> float:
        """Clip time covered by the frames."""
        return self.frames / self.fps


@dataclass(frozen=True)
class AudioConfig:
    """Waveform and time-frequency front end of a clip's sound."""

    __pydantic_config__ = STRICT
    rate: int = 24000
    seconds: float = 1.0
    antialias: bool = True
    """Low-pass what is played faster. False is plain subsampling; another sampling rate is always low-passed for."""
    speed_on: Literal["waveform", "spectrogram"] = "waveform"
    """What is played faster or backwards: the sound, or only its windows, which leaves the pitch as it is."""
    spectrum: Literal["mel", "linear", "paired"] = "mel"
    """Bands: Slaney's mel filters, every FFT bin, or the bins above 0 Hz averaged two by two."""
    window: float = 0.02
    hop: float = 0.01
    """STFT window and hop in seconds; the window is a periodic Hann."""
    n_fft: int = 512
    centred: bool = False
    """Frame j is centred on j hops, the ends mirrored, and L is seconds / hop; else only whole windows count."""
    mels: int = 40
    resize: tuple[int, int] | None = None
    """(F, L) that the spectrogram is resized to, bilinearly; None leaves it."""
    floor_db: float = -80.0
    """Powers below this are lifted to it (reference: a full-scale power of 1)."""
    mean: float = -20.0
    std: float = 20.0
    """Spectrograms leave the graph as (dB - mean) / std."""
    stats: str | None = None
    """A file of `coaug stats` with mean and std of every band, used instead of the two numbers above."""
    waveform: bool = False
    """Also hand out the sound that was played, before the STFT."""

    def __post_init__(self) -> None:
        multiple, window = 4 if self.spectrum == "paired" else 2, self.window_samples
        if window < 1 or self.hop_samples < 1:
            raise ValueError(
                f"window and hop: {self.window} s and {self.hop} s, less than a sample at {self.rate} Hz"
            )
        if self.n_fft < window or self.n_fft % multiple:
            raise ValueError(
                f"n_fft: {self.n_fft}, not a multiple of {multiple} that holds the window's {window} samples"
            )
        if self.stft_frames < 1:
            raise ValueError(f"seconds: {self.seconds}, too short for a single window of {self.window} s")
        if self.mels < 1:
            raise ValueError(f"mels: {self.mels}; a spectrogram has at least one band")
        if self.resize and min(self.resize) < SMALLEST:
            raise ValueError(f"resize: {self.resize}; at least {SMALLEST} bands and frames")
        if self.waveform and self.speed_on == "spectrogram":
            raise ValueError("waveform: with speed_on: spectrogram no sound is played, only windows of it")
        if self.std <= 0:
            raise ValueError(f"std: {self.std}; it divides, and must be positive")

    @property
    def samples(self) -> int:
        """Output samples per clip, S."""
        return round(self.rate * self.seconds)

    @property
    def window_samples(self) -> int:
        """STFT window in samples."""
        return round(self.rate * self.window)

    @property
    def hop_samples(self) -> int:
        """STFT hop in samples."""
        return round(self.rate * self.hop)

    @property
    def stft_frames(self) -> int:
        """Windows of the STFT, before any resizing."""
        if self.centred:
            return round(self.samples / self.hop_samples)
        return (self.samples - self.window_samples) // self.hop_samples + 1

    @property
    def stft_bands(self) -> int:
        """Bands of the spectrogram, before any resizing."""
        return {"mel": self.mels, "linear": self.n_fft // 2 + 1, "paired": self.n_fft // 4 + 1}[self.spectrum]

    @property
    def shape(self) -> tuple[int, int]:
        """(F, L): bands by frames of what an encoder is given."""
        return self.resize or (self.stft_bands, self.stft_frames)


@dataclass(frozen=True)
class TemporalStep:
    """A transform of a view's recipe and whom it is for: "aligned", "unaligned", "audio" or "video"."""

    what: Transform
    scope: str

    def applies(self, modality: Modality) -> bool:
        """Whether a modality goes through it."""
        return self.scope in ("aligned", "unaligned", modality) and (
            modality == "audio" or not self.what.audio_only
        )


@dataclass(frozen=True)
class ViewConfig:
    """How one view of a sample is played."""

    __pydantic_config__ = STRICT
    temporal: str = ""
    """Co-augmentations in order, such as `speed(1, 2) | resample(0.75) | shift(0.5)`: see `temporal/`."""
    apply: Literal["aligned", "unaligned", "audio", "video"] = "aligned"
    """One draw for both modalities, one each, or only one of them; `video: fade(0.5)` sets a single step apart."""

    def __post_init__(self) -> None:
        if sum(isinstance(step.what, Pitch) for step in self.steps) > 1:
            raise ValueError(f"{self.temporal!r}: a view's pitch is shifted once at most")

    @cached_property
    def steps(self) -> tuple[TemporalStep, ...]:
        """The transforms in order, each with its scope."""
        found = parse(self.temporal, TRANSFORMS, SCOPES)
        return tuple(TemporalStep(step.what, step.scope or self.apply) for step in found)

    def plays(self, modality: Modality) -> tuple[Transform, ...]:
        """The transforms that a modality goes through, in order."""
        return tuple(step.what for step in self.steps if step.applies(modality))

    def slowest(self, modality: Modality, seconds: float) -> float:
        """The smallest speed that can be drawn for clips of so many seconds."""
        return math.prod(transform.slowest(seconds) for transform in self.plays(modality))


@dataclass(frozen=True)
class DataConfig:
    """Everything that decides what a batch holds, given a catalog and a seed."""

    __pydantic_config__ = STRICT
    video: VideoConfig = field(default_factory=VideoConfig)
    audio: AudioConfig = field(default_factory=AudioConfig)
    views: tuple[ViewConfig, ...] = (ViewConfig(),)
    moments: Literal["same", "independent", "decreasing", "uniform"] = "same"
    """Starts of a sample's views: one random instant; one each; the first one's delayed by a time drawn from a
    linearly decreasing density (CVRL); or evenly spread over the recording (evaluation)."""
    modalities: tuple[Modality, ...] = ("video", "audio")

    def tones(self, modality: Modality) -> bool:
        """Whether any view's gain or fill differs from 1 and 0."""
        return any(transform.tones for view in self.views for transform in view.plays(modality))

    @property
    def lengths(self) -> dict[Modality, float]:
        """Clip time of each modality in use, seconds."""
        both: dict[Modality, float] = {"video": self.video.seconds, "audio": self.audio.seconds}
        return {name: both[name] for name in self.modalities}

    @cached_property
    def clip_seconds(self) -> float:
        """Clip time of the longer modality: the unit of every timeline. The shorter one shows its beginning."""
        return max(self.lengths.values())

    @property
    def needed_seconds(self) -> float:
        """What the longest clip needs at the slowest speed of its library: a shorter recording cannot be used."""
        seconds = self.clip_seconds
        return seconds * max(view.slowest(name, seconds) for name in self.modalities for view in self.views)

    def for_test(self, clips: int, crops: int = 1) -> DataConfig:
        """The deterministic twin: evenly spread views as recorded, without jitter, blur or flip.

        Args:
            clips: moments a recording.
            crops: 1, the centre, or 3 a moment: the two ends of the picture's longer side and its centre.
        """
        plain: dict[str, Any] = dict.fromkeys(
            ("flip", "brightness", "contrast", "saturation", "hue", "blur"), 0.0
        )
        video = dataclasses.replace(self.video, **plain, crop="three" if crops == 3 else "centre")
        return dataclasses.replace(
            self, video=video, views=(ViewConfig(),) * clips * crops, moments="uniform"
        )
