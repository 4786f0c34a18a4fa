"""What does a training batch cost on one core, and how much of that is decoding that nobody can avoid?

    make bench                         the demo set
    make bench ARGS="--data FOLDER --json FILE"

Three rows on the same files and the same plan (two views a sample, 16 frames of 112², one second of log-mel):

    coaug         AVLoader, everything in this process
    PyAV + torch  what people write by hand: PyAV, a frame at a time to RGB, torch resizing, torchaudio log-mel,
                  each view opened and decoded for itself
    decode only   the ceiling: open each file once, decode the packets that the needed frames and the window of sound
                  depend on, convert nothing

A clip is one view of one sample. CPU seconds are this process's, on one thread; passes are interleaved and the
median is given with its spread. Ratios carry over to other machines, seconds do not.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchaudio
from av.video.reformatter import VideoReformatter
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from coaug.cli import _catalog_of
from coaug.pipelines.catalog import Catalog
from coaug.pipelines.config import DataConfig, VideoConfig, ViewConfig
from coaug.pipelines.decode import Decoder
from coaug.pipelines.groups import needed
from coaug.pipelines.loader import AVLoader
from coaug.pipelines.media import Deadline, audio_rate, open_media, read_audio, read_frames, stream_of
from coaug.pipelines.plan import AUDIO, VIDEO, ClipPlan, epoch_rows, plan
from coaug.pipelines.timeline import instants

SPED = ViewConfig("speed(1, 2, 3, 4)", "unaligned")
CONFIG = DataConfig(video=VideoConfig(frames=16, fps=16.0, size=112), views=(ViewConfig(), SPED))
BATCH = 8


def main() -> None:
    options = arguments()
    torch.set_num_threads(1)
    threadpool_limits(1)  # of NumPy's BLAS
    catalog = Catalog.open(_catalog_of(options.data)).where(min_seconds=CONFIG.needed_seconds)
    rows = {"coaug": ours(catalog), "PyAV + torch": by_hand(catalog), "decode only": decode_only(catalog)}
    passes: dict[str, list[tuple[float, float]]] = {name: [] for name in rows}
    for repeat in range(options.repeats + 1):
        for name, step in rows.items():
            timed = [_timed(step) for _ in range(options.steps)]
            if repeat:  # the first pass warms caches
                passes[name] += timed
    report([_row(name, timed) for name, timed in passes.items()], options.json)


def ours(catalog: Catalog) -> Callable[[], None]:
    """One batch of the loader."""
    loader = AVLoader(catalog, CONFIG, batch_size=BATCH, workers=0)
    batches = (batch for _ in iter(int, 1) for batch in loader)
    return lambda: next(batches, None) and None


def plans(catalog: Catalog) -> Iterator[list[ClipPlan]]:
    """The clips of one batch after the other, in the loader's order."""
    for step in iter(range(1 << 30)):
        epoch, within = divmod(step, len(catalog) // BATCH)
        rows = epoch_rows(catalog, 0, epoch, np.arange(BATCH) + within * BATCH)
        yield [plan(catalog, CONFIG, seed=0, epoch=epoch, rows=rows[i : i + 1]) for i in range(BATCH)]


def decode_only(catalog: Catalog) -> Callable[[], None]:
    """Each file opened once; the union of its views decoded, nothing converted."""
    batches = plans(catalog)

    def step() -> None:
        for clips in next(batches):
            times = np.concatenate([_times(clips, view) for view in range(2)])
            seconds = CONFIG.audio.seconds * clips.speed[0, :, AUDIO].max()
            recording = catalog[int(clips.row[0])]
            declared = (
                recording.video and recording.audio and recording.video.declared and recording.audio.declared
            )
            with open_media(recording.path, Deadline(60), probe=not declared) as container:
                picture = stream_of(container, "video")
                runs = needed(container, picture, np.unique(times), Deadline(60))
                deque(
                    Decoder(picture.codec_context, float(picture.time_base), Deadline(60)).frames(runs),
                    maxlen=0,
                )
                start, rate = clips.start[0, 0], audio_rate(container)
                read_audio(container, int(start * rate), int((start + seconds) * rate), Deadline(60))

    return step


def by_hand(catalog: Catalog) -> Callable[[], None]:
    """Each view for itself: open, seek, decode, RGB, crop, resize; open, seek, decode, resample, log-mel."""
    batches, audio = plans(catalog), CONFIG.audio
    mel = torchaudio.transforms.MelSpectrogram(
        audio.rate,
        audio.n_fft,
        round(audio.rate * audio.window),
        round(audio.rate * audio.hop),
        n_mels=audio.mels,
    )

    def step() -> None:
        for clips in next(batches):
            path = catalog[int(clips.row[0])].path
            for view in range(2):
                with open_media(path, Deadline(60)) as container:
                    frames = read_frames(
                        container, _times(clips, view), Deadline(60), _rgb(VideoReformatter())
                    )
                _resized(torch.from_numpy(frames.pixels)[frames.index], clips.crop[0, view])
                with open_media(path, Deadline(60)) as container:
                    rate, factor = audio_rate(container), float(clips.speed[0, view, AUDIO])
                    first = int(clips.start[0, view] * rate)
                    pcm = read_audio(
                        container, first, first + int(factor * audio.seconds * rate), Deadline(60)
                    )
                mel(
                    torchaudio.functional.resample(torch.from_numpy(pcm), int(rate * factor), audio.rate)
                ).log()

    return step


def _rgb(reformatter: VideoReformatter) -> Callable[[Any], np.ndarray]:
    """With one context of swscale for all frames."""
    return lambda frame: reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()


def _times(clips: ClipPlan, view: int) -> np.ndarray:
    u = instants(CONFIG.video.frames)
    return np.asarray(clips.start[0, view] + CONFIG.video.seconds * clips.timeline(0, view, VIDEO).time(u))


def _resized(frames: torch.Tensor, crop: np.ndarray) -> torch.Tensor:
    height, width = frames.shape[1:3]
    (x0, x1), (y0, y1) = sorted((crop[0] * width, crop[2] * width)), (crop[1] * height, crop[3] * height)
    part = frames[:, int(y0) : int(np.ceil(y1)), int(x0) : int(np.ceil(x1))].permute(0, 3, 1, 2).float()
    size = (CONFIG.video.size,) * 2
    return torch.nn.functional.interpolate(part, size, mode="bilinear", antialias=True) / 255 - 0.5


def _timed(step: Callable[[], None]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    step()
    return time.perf_counter() - wall, time.process_time() - cpu


def _row(name: str, timed: list[tuple[float, float]]) -> dict[str, float | str]:
    walls, cpus = (sorted(values) for values in zip(*timed, strict=True))
    clips, quarter = 2 * BATCH, len(timed) // 4
    return {
        "name": name,
        "clips_per_s": clips / statistics.median(walls),
        "clips_per_cpu_s": clips / statistics.median(cpus),
        "clips_per_cpu_s_low": clips / cpus[-1 - quarter],
        "clips_per_cpu_s_high": clips / cpus[quarter],
        "p50_ms": 1e3 * statistics.median(walls),
        "p99_ms": 1e3 * walls[min(int(0.99 * len(walls)), len(walls) - 1)],
        "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def report(rows: list[dict[str, float | str]], path: Path | None) -> None:
    """A table, and the rows as JSON with a description of the machine."""
    ceiling = float(rows[-1]["clips_per_cpu_s"])
    table = Table("", "clips / CPU s", "middle half", "of the ceiling", "p50 ms", "p99 ms", title="one core")
    for row in rows:
        rate = float(row["clips_per_cpu_s"])
        spread = f"{row['clips_per_cpu_s_low']:.1f}-{row['clips_per_cpu_s_high']:.1f}"
        share = f"{rate / ceiling:.2f}"
        table.add_row(
            str(row["name"]), f"{rate:.1f}", spread, share, f"{row['p50_ms']:.0f}", f"{row['p99_ms']:.0f}"
        )
    Console().print(table)
    if path:
        machine = {
            "machine": platform.platform(),
            "processor": platform.processor(),
            "torch": torch.__version__,
        }
        path.write_text(json.dumps([row | machine for row in rows], indent=1))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="coaug bench", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder or catalog (default: the demo set)")
    parser.add_argument("--json", type=Path, help="write the rows here")
    parser.add_argument("--steps", type=int, default=4, help="batches a pass")
    parser.add_argument("--repeats", type=int, default=7, help="interleaved passes")
    return parser.parse_args()


if __name__ == "__main__":
    main()
