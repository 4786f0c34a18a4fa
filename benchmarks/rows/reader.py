"""decord2 and torchaudio: one reader for the pictures of all views, one decoding of their sound.

What was measured on one core (H.264 and AAC, 340x256, 10 s; CPU ms), and so is not left to the settings:

    union   the numbers of all views' frames, sorted and each once: `get_batch` takes 68; for two views one after the
            other, which goes back in the file, 104
    shown   by the frames' time stamps: as quick as the average rate, and right where frames come irregularly
    torch   decord's bridge, which copies nothing, saves 2
    size    `width` and `height` of a reader resize whole frames, to whole pixels: that moves the crop by up to half a
            pixel of the result (0.04 to 0.11 off on average), and needs a reader for each view

and what is:

    sound   PyAV decodes the "window" that all views need, in 7; AudioReader the whole "file", in 9 to 10. (Its mono is
            louder than the mean by sqrt(2) and its own resampling adds a tenth of samples: neither is used.)
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from coaug.pipelines.catalog import Catalog
from coaug.pipelines.config import DataConfig
from coaug.pipelines.media import Deadline, audio_rate, open_media, read_audio

from .codec import resampler
from .finish import Finish
from .request import Request

SETTINGS: tuple[dict[str, Any], ...] = ({"sound": "window"}, {"sound": "file"})


class Decord:
    """Clips of decord's readers, in order: those of the first request, one a view, and so on."""

    def __init__(
        self,
        catalog: Catalog,
        config: DataConfig,
        batch: int,
        *,
        sound: Literal["window", "file"] = "window",
    ) -> None:
        from decord import bridge  # after PyAV: decord's FFmpeg would stand in for PyAV's

        bridge.set_bridge("torch")
        self.config, self.finish = config, Finish(config)
        self.pcm = _window if sound == "window" else _file

    def __call__(self, batch: list[Request]) -> list[tuple[Tensor, Tensor]]:
        return [clip for r in batch for clip in zip(self.pictures(r), self.sounds(r), strict=True)]

    def pictures(self, request: Request) -> list[Tensor]:
        """(3, T, S, S) of each view."""
        from decord import VideoReader, cpu

        reader = VideoReader(request.path, ctx=cpu(0), num_threads=1)
        begins = reader.get_frame_timestamp(np.arange(len(reader)))[:, 0]
        # time stamps are float32, and so have to be the instants
        numbers = np.searchsorted(begins, request.times.astype(np.float32), "right") - 1
        needed, index = np.unique(numbers.clip(0), return_inverse=True)
        frames = reader.get_batch(needed)
        shown = [frames.index_select(0, view) for view in torch.from_numpy(index.reshape(numbers.shape))]
        views = zip(shown, request.crop, strict=True)
        return [self.finish.pictures(view.permute(0, 3, 1, 2), crop) for view, crop in views]

    def sounds(self, request: Request) -> list[Tensor]:
        """(1, F, L) of each view."""
        rate, begin, pcm = self.pcm(request)
        parts = [pcm[first:last] for first, last in (request.heard * rate).astype(int) - begin]
        views = zip(parts, request.speed, strict=True)
        return [self.finish.sound(self._played(part, rate, speed)) for part, speed in views]

    def _played(self, pcm: Tensor, rate: int, speed: float) -> Tensor:
        played: Tensor = resampler(round(rate * speed), self.config.audio.rate)(pcm)
        return played


def _window(request: Request) -> tuple[int, int, Tensor]:
    """Samples a second, number of the first sample, mono."""
    with open_media(request.path, Deadline(60)) as container:
        rate = audio_rate(container)
        first, last = int(request.heard.min() * rate), int(request.heard.max() * rate)
        return rate, first, torch.from_numpy(read_audio(container, first, last, Deadline(60)))


def _file(request: Request) -> tuple[int, int, Tensor]:
    """As `_window`, of a track that begins at 0 s."""
    from decord import AudioReader, cpu

    sound = request.recording.audio
    assert sound is not None
    first, last = int(request.heard.min() * sound.rate), int(request.heard.max() * sound.rate)
    tracks = AudioReader(request.path, ctx=cpu(0), mono=False)._array  # get_batch takes a list of numbers
    return sound.rate, first, torch.from_numpy(tracks[:, first:last]).mean(0)
