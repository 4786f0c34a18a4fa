"""What the loader hands out."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """B samples of V views each; what was not asked for is None. Rows with `valid` False show a stand-in.

    Shapes and units:
        video: (B, V, 3, T, H, W) float32, normalised.
        audio: (B, V, 1, F, L) float32, normalised log spectrogram, F bands by L frames.
        video_pts: (B, V, T) float64, seconds: presentation time of each frame shown, in the recording's file.
        audio_pts: (B, V, 2) float64, seconds: source time of the first and of the last audio sample's centre.
        speed, direction: (B, V, 2) float32; [..., 0] video, [..., 1] audio; direction is 1 or -1.
        sample_id: (B,) int64, the catalog's stable ids.
        valid: (B,) bool.  label: (B,) int64, -1 where unknown.
        epoch, step: of the global batch these rows are a slice of.
        waveform: (B, V, S) float32, the sound that was played, where `audio.waveform` asks for it.
    """

    video: Tensor | None
    audio: Tensor | None
    video_pts: Tensor
    audio_pts: Tensor
    speed: Tensor
    direction: Tensor
    sample_id: Tensor
    valid: Tensor
    label: Tensor
    epoch: int
    step: int
    waveform: Tensor | None = None

    def __len__(self) -> int:
        return len(self.sample_id)

    def __getitem__(self, rows: slice) -> Batch:
        """The same batch cut to `rows` (views of the tensors, no copy)."""
        return self._map(lambda tensor: tensor[rows])

    def to(self, device: Any) -> Batch:
        """Every tensor on `device`."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def _map(self, function: Any) -> Batch:
        tensors = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{k: function(v) for k, v in tensors.items() if isinstance(v, Tensor)})

    def __repr__(self) -> str:
        shapes = (f"{f.name}={_shape(getattr(self, f.name))}" for f in fields(self))
        return f"Batch({', '.join(shapes)})"


def _shape(value: Any) -> str:
    return f"{tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
