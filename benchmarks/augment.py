"""What does augmentation cost once everything is decoded, and what does the same chain cost in torch and torchaudio?

    python benchmarks/augment.py [--presets svaclr …] [--json FILE] [--device cuda]

Ours is the loader's own source and graph; only the file behind the source is replaced by frames (340x256, as decoders
leave them) and sound (44.1 kHz) in memory, so that each sample is planned and compiled anew as in training. The peers
(`augment_peers.py`) get the same clips, and what was drawn for nothing:

    peer        the same chain on the same input: frames become RGB first (FFmpeg's swscale, on a CPU), and what lies
                above the new band of resampled sound is kept out as well as ours does it
    quick       gets its frames as RGB for nothing, and filters sound by torchaudio's defaults, a quarter as long
    copy        what any chain must do at least: the inputs and the outputs, each copied once (to the device, on it)

Steps of either chain are timed as what a longer part of it takes more than a shorter one. Parts are interleaved;
medians of CPU seconds on one thread, of wall seconds on a GPU.

Rates are clips (a view of a sample) a second; ratios carry over to other machines, rates do not.
A step that is less than a tenth of its chain is within the noise of a machine that others use as well.

Results and where the time goes: docs/benchmarks.md. On a GPU (`--device cuda`; targets 5, and 3 copies) it has not run.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import av
import numpy as np
import torch
from augment_peers import CHEAP, MATCHED, Clip, Peer, as_rgb
from numpy.typing import NDArray
from nvidia.dali import pipeline_def
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from coaug.config import build as build_config
from coaug.config import read
from coaug.engine.distributed import keep_memory
from coaug.pipelines import graph, table
from coaug.pipelines.bans import Bans
from coaug.pipelines.catalog import AudioStream, Catalog, Recording, VideoStream, sample_id, table_of
from coaug.pipelines.config import DataConfig, ViewConfig
from coaug.pipelines.media import Frames
from coaug.pipelines.plan import AUDIO, epoch_rows, plan
from coaug.pipelines.planes import Cutter
from coaug.pipelines.sound import spectrogram
from coaug.pipelines.source import Schedule, Source

RATE, FPS, SECONDS, HEIGHT, WIDTH = 44100, 30.0, 10.0, 256, 340
ALL = "speed(1, 2) | fade(0.5) | mask(0.5) | shift(0.5) | resample(0.5)"
RECIPES: Mapping[
    str, tuple[str, str | None]
] = {  # name -> preset, and what every view plays instead of its own
    "svaclr": ("svaclr", None),
    "avid-small": ("avid-small", None),
    "tempssl": ("tempssl", None),
    "staug": ("staug", "resample(0.5)"),
    "staug+pitch": ("staug", None),
    "all-112": ("tempssl", ALL),
    "all-224": ("staug", ALL),
}
Step = Callable[[], Any]
Seconds = Mapping[str, float]


def main() -> None:
    options = arguments()
    warnings.filterwarnings("ignore", "The external source node")  # partial graphs do not need all inputs
    torch.set_num_threads(options.threads)
    keep_memory()  # as training on a CPU does; both sides gain by it
    threadpool_limits(options.threads)  # of NumPy's BLAS
    results = []
    for name in options.presets:
        rows = measure(name, options)
        report(name, rows, options)
        results += [{"preset": name, **row} for row in rows]
    if options.json:
        machine = {"machine": platform.platform(), "torch": torch.__version__, "device": options.device}
        options.json.write_text(json.dumps([row | machine for row in results], indent=1))


def recipe(name: str) -> DataConfig:
    """The config of a row of `RECIPES`."""
    preset, temporal = RECIPES[name]
    config = build_config(DataConfig, read(preset)["data"], "data.")
    if temporal is None:
        return config
    apply = config.views[0].apply
    return replace(config, views=tuple(ViewConfig(temporal, apply) for _ in config.views))


class Memory:
    """Stands in for an open file: decoded frames, as decoders leave them and as RGB, and sound."""

    def __init__(self, number: int, frames: int) -> None:
        rng = np.random.default_rng(number)
        shades = np.add.outer(np.arange(HEIGHT), np.arange(WIDTH))[..., None] * np.array([0.4, 0.2, 0.3])
        noise = rng.integers(0, 32, (HEIGHT, WIDTH, 3))
        moving = (np.roll(shades + noise, 5 * n, 1) for n in range(frames))
        coded = [
            av.VideoFrame.from_ndarray(picture.astype(np.uint8)).reformat(format="yuv420p")
            for picture in moving
        ]
        self.cutter = Cutter()
        self.planes = np.stack([self.cutter(frame) for frame in coded])
        self.coded, self.rgb = coded, as_rgb(coded)
        time = np.arange(-RATE, (SECONDS + 1) * RATE) / RATE  # a second more on either side
        tones = sum(np.sin(2 * np.pi * hertz * time) for hertz in rng.uniform(100, 8000, 8))
        loud = 0.02 * tones + 0.02 * rng.standard_normal(len(time))
        self.sound: NDArray[np.float32] = loud.astype(np.float32)

    def __enter__(self) -> Memory:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def heard(self, low: int, high: int) -> NDArray[np.float32]:
        """Samples [low, high) of the recording."""
        return self.sound[low + RATE : high + RATE]

    def shown(self, times: NDArray[np.float64], cutter: Cutter) -> Frames:
        """As `read_frames`: each frame on screen at `times` (n,) once, but always from the same pictures, and whole."""
        cutter.matrix = self.cutter.matrix
        numbers, index = np.unique(np.floor(times * FPS + 1e-6), return_inverse=True)
        pts = numbers[index] / FPS
        return Frames(self.planes[: len(numbers)], index.astype(np.int32), pts, len(numbers))


@contextmanager
def in_memory(memories: Mapping[str, Memory]) -> Iterator[None]:
    """While it lasts, sources of this process read `memories` instead of files."""
    stream = SimpleNamespace(codec_context=None)
    with mock.patch.multiple(
        "coaug.pipelines.source",
        open_media=lambda path, deadline, **_: memories[path],
        stream_of=lambda container, kind: stream,
        audio_rate=lambda container: RATE,
        read_audio=lambda container, low, high, deadline: container.heard(low, high),
        read_frames=lambda container, times, deadline, cutter: container.shown(times, cutter),
        kept=lambda crops, upright, size: None,
    ):
        yield


def recordings(count: int) -> list[Recording]:
    """`count` recordings of ten seconds, to be read from memory."""
    video = VideoStream("h264", WIDTH, HEIGHT, 0, FPS, False, 0.0, SECONDS)
    audio = AudioStream("aac", RATE, 1, 0.0, SECONDS, -20.0)
    names = (f"memory-{n}" for n in range(count))
    return [Recording(sample_id(name), name, name, 0.0, SECONDS, 0, "train", video, audio) for name in names]


def catalog_of(rows: Sequence[Recording]) -> Catalog:
    with tempfile.TemporaryDirectory() as folder:
        table.write(table_of(rows, ["one"]), path := Path(folder) / "memory.parquet")
        return Catalog.open(path)


@dataclass
class Setup:
    """A config's source and what it reads. `batch` samples a step; steps go on as in training."""

    source: Source
    memories: Mapping[str, Memory]
    batch: int

    @classmethod
    def of(cls, config: DataConfig, batch: int) -> Setup:
        rows, frames = recordings(batch), len(config.views) * config.video.frames
        memories = {row.path: Memory(n, frames) for n, row in enumerate(rows)}
        catalog = catalog_of(rows)
        return cls(Source(catalog, config, Schedule(batch, batch, 1), Bans()), memories, batch)

    def sample(self, step: int, index: int) -> dict[str, Any]:
        """The source's arrays of one sample."""
        return self.source.sample(*self.source.schedule.place(step, index))

    def clips(self, step: int, pin: bool = False) -> list[Clip]:
        """The same clips for the peer."""
        return [clip for i in range(self.batch) for clip in self._views(step, i, pin)]

    def _views(self, step: int, index: int, pin: bool) -> Iterator[Clip]:
        config, catalog = self.source.config, self.source.catalog
        _, epoch, position = self.source.schedule.place(step, index)
        row = epoch_rows(catalog, 0, epoch, np.array([position]))
        drawn, arrays = plan(catalog, config, seed=0, epoch=epoch, rows=row), self.sample(step, index)
        memory, frames = self.memories[catalog[int(row[0])].path], config.video.frames
        count = len(arrays["planes"])
        coded, pixels = memory.coded[:count], _tensor(memory.rgb[:count], pin)
        for v, view in enumerate(config.views):
            begin = round(float(drawn.start[0, v] + drawn.offset[0, v, AUDIO]) * RATE)
            speed = float(drawn.speed[0, v, AUDIO])
            sound = memory.heard(begin, begin + round(speed * config.audio.seconds * RATE) + 1)
            shown, repeats = once(arrays["frames"][v])
            tone = arrays.get("tone", np.tile([1.0, 0, 0, 0], (v + 1, frames, 1)))[v]
            heard = zip(view.steps, drawn.steps[0, v, AUDIO], strict=False)
            yield Clip(
                coded,
                pixels,
                shown,
                repeats,
                box(drawn.crop[0, v]),
                bool(drawn.crop[0, v, 0] > drawn.crop[0, v, 2]),
                tuple(drawn.colour[0, v].tolist()),
                float(drawn.blur[0, v]),
                torch.from_numpy(tone),
                _tensor(sound, pin),
                RATE,
                speed,
                tuple((step.what, values.tolist()) for step, values in heard if step.applies("audio")),
            )


