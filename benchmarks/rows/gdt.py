"""GDT's data loader (Patrick et al., "Multi-modal Self-Supervision from Generalized Data Transformations") as a peer.

Re-implemented, not copied, from what github.com/facebookresearch/GDT (873e630) does in datasets/GDTPretrainDataset.py,
decoder.py and audio_utils.py. Given its draws, which frames are shown and where the sound begins follow its rules to
the letter. Kept of its design:

    every view   is opened and decoded for itself, picture and sound, even where both begin at one instant
    seeking      to the key frame 1,024 ticks or more before frame number `start x average rate`
    frames       all from there to the end of the clip; of those from its beginning on, floor(linspace(0, n - 1, T))
    undeclared   where a file tells no duration (Matroska, WebM), its whole picture, counted from its first frame
    sound        the whole track, by another open (there, of an ffmpeg of its own: a process a clip); of that the part
                 from the first frame's time on, or the last one that is long enough
    speed        its stride: n = T s / fps x average rate frames, and sound at 1/s of the rate, s times as long

What is decoded is the pattern; all that is done to it afterwards is done the cheaper way, to have the peer at its best.
In this process, not in ffmpeg's, which would have to start and to hand ten seconds over by a pipe; RGB of the frames
that are picked, by one context of swscale (it converts all of the clip, here up to 120, with a context a frame, and
stacks them); downmix and resampling of the part that is heard, by torchaudio with its kernels kept, in float32 (ffmpeg
resamples the whole track, to 16 bits). These two spare it 8 ms each, of a clip's 84. No frame is decoded beyond the
last that can be picked; codecs run on one thread.
Crop, resize and log-mel are every peer's (`finish.py`), for those of its own: whole frames in float32 resized to a
short side of 128 to 160, then cut; python_speech_features' filter bank in float64.
Left out: the second clip that it makes of each decoded one, played backwards; colour jitter, volume jitter and masked
bands, which no other row has; every error becoming a crash of the loader, that of files that declare no duration and
have sound included (`start_idx` is unbound): here they are read. Streams are taken to begin at time zero, as there.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import av
import numpy as np
import torch
import torchaudio
from av.video.reformatter import VideoReformatter
from torch import Tensor

from coaug.pipelines.catalog import Catalog
from coaug.pipelines.config import DataConfig
from coaug.pipelines.groups import only
from coaug.pipelines.mono import mono

from .finish import Finish
from .request import Request

MARGIN = 1024  # ticks of the stream's time base


class Gdt:
    """Views one after the other; `decoded` frames so far, the unwanted ones before a clip included."""

    def __init__(self, catalog: Catalog, config: DataConfig, batch: int) -> None:
        self.audio, self.video, self.finish = config.audio, config.video, Finish(config)
        self.reformatter, self.resampler = VideoReformatter(), cache(torchaudio.transforms.Resample)
        self.decoded = 0

    def __call__(self, batch: list[Request]) -> list[tuple[Tensor, Tensor]]:
        return [self._clip(request, view) for request in batch for view in range(len(request.start))]

    def _clip(self, request: Request, view: int) -> tuple[Tensor, Tensor]:
        speed = float(request.speed[view])
        pictures, begin = self._picture(request.path, float(request.start[view]), speed)
        sound = self._sound(request.path, begin, speed)
        return self.finish.pictures(pictures, request.crop[view]), self.finish.sound(sound)

    def _picture(self, path: str, start: float, speed: float) -> tuple[Tensor, float]:
        """(T, 3, H, W) bytes, and the second at which the first of the frames is due."""
        with av.open(path) as container:
            stream = single(container.streams.video[0])
            rate = float(stream.average_rate)
            first, count = int(start * rate), speed * self.video.seconds * rate
            if not (stream.duration and stream.frames):
                frames, offset = list(self._counted(container, stream)), first
            else:
                frames, offset = self._part(container, stream, first, count), 0
            return self._rgb(
                [frames[n] for n in picked(len(frames), offset, count, self.video.frames)]
            ), first / rate

    def _part(self, container: Any, stream: Any, first: int, count: float) -> list[Any]:
        """The frames from number `first` on, until a clip of `count` can be picked or its end has passed."""
        tick = stream.duration / stream.frames
        begin, end, frames = int(first * tick), int((first + count - 1) * tick), list[Any]()
        container.seek(max(begin - MARGIN, 0), stream=stream)
        for frame in self._counted(container, stream):
            frames += [frame] if frame.pts >= begin else []
            if frame.pts > end or len(frames) > count - 1:
                break
        return frames

    def _counted(self, container: Any, stream: Any) -> Iterator[Any]:
        for frame in container.decode(stream):
            self.decoded += 1
            yield frame

    def _rgb(self, frames: list[Any]) -> Tensor:
        pixels = {
            id(frame): self.reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()
            for frame in frames
        }
        return torch.from_numpy(np.stack([pixels[id(frame)] for frame in frames])).permute(0, 3, 1, 2)

    def _sound(self, path: str, begin: float, speed: float) -> Tensor:
        """(n,) float32, mono, played `speed` times as fast."""
        with av.open(path) as container:
            stream = single(container.streams.audio[0])
            only(container, stream)  # as ffmpeg does
            frames, rate = list(container.decode(stream)), int(stream.codec_context.sample_rate)
        pcm = part(frames, round(begin * rate), round(speed * self.audio.seconds * rate))
        played: Tensor = self.resampler(round(rate * speed), self.audio.rate)(pcm)
        return played


def single(stream: Any) -> Any:
    """The stream, on one thread."""
    stream.thread_count = 1
    return stream


def picked(decoded: int, offset: int, count: float, frames: int) -> list[int]:
    """Which of the decoded frames a clip of `count` from number `offset` on shows."""
    numbers = torch.linspace(offset, offset + count - 1, frames).clamp(0, decoded - 1)
    return numbers.long().tolist()


def part(frames: list[Any], first: int, count: int) -> Tensor:
    """(count,) mono samples from number `first` of the track on, or the last of it where it ends before."""
    ends = np.cumsum([frame.samples for frame in frames])
    first = max(min(first, int(ends[-1]) - count), 0)
    low, high = np.searchsorted(ends, (first, first + count - 1), side="right")
    heard = np.concatenate([mono(frame) for frame in frames[low : high + 1]])
    skip = first - int(ends[low]) + frames[low].samples
    return torch.from_numpy(heard[skip : skip + count])
