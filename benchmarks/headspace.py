"""How fast does a training run go, against the same training on batches that are in memory already?

    python benchmarks/headspace.py [svaclr] [key=value …] [--data FOLDER] [--packed] [--json FILE]

*Headspace analysis*, as in Meta's, MosaicML's and SPDL's studies of data loading: a few batches of the loader are kept
and handed out again and again; what that training gains over the real one is all that a better loader could gain. Run,
data and preset are those of `coaug train` with the same arguments; a step is the trainer's own.

    coaug                trained on by the loader with its workers
    coaug, packed        the same on shards (`coaug pack`), with --packed
    replayed             trained on by kept batches, while the loaders rest
    replayed, n threads  the same on every core of a CPU: what leaving one to the loader costs the training
    coaug alone          the loader as fast as it can, no training; packed, too

Ways are interleaved segments of a few steps, in turns forwards and backwards. `share` is the way's rate over the
replayed one's, pass by pass: the median and its bootstrap 95 % interval. `bound` is the share that perfect scheduling
would reach: training as fast as replayed, unless its CPU seconds and those of the loader alone need all cores for
longer. A share below its bound is lost to waiting and to sharing caches and memory, not to the amount of work.

CPU seconds are this process's and all loaders' workers'. RSS is this process's, which holds every way's batches, and
that of the way's own workers; memory that they share counts in each. A clip is one view.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import multiprocessing
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path

import torch
from headspace_figures import Row, Segment, bound, figures, report, share, step_cpu, step_seconds

from coaug.cli import _catalog_of, _fitting_batch, _sized
from coaug.engine import distributed
from coaug.engine.distributed import Ranks
from coaug.engine.optim import build_optimizer
from coaug.engine.parts import build_method, clips_per_step, epochs, open_loader
from coaug.engine.profile import Clock
from coaug.engine.run_config import RunConfig, load
from coaug.engine.state import Training
from coaug.pipelines.batch import Batch
from coaug.pipelines.catalog import Catalog
from coaug.pipelines.loader import AVLoader
from coaug.pipelines.packed.pack import pack
from coaug.pipelines.running import PREFETCH
from coaug.train import train_step

# A rested loader has PREFETCH batches ready, and its workers one more: a segment that began with these would be
# flattered. They, and a step in which caches fill, are not timed; from then on a step costs a batch.
LEAD = PREFETCH + 2
IDLE, POLL, PATIENCE = 0.002, 0.05, 60.0  # CPU seconds that are no work, seconds between looks, and in all
TRIES = 4  # passes at most for each one wanted
REPLAYED = "replayed"
PACKS = Path("data/packs")
CORES = len(os.sched_getaffinity(0))
Step = Callable[[Batch], object]


def main(argv: Sequence[str] | None = None) -> None:
    options = arguments().parse_intermixed_args(argv)
    catalog, config = chosen(options)
    with distributed.session() as ranks, ExitStack() as stack:
        ways = opened(config, catalog, ranks, options, stack)
        passes = measured(ways, options)
        rows = rows_of(ways, passes, clips_per_step(config), CORES)
    busy = statistics.fmean(segment.others for found in passes.values() for segment in found)
    machine: Row = {"machine": platform.platform(), "torch": torch.__version__, "device": ranks.device.type}
    machine |= {"cores": CORES, "threads": torch.get_num_threads(), "others": busy}
    counted = f"{len(passes[REPLAYED])} passes, other processes kept {busy:.2f} cores busy"
    report(rows, f"{config.method} on {ranks.device.type}; {counted}")
    if options.json:
        options.json.write_text(json.dumps([row | machine for row in rows], indent=1))


def chosen(options: argparse.Namespace) -> tuple[Path, RunConfig]:
    """Catalog and config of `coaug train` with the same arguments."""
    preset = _sized(options.method, options.data, None)
    config, catalog = load(preset, options.overrides), _catalog_of(options.data)
    fitting = _fitting_batch(config, options.overrides, catalog)
    return catalog, load(preset, [*fitting, *options.overrides])


class Replayed:
    """Has the loader's interface: `count` batches, taken from it beforehand, handed out again and again."""

    def __init__(self, loader: AVLoader, count: int) -> None:
        self.steps, self.catalog = len(loader), loader.catalog
        self.batches = list(islice(epochs(loader), count))
        self._next = cycle(self.batches)

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Batch]:
        """An epoch of as many steps as the loader's."""
        return islice(self._next, self.steps)

    def stats(self) -> dict[str, float]:
        """Nothing is decoded."""
        return {"decoded_per_shown": 0.0}


