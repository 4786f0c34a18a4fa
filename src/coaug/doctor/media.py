"""Decoders, each tried on a clip that is encoded here: FFmpeg's on the host, and those of DALI's graph on the CPU."""

from __future__ import annotations

import io
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from ..pipelines.scheduling import ordinary_scheduling
from .check import Examination, Missing

FRAMES, HEIGHT, WIDTH, RATE = 8, 64, 96, 48000
ENCODERS = {
    "h264": "libx264",
    "hevc": "libx265",
    "vp8": "libvpx",
    "vp9": "libvpx-vp9",
    "av1": "libsvtav1",
    "mp3": "libmp3lame",
    "opus": "libopus",
}
VIDEO = ("h264", "hevc", "vp8", "vp9", "av1", "mpeg4", "mjpeg")
AUDIO = ("aac", "mp3", "opus", "vorbis", "flac")
NEEDED = ("h264", "aac")


def ffmpeg(codec: str) -> str:
    """Encodes and decodes a clip; where this FFmpeg cannot encode it, looks for the decoder only."""
    import av

    av.Codec(codec, "r")
    try:
        data = encode(codec)
    except (av.FFmpegError, av.codec.codec.UnknownCodecError, ValueError) as error:
        return f"decoder present, not tried: no encoder here ({' '.join(str(error).split())[:60]})"
    with av.open(io.BytesIO(data)) as container:
        if codec in VIDEO:
            shown = [frame.to_ndarray(format="gray").mean() for frame in container.decode(video=0)]
            if len(shown) != FRAMES or shown[-1] < shown[0] + 50:
                raise Missing(f"{len(shown)} of {FRAMES} frames came back, or wrong ones")
            return f"{len(shown)} frames decoded"
        heard = np.concatenate([frame.to_ndarray().ravel() for frame in container.decode(audio=0)])
    if not np.abs(heard.astype(np.float64)).max() > 0:
        raise Missing("silence came back instead of a tone")
    return "sound decoded"


def dali_video(codec: str) -> str:
    """Decodes chosen frames in a DALI pipeline on the CPU."""
    shown = run_graph(encode(codec), "cpu")
    if shown.shape != (3, HEIGHT, WIDTH, 3) or not shown[0].mean() > shown[1].mean() + 50:
        raise Missing(f"frames 7, 0, 0 came back as {shown.shape}, or wrong ones")
    return "frames decoded by number in the graph"


def dali_numba(_: str | None = None) -> str:
    """Compiles and runs an operator of Python code in a DALI pipeline on the CPU."""
    return numba_operator("cpu")


def numba_operator(device: str) -> str:
    """Doubles four numbers with DALI's Numba operator on "cpu" or "gpu"."""
    from nvidia.dali import fn, pipeline_def, types
    from nvidia.dali.plugin.numba.experimental import NumbaFunction

    kernel = _double if device == "cpu" else _double_cuda
    grid: dict[str, Any] = {} if device == "cpu" else {"blocks": [1, 1, 1], "threads_per_block": [4, 1, 1]}

    @pipeline_def(batch_size=1, num_threads=1, device_id=None if device == "cpu" else 0)  # type: ignore[untyped-decorator]
    def graph() -> Any:
        ramp = fn.external_source(lambda: [np.arange(4, dtype=np.float32)], batch=True)
        operator = NumbaFunction(
            run_fn=kernel, in_types=[types.FLOAT], ins_ndim=[1], outs_ndim=[1], out_types=[types.FLOAT],
            device=device, batch_processing=False, **grid,
        )  # fmt: skip
        return operator(ramp if device == "cpu" else ramp.gpu())

    found = _host(_run(graph()))
    if found.tolist() != [0.0, 2.0, 4.0, 6.0]:
        raise Missing(f"wrong numbers came back: {found.tolist()}")
    return "operator compiled and run"


def _double(out: Any, given: Any) -> None:
    out[:] = 2.0 * given


def _double_cuda(out: Any, given: Any) -> None:
    from numba import cuda

    i = cuda.grid(1)
    if i < out.shape[0]:
        out[i] = 2.0 * given[i]


def run_graph(data: bytes, device: str) -> Any:
    """Frames 7, 0, 0 of an encoded clip, (3, H, W, 3), decoded by DALI on "cpu" or "mixed" (NVDEC)."""
    from nvidia.dali import fn, pipeline_def

    @pipeline_def(batch_size=1, num_threads=1, device_id=None if device == "cpu" else 0)  # type: ignore[untyped-decorator]
    def graph() -> Any:
        encoded = fn.external_source(lambda: [np.frombuffer(data, np.uint8)], batch=True)
        return fn.decoders.video(encoded, device=device, frames=np.array([7, 0, 0], np.int32))

    return _host(_run(graph()))


def _run(pipeline: Any) -> Any:
    pipeline.build()
    (output,) = pipeline.run()
    return output


def _host(output: Any) -> Any:
    return np.array((output.as_cpu() if hasattr(output, "as_cpu") else output).at(0))


def encode(codec: str, container: str = "matroska") -> bytes:
    """A clip that goes from black to white in 8 frames, or a tenth of a second of 440 Hz, in memory."""
    import av

    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream: Any
        if codec in VIDEO:
            stream = output.add_stream(ENCODERS.get(codec, codec), rate=25)
            stream.width, stream.height = WIDTH, HEIGHT
            stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        else:
            options = {"strict": "experimental"} if codec == "vorbis" else {}
            stream = output.add_stream(
                ENCODERS.get(codec, codec), rate=RATE, layout="stereo", options=options
            )
        with ordinary_scheduling():
            stream.codec_context.open(strict=False)
        for frame in _frames() if codec in VIDEO else _sound(stream):
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return file.getvalue()


def _frames() -> Iterator[Any]:
    import av

    for i in range(FRAMES):
        level = np.full((HEIGHT, WIDTH, 3), 255 * i // (FRAMES - 1), np.uint8)
        yield av.VideoFrame.from_ndarray(level, format="rgb24")


def _sound(stream: Any) -> Iterator[Any]:
    import av

    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE // 10) / RATE)
    size = stream.codec_context.frame_size or 1024
    resampler = av.AudioResampler(stream.codec_context.format, "stereo", RATE, frame_size=size)
    frame = av.AudioFrame.from_ndarray(np.tile(tone, (2, 1)).astype(np.float32), "fltp", "stereo")
    frame.rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
    yield from resampler.resample(frame)
    yield from resampler.resample(None)


_WHEEL = "pip install --force-reinstall 'av>=15' (the wheel brings an FFmpeg of its own)"
_DALI = "pip install --force-reinstall nvidia-dali-cuda120; until then these files are decoded on the host"
FFMPEG = {codec: Examination(ffmpeg, _WHEEL, codec, codec in NEEDED) for codec in VIDEO + AUDIO}
DALI = {codec: Examination(dali_video, _DALI, codec) for codec in ("vp8", "vp9", "mjpeg")}
DALI["operator in Numba"] = Examination(
    dali_numba, "pip install --force-reinstall nvidia-dali-cuda120 'numba>=0.61'", required=True
)
