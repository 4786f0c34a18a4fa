"""The device side of the loader: one DALI pipeline from packets, frames and PCM to clips and log-mel spectrograms.

The same definition runs on a CPU (`device="cpu"`) and on a GPU; only where operators stand and the word `mixed` differ.
"""

from __future__ import annotations

import ctypes.util
from collections import deque
from collections.abc import Collection
from typing import Any

from nvidia.dali import Pipeline, fn, pipeline_def
from nvidia.dali.pipeline import do_not_convert

from .config import AudioConfig, DataConfig
from .feeds import DTYPES, PLAYED
from .packed.jpegs import IMAGES, MJPEG
from .picture import operators, pictures
from .play import play
from .sound import centres, spectrogram
from .source import Source
from .spatial.rgb import rgb

CPU_CODECS = frozenset({"vp8", "vp9", "mjpeg"})  # only where asked for: decoding on the host costs less
NVDEC_CODECS = frozenset({"h264", "hevc", "vp8", "vp9", "av1", "mpeg4"})


def outputs(config: DataConfig) -> tuple[str, ...]:
    """Names of what the graph puts out, in order."""
    waveform = ("waveform",) if "audio" in config.modalities and config.audio.waveform else ()
    return ("facts", *(name for name in ("video", "audio") if name in config.modalities), *waveform)


def graph_codecs(device: str, decode: str, packed: Collection[str] = ()) -> frozenset[str]:
    """FFmpeg names of the video codecs that the graph decodes on this machine; all others are decoded by the source.

    Args:
        decode: "auto", "host" or "graph".
        packed: codecs of what lies in shards: JPEGs of those are images for the graph, on a GPU for nvJPEG.
    """
    if decode == "host" or (device == "cpu" and decode == "auto"):
        return frozenset()
    images = frozenset({IMAGES} if MJPEG in packed else ())
    if device == "cpu":
        return CPU_CODECS | images
    return images | (NVDEC_CODECS if ctypes.util.find_library("nvcuvid") else frozenset())


@pipeline_def(enable_conditionals=True)  # type: ignore[untyped-decorator]
def build(source: Source, *, device: str, parallel: bool) -> Any:
    """The graph; it puts out `outputs(config)`: facts, video (V, 3, T, H, W), audio (V, 1, F, L), waveform (V, S)."""
    feed = _inputs(source, parallel)
    shown = _shown(feed, source.config, device) if "video" in source.config.modalities else None
    return _outputs(feed, shown, source.config, device)


@do_not_convert  # type: ignore[untyped-decorator]  # DALI rewrites functions for the `if` on data in `_decode`
def _inputs(source: Source, parallel: bool) -> dict[str, Any]:
    inputs = source.feeds
    tensors = fn.external_source(
        source if parallel else Kept(source, Pipeline.current()),
        num_outputs=len(inputs),
        parallel=parallel,
        batch=False,
        dtype=[DTYPES[f.dtype] for f in inputs],
        ndim=[len(f.blank) for f in inputs],
        no_copy=True,
    )
    return dict(zip((f.name for f in inputs), tensors, strict=True))


class Kept:
    """A source in this process, whose arrays stay alive until DALI, which does not copy them, has consumed them."""

    def __init__(self, source: Any, pipeline: Any) -> None:
        self.source, batches = source, pipeline.prefetch_queue_depth + 1
        self.samples: deque[Any] = deque(maxlen=batches * pipeline.max_batch_size)

    def __call__(self, info: Any) -> Any:
        """The sample at DALI's `SampleInfo`."""
        self.samples.append(self.source(info))
        return self.samples[-1]


@do_not_convert  # type: ignore[untyped-decorator]
def _outputs(feed: dict[str, Any], shown: Any, config: DataConfig, device: str) -> tuple[Any, ...]:
    outputs = [feed["facts"]]
    views = range(len(config.views))
    if shown is not None:
        outputs.append(shown)
    if "audio" in config.modalities:
        heard = [_played(feed, v, config.audio, device) for v in views]
        outputs.append(_stack([spectrogram(played, config.audio, device) for played in heard]))
        if config.audio.waveform:
            outputs.append(_stack(heard))
    return tuple(outputs)


@do_not_convert  # type: ignore[untyped-decorator]
def _stack(clips: list[Any]) -> Any:
    return fn.stack(*clips)


def _shown(feed: dict[str, Any], config: DataConfig, device: str) -> Any:
    """(V, 3, T, S, S) float32 of all views."""
    numbers = (feed["frames"], feed["look"], feed.get("tone"))
    if "in_graph" not in feed:
        return pictures(feed["planes"], feed["matrix"], *numbers, config, device)
    if device == "gpu":
        return operators(_frames(feed), *numbers, config, device)
    if feed["in_graph"]:
        return operators(_decoded(feed, "cpu"), *numbers, config, device)
    return pictures(feed["planes"], feed["matrix"], *numbers, config, device)


def _frames(feed: dict[str, Any]) -> Any:
    """(U, H, W, 3) uint8 on a GPU."""
    if feed["in_graph"]:
        return _decoded(feed, "mixed")
    return rgb(feed["planes"].gpu(), feed["matrix"].gpu())


def _decoded(feed: dict[str, Any], device: str) -> Any:
    """(U, H, W, 3) uint8 of a sample that the source left encoded."""
    if "joined" not in feed:
        return _of_slice(feed, device)
    if "wanted" not in feed:
        return _of_images(feed, device)
    if feed["joined"][0] > 0:
        return _of_images(feed, device)
    return _of_slice(feed, device)


@do_not_convert  # type: ignore[untyped-decorator]
def _of_slice(feed: dict[str, Any], device: str) -> Any:
    return fn.decoders.video(feed["encoded"], frames=feed["wanted"], device=device)


@do_not_convert  # type: ignore[untyped-decorator]
def _of_images(feed: dict[str, Any], device: str) -> Any:
    """On a GPU by nvJPEG, in hardware where there is some; how a frame is turned is not for its JPEG to say."""
    tall = fn.decoders.image(feed["encoded"], device=device, adjust_orientation=False)
    return fn.reshape(tall, shape=feed["joined"], layout="FHWC")


def _on(tensor: Any, device: str) -> Any:
    return tensor.gpu() if device == "gpu" else tensor


def _played(feed: dict[str, Any], view: int, audio: AudioConfig, device: str) -> Any:
    """The sound of one view: resampled (speed included) and played through its timeline, or windows of it."""
    inputs = [_on(feed[f"{name}{view}"], device) for name, *_ in PLAYED]
    if audio.speed_on == "waveform":
        return play(*inputs, samples=audio.samples, device=device)
    windows = (audio.window_samples, audio.hop_samples, float(centres(audio)[0]))
    return play(*inputs, samples=audio.stft_frames * windows[0], device=device, windows=windows)
