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
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from augment_clips import RECIPES, Setup, in_memory, recipe
from augment_ours import Ours, Replay
from augment_peers import CHEAP, MATCHED, Clip, Peer
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits
from torch import Tensor

from coaug.pipelines.config import DataConfig
from coaug.pipelines.memory import keep_memory

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