@dataclass(frozen=True)
class Way:
    """Where batches come from, and what is done with each, on `threads` threads of torch."""

    loader: AVLoader | Replayed
    batches: Iterator[Batch]
    step: Step
    threads: int

    @property
    def workers(self) -> list[int]:
        """Process ids."""
        workers = self.loader._running.processes if isinstance(self.loader, AVLoader) else []
        return [worker.pid for worker in workers if worker.pid]


def opened(
    config: RunConfig, catalog: Path, ranks: Ranks, options: argparse.Namespace, stack: ExitStack
) -> dict[str, Way]:
    """Every way. Loaders are closed by `stack`."""
    catalogs = {"coaug": catalog}
    if options.packed:
        catalogs["coaug, packed"] = pack(catalog, PACKS / catalog.stem).path
    loaders = {
        name: stack.enter_context(closing(open_loader(config, Catalog.open(path), ranks)))
        for name, path in catalogs.items()
    }
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    step = trainer(config, loaders["coaug"], ranks, folder)
    return ways_of(loaders, Replayed(loaders["coaug"], options.replay), step, ranks.device.type == "cpu")


def ways_of(loaders: Mapping[str, AVLoader], kept: Replayed, step: Step, on_cpu: bool) -> dict[str, Way]:
    """Each loader with and without training, and training without a loader."""
    threads = torch.get_num_threads()
    trained = {name: Way(loader, epochs(loader), step, threads) for name, loader in loaders.items()}
    alone = {f"{name} alone": replace(way, step=received) for name, way in trained.items()}
    replayed = {REPLAYED: Way(kept, epochs(kept), step, threads)}  # type: ignore[arg-type]
    if on_cpu and threads < CORES:
        replayed[f"{REPLAYED}, {CORES} threads"] = replace(replayed[REPLAYED], threads=CORES)
    return {**trained, **replayed, **alone}


def received(batch: Batch) -> None:
    """Waits until a batch has arrived on its device."""
    if batch.valid.is_cuda:
        torch.cuda.synchronize()


def trainer(config: RunConfig, loader: AVLoader, ranks: Ranks, folder: Path) -> Step:
    """The trainer's step, with a method and an optimiser of its own, over and over the run's schedule."""
    torch.manual_seed(config.train.seed)
    method = build_method(config, ranks.device, loader.catalog.ids)
    training = Training(method, build_optimizer(method, config.optim), loader, config, data="")
    steps = cycle(range(config.train.epochs * len(loader)))
    return lambda batch: train_step(training, batch, next(steps), len(loader), folder)


def measured(ways: Mapping[str, Way], options: argparse.Namespace) -> dict[str, list[Segment]]:
    """A segment of each way, pass by pass; those that others disturbed are tried again."""
    one_pass(ways, options, 0)  # starts workers and warms caches
    kept: list[dict[str, Segment]] = []
    for turn in range(1, TRIES * options.passes + 1):
        found = one_pass(ways, options, turn)
        kept += [found] * all(segment.others <= options.quiet for segment in found.values())
        if len(kept) == options.passes:
            break
    if not kept:
        raise SystemExit(f"headspace: others kept more than {options.quiet} cores busy in every pass")
    return {name: [found[name] for found in kept] for name in ways}


def one_pass(ways: Mapping[str, Way], options: argparse.Namespace, turn: int) -> dict[str, Segment]:
    """Backwards every second time: a machine that gets slower meanwhile favours no way."""
    return {name: timed(ways[name], options.steps) for name in list(ways)[:: -1 if turn % 2 else 1]}