def once(index: NDArray[np.int32]) -> tuple[Tensor, Tensor | None]:
    """`index` without what it repeats, and where each of its entries is then; None: as they stand."""
    shown, repeats = np.unique(index, return_inverse=True)
    if len(shown) == len(index):
        return torch.from_numpy(index), None
    return torch.from_numpy(shown), torch.from_numpy(repeats)


def _tensor(array: NDArray[Any], pin: bool) -> Tensor:
    tensor = torch.from_numpy(array)
    return tensor.pin_memory() if pin else tensor


def box(crop: NDArray[np.float32]) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of a crop in whole pixels, as torchvision has it."""
    left, right = sorted((float(crop[0]) * WIDTH, float(crop[2]) * WIDTH))
    return round(left), round(float(crop[1]) * HEIGHT), round(right), round(float(crop[3]) * HEIGHT)


class Ours:
    """The graph, whole or up to some step. Nothing is prepared ahead: what training gains by overlap is left out."""

    def __init__(self, source: Any, batch: int, device: str, threads: int, part: str = "") -> None:
        common: dict[str, Any] = {
            "device": "cpu" if device == "cpu" else "gpu",
            "batch_size": batch,
            "num_threads": threads,
            "device_id": None if device == "cpu" else torch.cuda.current_device(),
            "prefetch_queue_depth": 1,  # or the next batch would be made while others are timed
        }
        made = partial_graph(source, part, **common) if part else None
        self.pipeline = made or graph.build(source, parallel=False, **common)
        self.names = graph.outputs(source.config)
        self.pipeline.build()

    def run(self) -> Any:
        """The next batch, left where it is."""
        return self.pipeline.run()

    def tensors(self) -> dict[str, Tensor]:
        """The next batch as the loader hands it out."""
        outputs = zip(self.names, self.run(), strict=True)
        return {name: from_dlpack(out.as_tensor()) for name, out in outputs}


class Replay:
    """Stands in for a source: samples that were planned before, without the steps that come after `part`."""

    def __init__(self, setup: Setup, steps: int, part: str) -> None:
        self.config, self.feeds, self.batch = setup.source.config, setup.source.feeds, setup.batch
        infos = [
            SimpleNamespace(iteration=s, idx_in_batch=i) for s in range(steps) for i in range(setup.batch)
        ]
        look = [feed.name for feed in self.feeds].index("look")
        self.samples = [setup.source(info) for info in infos]
        for sample in self.samples:
            sample[look][:, 8] *= part == "blur"
            if part == "resize":
                sample[look][:, 4:8] = [1, 1, 1, 0]

    def __call__(self, info: Any) -> tuple[NDArray[Any], ...]:
        """The sample at DALI's `SampleInfo`, over and over."""
        return self.samples[int(info.iteration * self.batch + info.idx_in_batch) % len(self.samples)]


