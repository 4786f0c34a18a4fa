"""torchcodec 0.10 and torchaudio: one decoder for the pictures of all views, and one for their sound.

What was measured on one core (H.264 and AAC, 340x256, 10 s; CPU ms), and so is not left to the settings:

    union       one call with the instants of all views, in any order: torchcodec sorts them and decodes each frame once
    source      a path: bytes that were read before open no faster
    mappings    opening with `custom_frame_mappings`, made beforehand, takes 5.5, the scan of "exact" 3.8
    layout      NCHW is a view of NHWC, which torch resizes fastest
    conversion  widths that 32 does not divide go through a filter graph, 2 % more than swscale; no public switch
    resampling  torchaudio's kernels are kept: 0.7, not 1.4

and what is:

    seek_mode   "approximate" opens in 2.4, but goes back to the key frame before some of the frames of an mp4 with
                B-frames, 15 % more in all; files of minutes may prefer it, as "exact" reads all packets
    crop        by torch, of frames that all views share; or by the decoder with its resizing, a decoder for each view
    sound       decoded "once" for all views, resampled by torchaudio; or for each, "resampled" by the decoder, which
                plays at speed s by a rate divided by s. Either way it decodes from the file's beginning, by design
"""

from __future__ import annotations

from functools import cache
from itertools import product
from typing import Any, Literal

import av  # noqa: F401  # before torchcodec: see ffmpeg_names
import numpy as np
import torch
import torchaudio
from torch import Tensor

from coaug.pipelines.catalog import Catalog
from coaug.pipelines.config import DataConfig

from .finish import Finish, there
from .request import Request

SETTINGS: tuple[dict[str, Any], ...] = tuple(
    {"seek_mode": seek_mode, "crop": crop, "sound": sound}
    for seek_mode, crop, sound in product(
        ("exact", "approximate"), ("torch", "decoder"), ("once", "resampled")
    )
)
WHOLE, MIRRORED = np.array([0.0, 0, 1, 1]), np.array([1.0, 0, 0, 1])


class TorchCodec:
    """Clips of torchcodec's decoders, in order: those of the first request, one a view, and so on."""

    def __init__(
        self,
        catalog: Catalog,
        config: DataConfig,
        batch: int,
        *,
        seek_mode: Literal["exact", "approximate"] = "exact",
        crop: Literal["torch", "decoder"] = "torch",
        sound: Literal["once", "resampled"] = "once",
        device: str = "cpu",
    ) -> None:
        # not above: SETTINGS are read where FFmpeg is not found as well
        from torchcodec import decoders, transforms

        self.decoders, self.transforms = decoders, transforms
        self.config, self.finish, self.seek_mode, self.device = (
            config,
            Finish(config, device),
            seek_mode,
            device,
        )
        self.pictures = self._together if crop == "torch" else self._cropped
        self.sounds = self._once if sound == "once" else self._resampled

    def __call__(self, batch: list[Request]) -> list[tuple[Tensor, Tensor]]:
        return [clip for r in batch for clip in zip(self.pictures(r), self.sounds(r), strict=True)]

    def _together(self, request: Request) -> list[Tensor]:
        frames = self._decoder(request).get_frames_played_at(request.times.ravel().tolist()).data
        shown = frames.unflatten(0, request.times.shape)
        return [self.finish.pictures(view, crop) for view, crop in zip(shown, request.crop, strict=True)]

    def _cropped(self, request: Request) -> list[Tensor]:
        pictures = []
        for times, crop in zip(request.times, request.crop, strict=True):
            decoder = self._decoder(request, transforms=self._transforms(request, crop))
            small = decoder.get_frames_played_at(times.tolist()).data
            pictures.append(self.finish.pictures(small, MIRRORED if crop[0] > crop[2] else WHOLE))
        return pictures

    def _decoder(self, request: Request, **options: Any) -> Any:
        return self.decoders.VideoDecoder(
            request.path, seek_mode=self.seek_mode, num_ffmpeg_threads=1, device=self.device, **options
        )

    def _transforms(self, request: Request, crop: Any) -> list[Any]:
        """The box of `crop` (see Request), resized. torchcodec has random crops only: this one is told where."""
        video = request.recording.video
        assert video is not None
        left, right = (round(x * video.width) for x in sorted((crop[0], crop[2])))
        top, bottom = round(crop[1] * video.height), round(crop[3] * video.height)
        height, width = max(bottom, 1) - top, max(right, 1) - left
        placed = self.transforms.RandomCrop((height, width))
        placed._make_transform_spec = lambda dims: f"crop, {height}, {width}, {left}, {top}"
        return [placed, self.transforms.Resize((self.finish.size, self.finish.size))]

    def _once(self, request: Request) -> list[Tensor]:
        start, end = request.heard.min(), request.heard.max()
        heard = self.decoders.AudioDecoder(request.path).get_samples_played_in_range(start, end)
        # num_channels=1 would be louder than the channels' mean by sqrt(2), and no quicker
        rate, pcm = heard.sample_rate, heard.data.mean(0).to(self.device)
        parts = [pcm[first:last] for first, last in ((request.heard - start) * rate).astype(int)]
        return [self._played(part, rate, speed) for part, speed in zip(parts, request.speed, strict=True)]

    def _played(self, pcm: Tensor, rate: int, speed: float) -> Tensor:
        return self.finish.sound(resampler(round(rate * speed), self.config.audio.rate, self.device)(pcm))

    def _resampled(self, request: Request) -> list[Tensor]:
        sounds = []
        for heard, speed in zip(request.heard, request.speed, strict=True):
            decoder = self.decoders.AudioDecoder(
                request.path, sample_rate=round(self.config.audio.rate / speed)
            )
            sounds.append(self.finish.sound(decoder.get_samples_played_in_range(*heard).data.mean(0)))
        return sounds


class OnGpu(TorchCodec):
    """Pictures decoded by NVDEC, sound on the host; all that follows on the GPU. A batch counts when it is there."""

    def __init__(self, catalog: Catalog, config: DataConfig, batch: int) -> None:
        there()
        super().__init__(catalog, config, batch, device="cuda")

    def __call__(self, batch: list[Request]) -> list[tuple[Tensor, Tensor]]:
        clips = super().__call__(batch)
        torch.cuda.synchronize()
        return clips


@cache
def resampler(rate: int, wanted: int, device: str = "cpu") -> torchaudio.transforms.Resample:
    """With its kernels, which take longer to make than to use."""
    return torchaudio.transforms.Resample(rate, wanted).to(device)
