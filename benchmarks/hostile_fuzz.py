"""Can a few changed bytes crash or hang whatever reads a film?

    python benchmarks/hostile_fuzz.py                        10,000 spoilt films
    python benchmarks/hostile_fuzz.py --only "3.mkv 1234"    one of them again

A case is a film and a seed: 1 to 128 bytes of the film are changed, and the result is probed as by `coaug index`, then
read by the catalog row that this probe gives, and by that of the intact film, which may have broken later, also by the
list of its packets: in the source, and, where DALI decodes the codec on a CPU, now and then (--graph) also through the
loader's graph. All of it happens in child processes (`pipelines.pool`): a native crash or a hang is seen as such, and
named by its case. Exit status 1: one crashed, hung, took longer than the deadline, or raised something that nobody
foresaw.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from hostile_files import AVI, MJPEG, MKV, MP4, TS, WEBM, Film
from rich.console import Console
from rich.table import Table

from coaug.pipelines import cut, pool, source
from coaug.pipelines.bans import Bans
from coaug.pipelines.catalog import Catalog
from coaug.pipelines.config import AudioConfig, DataConfig, VideoConfig, ViewConfig
from coaug.pipelines.datasets import Entry
from coaug.pipelines.listings import Listings, ListingsFile
from coaug.pipelines.probe import Probe, probe
from coaug.pipelines.recording import Recording, table_of
from coaug.pipelines.schedule import Schedule

CONFIG = DataConfig(
    video=VideoConfig(frames=4, fps=8.0, size=16),
    audio=AudioConfig(rate=8000, seconds=0.5, mels=16),
    views=(ViewConfig("speed(1, 2)"),),
)
DEADLINE = 10.0  # seconds that one reading may take, with its stand-ins
LIMIT = 120.0  # seconds after which a case has hung: it may have to import and compile first
MOST = 128  # bytes changed
GRAPH = ("vp8", "vp9", "mjpeg")
SHORT: dict[str, Any] = {"seconds": 1.2}
HEVC = (("preset", "ultrafast"), ("x265-params", "log-level=none"))
AV1 = (("preset", "11"), ("svtav1-params", "rc=1:aq-mode=2"))
FILMS: tuple[Film, ...] = (
    *(replace(film, **SHORT) for film in (MP4, WEBM, AVI, MKV, TS, MJPEG)),
    replace(MP4, **SHORT, suffix=".mov", codec="libx265", options=HEVC),
    replace(MKV, **SHORT, codec="libsvtav1", sound="aac", options=AV1),
    replace(TS, **SHORT, suffix=".mpg", sound="ac3", layout="5.1"),
    replace(AVI, **SHORT, suffix=".flv", codec="flv"),
)
UNFORESEEN = re.compile(
    r"\w*(Error|Exception|Interrupt|Iteration): "
)  # how `Source` reports what it did not expect
NEW_STREAM = "IndexError: list index out of range"  # PyAV does not expect streams that begin later
VALUE = re.compile(r"0x[0-9a-f]+|[\d.]+")  # left out of reasons when they are counted
T = TypeVar("T")


@dataclass
class Result:
    """What a case gave: the probe's verdict, why readings failed, batches that the graph refused, what nobody foresaw;
    the longest of its steps in seconds, and the largest size of its process so far in MB."""

    probed: str = ""
    failed: list[str] = field(default_factory=list)
    refused: int = 0
    unforeseen: list[str] = field(default_factory=list)
    longest: float = 0.0
    peak: float = 0.0

    def step(self, name: str, work: Callable[[], T]) -> T | None:
        """What `work` gives; its time counts, and what it raises is noted."""
        began, given = time.monotonic(), None
        try:
            given = work()
        except Exception as error:
            self.unforeseen.append(f"{name}: {type(error).__name__}: {error}")
        self.longest = max(self.longest, time.monotonic() - began)
        return given

    def note(self, name: str, path: str, error: str | None) -> None:
        """Why a reading failed, if it did."""
        if why := (error or "").removeprefix(f"{path}: "):
            expected = why == NEW_STREAM or not UNFORESEEN.match(why)
            (self.failed if expected else self.unforeseen).append(f"{name}: {VALUE.sub('…', why)}")


def main() -> int:
    options = arguments()
    cases = [options.only] if options.only else cases_of(options.cases, options.seed)
    with tempfile.TemporaryDirectory(prefix="coaug-fuzz-") as folder:
        found = fuzz(Path(folder), cases, options.workers, options.graph)
    show(found)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))
    return 1 if found["bad"] else 0


def cases_of(count: int, seed: int = 0) -> list[str]:
    """The films in turn, each time with the next seed."""
    return [f"{n % len(FILMS)}{FILMS[n % len(FILMS)].suffix} {seed + n}" for n in range(count)]


def fuzz(folder: Path, cases: Sequence[str], workers: int, graph: int) -> dict[str, Any]:
    """Plays the cases and sums them up; `bad` holds those that crashed, hung, were late or surprised, and how."""
    began, bad, counts, largest = (
        time.monotonic(),
        {},
        Counter[str](),
        {"longest": (0.0, ""), "peak": (0.0, "")},
    )
    for number, film in enumerate(FILMS):
        film.write(folder / f"{number}{film.suffix}")
    arguments = [
        f"{folder}|{case}|{int(bool(graph) and n // len(FILMS) % graph == 0)}" for n, case in enumerate(cases)
    ]
    for argument, given in pool.run("hostile_fuzz:play", arguments, workers, lambda _: LIMIT):
        name = argument.split("|")[1]
        if isinstance(given, pool.Hung | pool.Crashed):
            bad[name] = type(given).__name__.lower()
            continue
        result = Result(**given)
        counts.update([f"index: {result.probed}", *result.failed, *["graph: refused"] * result.refused])
        largest = {key: max(value, (getattr(result, key), name)) for key, value in largest.items()}
        if result.unforeseen or result.longest > DEADLINE:
            bad[name] = "; ".join(result.unforeseen) or f"took {result.longest:.1f} s"
    return {"cases": len(cases), "bad": bad, "counts": counts, **largest, "seconds": time.monotonic() - began}


def play(argument: str) -> dict[str, Any]:
    """One case, in a child process: "folder|film seed|1: also in the graph" -> a `Result` as a dict."""
    folder, case, graph = argument.split("|")
    name, seed = case.split()
    film, result = Path(folder, name), Result()
    spoilt = film.with_name(f"spoilt-{os.getpid()}{film.suffix}")
    spoilt.write_bytes(changed(film.read_bytes(), int(seed)))
    result.probed, found = result.step("index", lambda: rows_of(spoilt)) or ("nothing", ())
    old = [replace(row, path=str(spoilt)) for row in intact(film)]
    lists = as_it_was(film, spoilt)
    for row in old:
        result.note("list", row.path, result.step("list", partial(from_source, row, lists)))
    for row in (*old, *found):
        result.note("source", row.path, result.step("source", partial(from_source, row)))
        if graph == "1" and row.video is not None and row.video.codec in GRAPH:
            warm()
            error, refused = result.step("graph", partial(from_graph, row)) or ("", 0)
            result.note("graph", row.path, error)
            result.refused += refused
    result.peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return asdict(result)


def changed(data: bytes, seed: int) -> bytes:
    """`data` with 1 to `MOST` bytes made others: few as often as many, and in every other case near the beginning."""
    rng, spoilt = np.random.default_rng(seed), np.frombuffer(data, np.uint8).copy()
    count = int(2 ** rng.uniform(0, np.log2(MOST + 1)))
    places = rng.integers(0, len(data) if rng.random() < 0.5 else min(len(data), 4096), count)
    spoilt[places] ^= rng.integers(1, 256, count).astype(np.uint8)
    return spoilt.tobytes()


def rows_of(path: Path) -> tuple[str, list[Recording]]:
    """(the probe's verdict, the catalog's rows for it)."""
    found = probe(str(path))
    if not isinstance(found, Probe):
        return found.reason, []
    rows = list(cut.recordings(cut.Source(str(path), path.name, Entry(path.name)), found, {}, cut.Policy()))
    usable = [r for r in rows if isinstance(r, Recording) and r.duration >= CONFIG.needed_seconds]
    return "usable" if usable else "too short, or a track is lost", usable


@cache
def intact(film: Path) -> list[Recording]:
    """The catalog's rows for a film as it was."""
    return rows_of(film)[1]


