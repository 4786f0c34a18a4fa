"""PyNvVideoCodec, NVIDIA's own library: NVDEC with sessions that are kept from file to file. Not yet run on a GPU.

A frame is asked for by its number, its time after the first frame x average rate (the library looks numbers up by time
in the same way); each is decoded once for all views, from the key frame before it. Frames come out as planar RGB on the
GPU and go on to torch by DLPack, where each is copied at once: a later call may write over it. Sound is decoded by
PyAV, once a sample over all windows, as the library knows none.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from coaug.pipelines.catalog import Catalog
from coaug.pipelines.config import DataConfig
from coaug.pipelines.media import Deadline, audio_rate, open_media, read_audio

from .codec import resampler
from .dali import union
from .finish import Finish, there
from .request import Request

KEPT = 8  # decoder sessions, one for each size of picture


class Raw:
    """Decoding alone: frames stay in the library's own surfaces, and there is no sound."""

    colours, device = "NATIVE", "cuda"

    def __init__(self, catalog: Catalog, config: DataConfig, batch: int) -> None:
        there()
        import PyNvVideoCodec  # needs a driver

        self.library, self.config = PyNvVideoCodec, config
        self.decoder: Any = None

    def __call__(self, batch: list[Request]) -> None:
        for request in batch:
            self._decoded(request, union(request)[0].tolist())
        torch.cuda.synchronize()

    def _decoded(self, request: Request, numbers: list[int]) -> list[Any]:
        """The frames of these numbers, ascending."""
        if self.decoder is None:
            colours = getattr(self.library.OutputColorType, self.colours)
            self.decoder = self.library.SimpleDecoder(
                request.path, use_device_memory=True, decoder_cache_size=KEPT, output_color_type=colours
            )
        else:
            self.decoder.reconfigure_decoder(request.path)
        frames: list[Any] = self.decoder.get_batch_frames_by_index(numbers)
        if len(frames) != len(numbers):
            raise RuntimeError(f"{request.path}: {len(frames)} of {len(numbers)} frames were decoded")
        return frames


class Decoded(Raw):
    """Clips, in order: those of the first request, one a view, and so on."""

    colours = "RGBP"

    def __init__(self, catalog: Catalog, config: DataConfig, batch: int) -> None:
        super().__init__(catalog, config, batch)
        self.finish = Finish(config, self.device)

    def __call__(self, batch: list[Request]) -> Any:
        clips = [clip for request in batch for clip in self._clips(request)]
        torch.cuda.synchronize()
        return clips

    def _clips(self, request: Request) -> list[tuple[Tensor, Tensor]]:
        numbers, index = union(request)
        frames = torch.stack([torch.from_dlpack(f) for f in self._decoded(request, numbers.tolist())])
        pictures = [
            self.finish.pictures(frames[torch.from_numpy(which).to(self.device)], crop)
            for which, crop in zip(index, request.crop, strict=True)
        ]
        return list(zip(pictures, self._sounds(request), strict=True))

    def _sounds(self, request: Request) -> list[Tensor]:
        with open_media(request.path, Deadline(60)) as container:
            rate = audio_rate(container)
            windows = (request.heard * rate).astype(int)
            first = int(windows.min())
            pcm = torch.from_numpy(read_audio(container, first, int(windows.max()), Deadline(60)))
        wanted, heard = self.config.audio.rate, pcm.to(self.device)
        return [
            self.finish.sound(resampler(round(rate * float(speed)), wanted, self.device)(heard[low:high]))
            for (low, high), speed in zip(windows - first, request.speed, strict=True)
        ]
