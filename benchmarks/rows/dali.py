"""DALI as its documentation has it: `fn.decoders.video` on whole files, the pictures made in the graph.

The decoder never seeks: each file is decoded from its first frame to the last that is wanted. On a CPU it knows VP8,
VP9 and MJPEG only; collections of anything else are refused. (With a GPU, NVDEC decodes, and the pictures stay there:
this branch follows the documentation and has not been run.) To have the peer at its best:

    decode     the union of a sample's views once; a frame's number is its time after the first frame x average rate, as
               DALI tells no time stamps
    pictures   each view's frames picked, cut, resized and rounded to bytes, mirrored and normalised. What is resized is
               cut before: `resize` reads beyond its region of interest, which gives other borders
    finish     or all that in torch (`finish.py`), of frames that the graph hands over: "graph" or "torch".
               `resize` takes 8 ms for 16 frames of 340x256, three quarters of what follows decoding
    sound      PyAV, as DALI reads none out of videos: once a sample, over all its windows; then torchaudio, its kernels
               kept. Log-mel in torch takes as long as in the graph, `fn.audio_resample` several times torchaudio's
    handing    no copies: arrays go in as they are, and come out by DLPack

One thread, one batch at a time: nothing is prepared ahead, so that whoever asks for a batch pays for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from itertools import chain
from typing import Any

import numpy as np
import torch
import torchaudio
from numpy.typing import NDArray
from nvidia.dali import fn, pipeline_def, types
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from coaug.pipelines.catalog import Catalog
from coaug.pipelines.config import DataConfig, VideoConfig
from coaug.pipelines.media import Deadline, audio_rate, open_media, read_audio
from coaug.pipelines.recording import VideoStream

from .finish import Finish
from .request import Request

ON_CPU = frozenset({"vp8", "vp9", "mjpeg"})
SETTINGS = ({"finish": "graph"}, {"finish": "torch"})
Arrays = dict[str, NDArray[Any]]


class Dali:
    """A graph for pictures, torch for sound; `decoded` frames so far, all before a wanted one included."""

    settles = True  # DALI's threads may still be busy when a batch is there

    def __init__(self, catalog: Catalog, config: DataConfig, batch: int, finish: str = "graph") -> None:
        device = "mixed" if torch.cuda.is_available() else "cpu"
        refuse(device, {recording.video.codec for recording in catalog if recording.video})
        self.config, self.finish, self.in_graph = config, Finish(config), finish == "graph"
        self.resampler, self.decoded = cache(torchaudio.transforms.Resample), 0
        on = {"device_id": None if device == "cpu" else 0, "num_threads": 1, "batch_size": batch}
        views = len(config.views) if self.in_graph else 0
        self.pipeline = graph(config.video, views, device, prefetch_queue_depth=1, exec_dynamic=True, **on)
        self.pipeline.build()

    def __call__(self, batch: list[Request]) -> list[tuple[Tensor, Tensor]]:
        sound = chain.from_iterable(self._sounds(request) for request in batch)
        return list(zip(self._pictures(batch), sound, strict=True))

    def _pictures(self, batch: list[Request]) -> list[Tensor]:
        """(3, T, S, S) of all views of all samples."""
        fed = [asked(request, self.in_graph) for request in batch]
        self.decoded += sum(int(arrays["frames"][-1]) + 1 for arrays in fed)
        outputs = self.pipeline.run(**{name: [arrays[name] for arrays in fed] for name in fed[0]})
        samples = [[from_dlpack(output[b]) for output in outputs] for b in range(len(batch))]
        if self.in_graph:
            return list(chain.from_iterable(samples))
        return list(chain.from_iterable(map(self._finished, batch, samples)))

    def _finished(self, request: Request, decoded: list[Tensor]) -> Iterable[Tensor]:
        _, index = union(request)
        for which, crop in zip(index, request.crop, strict=True):
            shown = decoded[0].index_select(0, torch.from_numpy(which))
            yield self.finish.pictures(shown.permute(0, 3, 1, 2), crop)

    def _sounds(self, request: Request) -> Iterable[Tensor]:
        """(1, F, L) of each view."""
        with open_media(request.path, Deadline(60)) as container:
            rate = audio_rate(container)
            windows = (request.heard * rate).astype(int)
            first = int(windows.min())
            pcm = torch.from_numpy(read_audio(container, first, int(windows.max()), Deadline(60)))
        for (low, high), speed in zip(windows - first, request.speed, strict=True):
            played = self.resampler(round(rate * float(speed)), self.config.audio.rate)(pcm[low:high])
            yield self.finish.sound(played)


def refuse(device: str, codecs: Iterable[str]) -> None:
    """
    Raises:
        RuntimeError: some of the codecs are not for DALI's decoder on this machine.
    """
    unknown = sorted(set(codecs) - ON_CPU)
    if device == "cpu" and unknown:
        known = ", ".join(sorted(ON_CPU))
        raise RuntimeError(f"DALI decodes {', '.join(unknown)} on NVIDIA GPUs only; on a CPU just {known}")


@pipeline_def  # type: ignore[untyped-decorator]
def graph(video: VideoConfig, views: int, device: str) -> Any:
    """(3, T, S, S) float32 of each view; without views, the decoded frames (U, H, W, 3)."""
    encoded, frames = (fn.external_source(name=name, no_copy=True) for name in ("encoded", "frames"))
    decoded = fn.decoders.video(encoded, frames=frames, device=device)
    return tuple(_view(decoded, view, video) for view in range(views)) or decoded


def _view(decoded: Any, view: int, video: VideoConfig) -> Any:
    index, low, high, mirror = (
        fn.external_source(name=f"{name}{view}", no_copy=True) for name in ("index", "low", "high", "mirror")
    )
    shown = fn.slice(fn.sequence_rearrange(decoded, new_order=index), start=low, end=high, axis_names="HW")
    return fn.crop_mirror_normalize(
        fn.resize(shown, size=[video.size, video.size], antialias=True),
        dtype=types.FLOAT,
        output_layout="CFHW",
        mirror=mirror,
        mean=[255 * m for m in video.mean],
        std=[255 * s for s in video.std],
    )


def asked(request: Request, in_graph: bool) -> Arrays:
    """What the graph is fed of one sample, by the names of its inputs."""
    assert request.recording.video is not None
    frames, index = union(request)
    arrays: Arrays = {"encoded": np.fromfile(request.path, np.uint8), "frames": frames}
    for view in range(len(index) if in_graph else 0):
        low, high = box(request.recording.video, request.crop[view])
        mirror = np.array(request.crop[view, 0] > request.crop[view, 2], np.int32)
        numbers: Arrays = {"index": index[view], "low": low, "high": high, "mirror": mirror}
        arrays |= {f"{name}{view}": array for name, array in numbers.items()}
    return arrays


def union(request: Request) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """(U,) numbers of the frames that any view shows, ascending, and (V, T) which of them each shows."""
    video = request.recording.video
    assert video is not None
    numbers = np.floor((request.times - video.start) * video.fps + 1e-6)
    inside = numbers.clip(0, round(video.duration * video.fps) - 1).astype(np.int32)
    frames, index = np.unique(inside, return_inverse=True)
    return frames, index.reshape(inside.shape).astype(np.int32)


def box(video: VideoStream, crop: NDArray[np.float64]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """(top, left) and (bottom, right) in whole pixels."""
    left, right = sorted((crop[0] * video.width, crop[2] * video.width))
    top, bottom = crop[1] * video.height, crop[3] * video.height
    low, high = (round(top), round(left)), (max(round(bottom), 1), max(round(right), 1))
    return np.array(low, np.int32), np.array(high, np.int32)
