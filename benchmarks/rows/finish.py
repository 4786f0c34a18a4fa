"""What most peers do after decoding: crop, mirror, resize and normalise in torch; log-mel by torch and torchaudio."""

from __future__ import annotations

import numpy as np
import torch
from augment_peers import Spectrum
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from coaug.pipelines.config import DataConfig


class Finish:
    """Tensors of decoded frames and samples, as training takes them: what AVLoader gives, but for rounding."""

    def __init__(self, config: DataConfig, device: str = "cpu") -> None:
        audio, video = config.audio, config.video
        self.size, self.samples = video.size, round(audio.seconds * audio.rate)
        std, mean = (torch.tensor(x, device=device).view(3, 1, 1, 1) for x in (video.std, video.mean))
        self.scale, self.shift = 1 / (255 * std), -mean / std
        self.spectrum = Spectrum(audio, device)

    def pictures(self, frames: Tensor, crop: NDArray[np.float64]) -> Tensor:
        """(T, 3, H, W) bytes -> (3, T, S, S) float32, normalised; of the box `crop` (see Request)."""
        height, width = frames.shape[2:]
        left, right = sorted((crop[0] * width, crop[2] * width))
        top, bottom = crop[1] * height, crop[3] * height
        part = frames[:, :, round(top) : max(round(bottom), 1), round(left) : max(round(right), 1)]
        packed = part.contiguous(
            memory_format=torch.channels_last
        )  # torch resizes such bytes four times as fast
        small = F.interpolate(packed, (self.size, self.size), mode="bilinear", antialias=True)
        small = small.flip(3) if crop[0] > crop[2] else small
        planes = small.transpose(0, 1).to(torch.float32, memory_format=torch.contiguous_format)
        return planes.mul_(self.scale).add_(self.shift)

    def sound(self, samples: Tensor) -> Tensor:
        """(n,) float32, mono, at the rate of the spectrogram -> (1, F, L)."""
        whole = F.pad(samples[: self.samples], (0, max(self.samples - len(samples), 0)))
        spectrum: Tensor = self.spectrum(whole[None])
        return spectrum


def there() -> None:
    """Raises RuntimeError where there is no GPU to run a row on."""
    if not torch.cuda.is_available():
        raise RuntimeError("torch sees no GPU on this machine")