@pipeline_def(enable_conditionals=True)  # type: ignore[untyped-decorator]
def partial_graph(source: Any, part: str, *, device: str) -> Any:
    """The real graph's steps, one after the other, up to `part`."""
    feed, config = graph._inputs(source, False), source.config
    if part == "feed":
        return feed["planes"].gpu() if device == "gpu" else feed["planes"]
    if part not in ("play", "spectrogram"):
        return graph._shown(feed, config, device)
    heard = [graph._played(feed, v, config.audio, device) for v in range(len(config.views))]
    if part == "play":
        return graph._stack(heard)
    return graph._stack([spectrogram(one, config.audio, device) for one in heard])


def parts_of(config: DataConfig) -> tuple[str, ...]:
    """Steps that this config has, in order: sound, then picture. Pictures are normalised in the step of `resize`."""
    video = config.video
    looks = (*(("colour",) if video.jitters else ()), *(("blur",) if video.blur else ()))
    return ("play", "spectrogram", "feed", "resize", *looks)


def our_steps(setup: Setup, options: argparse.Namespace) -> dict[str, Step]:
    """What is timed of ours."""
    where = (setup.batch, options.device, options.threads)
    steps: dict[str, Step] = {
        part: Ours(Replay(setup, options.steps, part), *where, part).run
        for part in parts_of(setup.source.config)
    }
    places = iter(range(10**6, 2 * 10**6))
    return {
        "plan": lambda: [setup.sample(step, i) for step in [next(places)] for i in range(setup.batch)],
        **steps,
        "whole": Ours(setup.source, *where).tensors,
    }