def timed(way: Way, steps: int) -> Segment:
    """The next steps of one way, once all loaders are at rest and its own is in step with the training."""
    settle()
    laps, before = list[tuple[float, float]](), (0.0, 0.0)
    with threads(way.threads):
        clock = Clock()
        for batch in clock.over(islice(way.batches, LEAD + steps)):
            way.step(batch)
            laps.append(clock.lap())
            if len(laps) == LEAD:
                before = spent(), busy()
    cpu, all_cpu = spent() - before[0], busy() - before[1]
    seconds, waited = zip(*laps[LEAD:], strict=True)
    rss = sum(map(resident, [os.getpid(), *way.workers]))
    return Segment(list(seconds), sum(waited), cpu, rss, (all_cpu - cpu) / sum(seconds))


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Torch computes on so many in here."""
    usual = torch.get_num_threads()
    torch.set_num_threads(count)
    yield
    torch.set_num_threads(usual)


def settle() -> None:
    """Wait until no worker, and no thread of this process, prepares anything any more: their queues are full."""
    done, now, until = -1.0, spent(), time.monotonic() + PATIENCE
    while now - done > IDLE:
        if time.monotonic() > until:
            raise SystemExit(f"headspace: the loaders did not come to rest in {PATIENCE:.0f} s")
        time.sleep(POLL)
        done, now = now, spent()


def busy() -> float:
    """CPU seconds so far that were not idle, on all cores of the machine."""
    user, nice, system, _idle, _waiting, *rest = (
        int(ticks) for ticks in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
    )
    return (user + nice + system + sum(rest)) / os.sysconf("SC_CLK_TCK")


def spent() -> float:
    """CPU seconds so far of this process and of its workers, all threads."""
    return sum(map(cpu_seconds, [os.getpid(), *(w.pid for w in multiprocessing.active_children() if w.pid)]))


def cpu_seconds(pid: int) -> float:
    """Of one process, by the kernel's clock of it: /proc counts in hundredths of a second."""
    clock = ctypes.c_int()
    if ctypes.CDLL(None).clock_getcpuclockid(pid, ctypes.byref(clock)):
        return 0.0  # it has ended
    return time.clock_gettime(clock.value)


def resident(pid: int) -> float:
    """MiB of a process's memory."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def rows_of(
    ways: Mapping[str, Way], passes: Mapping[str, Sequence[Segment]], clips: int, cores: int
) -> list[Row]:
    """The report, a row a way; `clips` are those of a step."""
    best = passes[REPLAYED]
    rows = [{"name": name, **figures(found, clips), **share(found, best)} for name, found in passes.items()]
    for row in rows:
        row["decoded_per_shown"] = ways[row["name"]].loader.stats()["decoded_per_shown"]
        if loading := passes.get(f"{row['name']} alone"):
            row["bound"] = bound(step_seconds(best), step_cpu(best), step_cpu(loading), cores)
            row["load_cpu_ms"], row["train_cpu_ms"] = 1e3 * step_cpu(loading), 1e3 * step_cpu(best)
    return rows


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("method", nargs="?", default="svaclr", help="a method or a YAML file")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="such as train.workers=1")
    parser.add_argument("--data", help="folder, pack or catalog (default: the demo set)")
    parser.add_argument("--packed", action="store_true", help="also train on shards, made below data/packs")
    parser.add_argument("--replay", type=int, default=4, help="batches kept")
    parser.add_argument("--steps", type=int, default=6, help="timed steps of a segment")
    parser.add_argument("--passes", type=int, default=10, help="segments of each way")
    parser.add_argument(
        "--quiet",
        type=float,
        default=math.inf,
        help="repeat passes in which other processes kept more cores busy than this, such as 0.2",
    )
    parser.add_argument("--json", type=Path, help="write the rows here")
    return parser


if __name__ == "__main__":
    main()
