"""What cannot be done for less: decoding the packets that are needed, and handing out what is ready."""

from __future__ import annotations

from collections import deque
from itertools import takewhile
from typing import Any

import av
import numpy as np
import torch
from torch import Tensor

from coaug.pipelines import pcm
from coaug.pipelines.catalog import Catalog
from coaug.pipelines.config import DataConfig
from coaug.pipelines.decode import Decoder
from coaug.pipelines.groups import needed, only
from coaug.pipelines.media import Deadline, audio_rate, open_media, stream_of

from .request import Request


class DecodeOnly:
    """Packets of the union of a sample's views, read beforehand; decoded by new decoders, nothing converted."""

    def __init__(self, catalog: Catalog, config: DataConfig, batch: int) -> None:
        self.decoded = 0
        self.ready: list[tuple[Any, list[Any], Any, list[Any]]] = []

    def prepare(self, batch: list[Request]) -> None:
        """Demux what the next step decodes."""
        self.ready = [self._packets(request) for request in batch]

    def __call__(self, batch: list[Request]) -> None:
        for picture, pictures, sound, sounds in self.ready:
            decoder = Decoder(_fresh(picture), float(picture.time_base), Deadline(60))
            deque(decoder.frames(pictures), maxlen=0)
            self.decoded += decoder.decoded
            codec = _fresh(sound)
            for packet in [*sounds, None]:
                codec.decode(packet)

    def _packets(self, request: Request) -> tuple[Any, list[Any], Any, list[Any]]:
        container = open_media(request.path, Deadline(60))
        picture, sound = stream_of(container, "video"), stream_of(container, "audio")
        pictures = needed(container, picture, np.unique(request.times), Deadline(60))
        only(container, sound)
        begin = request.heard.min() - pcm.priming(sound.codec_context) - 1024 / audio_rate(container)
        heard = takewhile(
            lambda p: p.pts is not None and p.pts * p.time_base < request.heard.max(),
            pcm._needed(container, sound, begin, Deadline(60)),
        )
        return picture, pictures, sound, list(heard)


def _fresh(stream: Any) -> Any:
    codec: Any = av.CodecContext.create(stream.codec_context.codec.canonical_name, "r")
    codec.extradata, codec.thread_count = stream.codec_context.extradata, 1
    return codec


class Cached:
    """A batch that is ready, copied: what a training step would get at the very best."""

    def __init__(self, catalog: Catalog, config: DataConfig, batch: int) -> None:
        views, video, audio = len(config.views), config.video, config.audio
        self.ready = (
            torch.zeros(batch, views, 3, video.frames, video.size, video.size),
            torch.zeros(batch, views, 1, *audio.shape),
        )

    def __call__(self, batch: list[Request]) -> tuple[Tensor, ...]:
        return tuple(each.clone() for each in self.ready)