def peer_steps(setup: Setup, options: argparse.Namespace) -> dict[str, Step]:
    """What is timed of the peer, and the copy."""
    peer, quick = (Peer(setup.source.config, options.device, filters) for filters in (MATCHED, CHEAP))
    on_gpu = options.device != "cpu"
    ready = [setup.clips(step, on_gpu) for step in range(options.steps)]
    batches = (clips for _ in iter(int, 1) for clips in ready)
    depths = {"resize": 1, "colour": 2, "blur": 3, "normalise": 4}
    steps: dict[str, Step] = {
        "play": lambda: [peer.heard(clip) for clip in next(batches)],
        "spectrogram": lambda: peer.sounds(next(batches)),
    }
    for part in (*parts_of(setup.source.config)[3:], "normalise"):
        steps[part] = lambda depth=depths[part]: peer.pictures(next(batches), depth)  # type: ignore[misc]
    made = peer(ready[0])
    if not on_gpu:
        steps["convert"] = lambda: peer.converted(next(batches))
    return {
        **steps,
        "whole": lambda: peer(next(batches)) if on_gpu else peer(peer.converted(next(batches))),
        "quick": lambda: quick(next(batches)),
        "copy": lambda: copied(next(batches), made, peer.device),
    }


def copied(clips: Sequence[Clip], made: Sequence[Tensor], device: str) -> list[Tensor]:
    """Inputs and outputs once; frames that views share, once."""
    inputs = {id(tensor): tensor for clip in clips for tensor in (clip.pixels, clip.sound)}.values()
    moved = [t.clone() if device == "cpu" else t.to(device, non_blocking=True) for t in inputs]
    return moved + [tensor.clone() for tensor in made]


