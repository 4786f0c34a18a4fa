"""A lean loader by hand, as people who know PyAV write it: each view opened, sought and decoded for itself."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import torchaudio
from av.video.reformatter import VideoReformatter
from torch import Tensor

from coaug.pipelines.catalog import Catalog
from coaug.pipelines.config import DataConfig
from coaug.pipelines.media import Deadline, audio_rate, converting, open_media, read_audio, read_frames

from .finish import Finish
from .request import Request


class ByHand:
    """PyAV on one thread, one context of swscale, torch; with our exact readers, dropping included."""

    def __init__(self, catalog: Catalog, config: DataConfig, batch: int) -> None:
        self.config, self.finish, self.reformatter = config, Finish(config), VideoReformatter()
        self.resampler, self.decoded = cache(torchaudio.transforms.Resample), 0

    def __call__(self, batch: list[Request]) -> list[tuple[Tensor, Tensor]]:
        return [self._clip(request, view) for request in batch for view in range(len(request.start))]

    def _clip(self, request: Request, view: int) -> tuple[Tensor, Tensor]:
        with open_media(request.path, Deadline(60)) as container:
            frames = read_frames(container, request.times[view], Deadline(60), converting(self._rgb))
            self.decoded += frames.decoded
            pictures = torch.from_numpy(frames.pixels).permute(0, 3, 1, 2)[frames.index]
            rate, (first, last) = audio_rate(container), request.heard[view]
            pcm = torch.from_numpy(read_audio(container, int(first * rate), int(last * rate), Deadline(60)))
        played = self.resampler(round(rate * request.speed[view]), self.config.audio.rate)(pcm)
        return self.finish.pictures(pictures, request.crop[view]), self.finish.sound(played)

    def _rgb(self, frame: Any) -> Any:
        return self.reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()
