"""What a clip is: the `data:` section of every config, in seconds, hertz and pixels."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from ..config import STRICT

Modality = Literal["video", "audio"]


@dataclass(frozen=True)
class VideoConfig:
    """Shape and image-space augmentation of a clip's picture."""

    __pydantic_config__ = STRICT
    frames: int = 30
    fps: float = 30.0
    """Output frames per second of clip time; a frame is the one on screen at its instant, whatever the file's rate."""
    size: int = 128
    """Height and width in pixels."""
    crop_area: tuple[float, float] = (0.2, 1.0)
    """Random resized crop: share of the picture's area (lowest, highest). (1, 1) is the centre crop."""
    crop_aspect: tuple[float, float] = (0.75, 1.3333)
    flip: float = 0.5
    """Probability of a mirrored clip."""
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    """Colour jitter: factors in 1 ± value; hue in turns, ± value."""
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

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
    """Waveform and log-mel front end of a clip's sound."""

    __pydantic_config__ = STRICT
    rate: int = 24000
    seconds: float = 1.0
    window: float = 0.02
    hop: float = 0.01
    """STFT window and hop in seconds."""
    n_fft: int = 512
    mels: int = 40
    floor_db: float = -80.0
    """Powers below this are lifted to it (reference: a full-scale power of 1)."""
    mean: float = -20.0
    std: float = 20.0
    """Spectrograms leave the graph as (dB - mean) / std."""

    @property
    def samples(self) -> int:
        """Output samples per clip, S."""
        return round(self.rate * self.seconds)

    @property
    def frames(self) -> int:
        """Spectrogram frames, L: whole windows only."""
        return (self.samples - round(self.rate * self.window)) // round(self.rate * self.hop) + 1


@dataclass(frozen=True)
class ViewConfig:
    """How one view of a sample is played."""

    __pydantic_config__ = STRICT
    video_speeds: tuple[float, ...] = (1.0,)
    audio_speeds: tuple[float, ...] = (1.0,)
    """Speed libraries; one speed is drawn uniformly from those that fit the recording."""
    aligned: bool = False
    """One draw for both modalities (from `video_speeds`) instead of two."""
    reverse: float = 0.0
    """Probability that a modality is played backwards; one draw for both when aligned."""

    def speeds(self, modality: Modality) -> tuple[float, ...]:
        """The library that a modality's speed is drawn from."""
        return self.audio_speeds if modality == "audio" and not self.aligned else self.video_speeds


@dataclass(frozen=True)
class DataConfig:
    """Everything that decides what a batch holds, given a catalog and a seed."""

    __pydantic_config__ = STRICT
    video: VideoConfig = field(default_factory=VideoConfig)
    audio: AudioConfig = field(default_factory=AudioConfig)
    views: tuple[ViewConfig, ...] = (ViewConfig(),)
    moments: Literal["same", "independent", "uniform"] = "same"
    """Starts of a sample's views: one random instant, one each, or evenly spread over the recording (evaluation)."""
    modalities: tuple[Modality, ...] = ("video", "audio")

    @property
    def lengths(self) -> dict[Modality, float]:
        """Clip time of each modality in use, seconds."""
        both: dict[Modality, float] = {"video": self.video.seconds, "audio": self.audio.seconds}
        return {name: both[name] for name in self.modalities}

    @property
    def clip_seconds(self) -> float:
        """Clip time of the longer modality."""
        return max(self.lengths.values())

    @property
    def needed_seconds(self) -> float:
        """What the longest clip needs at the slowest speed of its library: a shorter recording cannot be used."""
        return max(s * min(view.speeds(name)) for name, s in self.lengths.items() for view in self.views)

    def for_test(self, clips: int) -> DataConfig:
        """The deterministic twin: `clips` evenly spread views at speed 1, centre crop, no jitter, no flip."""
        plain: dict[str, Any] = dict.fromkeys(("flip", "brightness", "contrast", "saturation", "hue"), 0.0)
        plain |= {"crop_area": (1.0, 1.0), "crop_aspect": (1.0, 1.0)}
        video = dataclasses.replace(self.video, **plain)
        return dataclasses.replace(self, video=video, views=(ViewConfig(),) * clips, moments="uniform")