def measure(name: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows of the report: one a step, then the whole chain and the copy."""
    setup = Setup.of(recipe(name), options.batch)
    with in_memory(setup.memories):
        both = {"ours": our_steps(setup, options), "peer": peer_steps(setup, options)}
        passes: dict[tuple[str, str], list[float]] = {}
        gc.collect()
        gc.disable()  # as timeit does
        for repeat in range(options.repeats + 1):
            for side, steps in both.items():
                for part, step in steps.items():
                    seconds = [timed(step, options) for _ in range(options.steps)]
                    if repeat:  # the first pass warms caches
                        passes.setdefault((side, part), []).append(statistics.fmean(seconds))
    gc.enable()
    medians = {key: statistics.median(values) for key, values in passes.items()}
    clips = options.batch * len(setup.source.config.views)
    ours, peer = ({p: s / clips for (at, p), s in medians.items() if at == side} for side in both)
    return rows_of(ours, peer, {part: spread(passes, part) for part in ("whole", "quick")})


def timed(step: Step, options: argparse.Namespace) -> float:
    """CPU seconds of this process on one thread of a CPU, wall seconds on a GPU or on several threads."""
    if options.device != "cpu":
        torch.cuda.synchronize()
    clock = time.process_time if options.device == "cpu" and options.threads == 1 else time.perf_counter
    start = clock()
    step()
    if options.device != "cpu":
        torch.cuda.synchronize()
    return clock() - start


def spread(passes: Mapping[tuple[str, str], Sequence[float]], part: str) -> tuple[float, float]:
    """Middle half of the whole chains' ratio, pass by pass; `part` is the peer's."""
    pairs = zip(passes["peer", part], passes["ours", "whole"], strict=True)
    ratios = sorted(theirs / mine for theirs, mine in pairs)
    return ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]


def differences(times: Seconds) -> dict[str, float]:
    """Seconds of each step for itself, from those of the chain up to it."""
    alone: dict[str, float] = {}
    first, before = ("play", "feed" if "feed" in times else "resize"), 0.0
    for part in (p for p in times if p not in ("plan", "convert", "whole", "quick", "copy")):
        alone[part] = times[part] - (0.0 if part in first else before)
        before = times[part]
    return alone


def rows_of(ours: Seconds, peer: Seconds, middle: Mapping[str, tuple[float, float]]) -> list[dict[str, Any]]:
    """Steps by name, with seconds a clip of ours and the peer's."""
    mine, theirs = differences(ours), differences(peer)
    mine["resize"] += mine.pop("feed")  # the peer chooses frames and cuts them out in one step
    theirs["resize"] += theirs.pop("normalise")
    rows = [{"part": "plan, compile", "ours": ours["plan"], "peer": None}]
    rows += [{"part": part, "ours": mine[part], "peer": theirs[part]} for part in mine]
    convert = peer.get("convert", 0.0)
    rows.append(
        {"part": "to RGB", "ours": 0.0, "peer": convert}
    )  # ours does it after resizing, in the same step
    rest = ours["whole"] - ours["plan"] - sum(mine.values())
    rows.append({"part": "hand over", "ours": rest, "peer": peer["whole"] - convert - sum(theirs.values())})
    whole = {"ours": ours["whole"]}
    for part, (low, high) in middle.items():
        rows.append(whole | {"part": part, "peer": peer[part], "low": low, "high": high})
    return [*rows, {"part": "copy", "ours": peer["copy"], "peer": peer["copy"]}]


def report(name: str, rows: Sequence[Mapping[str, Any]], options: argparse.Namespace) -> None:
    """One table a preset."""
    unit = "clips / CPU s" if options.device == "cpu" and options.threads == 1 else "clips / s"
    shown = Table("", unit, "share", f"peer's {unit}", "share", "ours / peer", title=name)
    whole = next(row for row in rows if row["part"] == "whole")
    for row in rows:
        rates = (_rate(row[side], whole[side]) for side in ("ours", "peer"))
        ratio = f"{row['peer'] / row['ours']:.2f}" if row["peer"] and row["ours"] > 0 else ""
        if "low" in row:
            ratio += f" ({row['low']:.2f}-{row['high']:.2f})"
        shown.add_row(row["part"], *(cell for pair in rates for cell in pair), ratio)
    Console().print(shown)


def _rate(seconds: float | None, whole: float) -> tuple[str, str]:
    return (
        ("", "")
        if seconds is None
        else (f"{1 / seconds:,.0f}" if seconds > 1e-7 else "", f"{seconds / whole:.0%}")
    )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--presets", nargs="+", choices=list(RECIPES), default=list(RECIPES))
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--batch", type=int, default=16, help="samples a batch")
    parser.add_argument("--steps", type=int, default=2, help="batches a pass")
    parser.add_argument("--repeats", type=int, default=9, help="interleaved passes")
    parser.add_argument("--threads", type=int, default=1, help="more than one: wall seconds")
    parser.add_argument("--json", type=Path, help="write the rows here")
    return parser.parse_args()


if __name__ == "__main__":
    main()