@cache
def packets(film: Path) -> dict[str, Any] | None:
    """The list of a film's packets."""
    found = probe(str(film))
    return found.packets if isinstance(found, Probe) else None


def as_it_was(film: Path, spoilt: Path) -> Listings:
    """The list of the intact film, for the spoilt one."""
    path = spoilt.with_suffix(".packets")
    with ListingsFile(path) as lists:
        lists.add(str(spoilt), spoilt.stat().st_size, packets(film))
    return Listings(path)


def catalog_of(row: Recording) -> Catalog:
    return Catalog(Path("/dev/null/nowhere"), table_of([row], []), "")  # where no list of bans can be kept


def from_source(row: Recording, lists: Listings | None = None) -> str:
    """The error, or "", of a sample whose stand-ins are the same film."""
    schedule = Schedule(samples=1, batch=1, steps=1)
    reader = source.Source(catalog_of(row), CONFIG, schedule, Bans(), deadline=DEADLINE / 5)
    if lists is not None:
        reader.listings = lists
    return bytes(reader.sample(0, 0, 0)["error"]).decode()


def from_graph(row: Recording) -> tuple[str, int]:
    """(The error, or "", of a sample decoded by DALI, how many batches it refused)."""
    from coaug.pipelines.loader import AVLoader

    with AVLoader(
        catalog_of(row), CONFIG, batch_size=1, workers=0, decode="graph", deadline=DEADLINE / 5
    ) as loader:
        next(iter(loader))
        state = loader.state_dict()
    return next(iter(state["failures"]), ""), len(state["distrusted"])


@cache
def warm() -> None:
    """Compiles the graph's operators, whose time is nobody's."""
    with tempfile.TemporaryDirectory() as folder:
        film = FILMS[1].write(Path(folder, f"film{FILMS[1].suffix}"))
        from_graph(rows_of(film)[1][0])


def show(found: dict[str, Any]) -> None:
    """Counts by what became of the cases, and the bad ones."""
    table = Table("what became of them", "times", title=f"{found['cases']} cases")
    for what, count in found["counts"].most_common():
        table.add_row(what, str(count))
    console = Console()
    console.print(table)
    for name, why in found["bad"].items():
        console.print(f'--only "{name}": {why}', markup=False)
    (longest, slow), (peak, large) = found["longest"], found["peak"]
    console.print(
        f"longest step {longest:.2f} s ({slow}); largest process {peak:.0f} MB ({large}); {len(found['bad'])} bad"
    )


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", metavar="CASE", help='play this one, such as "3.mkv 1234"')
    parser.add_argument(
        "--graph", type=int, default=8, metavar="N", help="every Nth case (0: none), it costs most"
    )
    parser.add_argument("--workers", type=int, default=pool.cores())
    parser.add_argument("--json", type=Path, help="write everything that was found here")
    return parser.parse_args(given)


if __name__ == "__main__":
    sys.exit(main())
