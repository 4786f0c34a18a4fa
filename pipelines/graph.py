"""The device side of the loader: one DALI pipeline from packets, frames and PCM to clips and log-mel spectrograms.

The same definition runs on a CPU (`device="cpu"`) and on a GPU; only where operators stand and the word `mixed` differ.
"""

from __future__ import annotations

import ctypes.util
from typing import Any

from nvidia.dali import fn, pipeline_def, types
from nvidia.dali.pipeline import do_not_convert

from .config import AudioConfig, DataConfig, VideoConfig
from .feeds import DTYPES, feeds
from .play import play
from .source import Source

CPU_CODECS = frozenset({"vp8", "vp9", "mjpeg"})
NVDEC_CODECS = frozenset({"h264", "hevc", "vp8", "vp9", "av1", "mpeg4"})
PASSED = ("sample_id", "label", "valid", "speed", "direction", "video_pts", "audio_pts", "error", "timing")


def graph_codecs(device: str) -> frozenset[str]:
    """FFmpeg names of the video codecs that the graph decodes on this machine; all others are decoded by the source."""
    if device == "cpu":
        return CPU_CODECS
    return NVDEC_CODECS if ctypes.util.find_library("nvcuvid") else frozenset()


@pipeline_def(enable_conditionals=True)  # type: ignore[untyped-decorator]
def build(source: Source, *, device: str, parallel: bool) -> Any:
    """The graph; its outputs are `PASSED`, then video (V, 3, T, H, W) and audio (V, 1, F, L) as configured."""
    feed = _inputs(source, parallel)
    shown = _decode(feed, device) if "video" in source.config.modalities else None
    return _outputs(feed, shown, source.config, device)


@do_not_convert  # type: ignore[untyped-decorator]  # DALI rewrites functions for the `if` on data in `_decode`
def _inputs(source: Source, parallel: bool) -> dict[str, Any]:
    inputs = feeds(source.config)
    tensors = fn.external_source(
        source,
        num_outputs=len(inputs),
        parallel=parallel,
        batch=False,
        dtype=[DTYPES[f.dtype] for f in inputs],
        ndim=[len(f.blank) for f in inputs],
        layout=[f.layout for f in inputs],
    )
    return dict(zip((f.name for f in inputs), tensors, strict=True))


@do_not_convert  # type: ignore[untyped-decorator]
def _outputs(feed: dict[str, Any], shown: Any, config: DataConfig, device: str) -> tuple[Any, ...]:
    views = range(len(config.views))
    outputs = [feed[name] for name in PASSED]
    if shown is not None:
        outputs.append(fn.stack(*(_picture(shown, feed, v, config.video, device) for v in views)))
    if "audio" in config.modalities:
        outputs.append(fn.stack(*(_sound(feed, v, config.audio, device) for v in views)))
    return tuple(outputs)


def _decode(feed: dict[str, Any], device: str) -> Any:
    """(V·T, H, W, 3) uint8: the frames on screen at every instant of every view."""
    if feed["in_graph"]:
        decoded = fn.decoders.video(
            feed["encoded"], frames=feed["wanted"], device="mixed" if device == "gpu" else "cpu"
        )
    else:
        decoded = _on(feed["pixels"], device)
    return fn.sequence_rearrange(decoded, new_order=feed["frames"])


def _on(tensor: Any, device: str) -> Any:
    return tensor.gpu() if device == "gpu" else tensor


def _picture(shown: Any, feed: dict[str, Any], view: int, video: VideoConfig, device: str) -> Any:
    """(3, T, H, W) float32 of one view: crop, mirror and resize in one step, colour, normalise."""
    frames = shown[view * video.frames : (view + 1) * video.frames]
    left, top, right, bottom = (feed["crop"][view, side] for side in range(4))
    frames = fn.resize(
        fn.reshape(frames, layout="FHWC"),
        size=[video.size, video.size],
        roi_start=fn.stack(top, left),
        roi_end=fn.stack(bottom, right),  # an end left of its start mirrors
        roi_relative=True,
        antialias=True,
    )
    if video.jitters:
        brightness, contrast, saturation, hue = (feed["colour"][view, part] for part in range(4))
        frames = fn.color_twist(
            frames, brightness=brightness, contrast=contrast, saturation=saturation, hue=hue
        )
    return fn.crop_mirror_normalize(
        frames,
        dtype=types.FLOAT,
        output_layout="CFHW",
        mean=[255.0 * m for m in video.mean],
        std=[255.0 * s for s in video.std],
    )


def _sound(feed: dict[str, Any], view: int, audio: AudioConfig, device: str) -> Any:
    """(1, F, L) float32 of one view: resample (speed included), play the timeline, log-mel, normalise."""
    pcm, table, bank = (_on(feed[f"{name}{view}"], device) for name in ("pcm", "map", "bank"))
    one, zero = (types.Constant([value], device=device, dtype=types.FLOAT) for value in (1.0, 0.0))
    played = play(pcm, table, bank, one, zero, samples=audio.samples, device=device)
    power = fn.spectrogram(
        played,
        nfft=audio.n_fft,
        window_length=round(audio.rate * audio.window),
        window_step=round(audio.rate * audio.hop),
        center_windows=False,
        power=2,
    )
    mel = fn.mel_filter_bank(power, sample_rate=float(audio.rate), nfilter=audio.mels)
    decibels = fn.to_decibels(mel, multiplier=10.0, reference=1.0, cutoff_db=audio.floor_db)
    return fn.reshape((decibels - audio.mean) / audio.std, shape=[1, audio.mels, audio.frames])
