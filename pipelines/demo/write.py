"""Write the demo set: several hundred encoded films in `train/<class>/` and `test/<class>/`."""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path

import rich.progress
from rich.console import Console

from .encode import FORMATS
from .recording import Recording

VERSION = 2  # raise it whenever the same seed gives other files
MARKER = "demo.json"


def write_demo(
    folder: str | Path,
    *,
    train: int = 400,
    test: int = 128,
    seed: int = 0,
    workers: int | None = None,
    progress: bool = True,
) -> Path:
    """Write the demo set into `folder`, or return at once if it is there already.

    What is seen in these films causes what is heard: see `coaug.pipelines.demo.events`. A run that was killed
    goes on where it stopped. Several processes may call this for one folder: one writes, the others wait.

    Args:
        folder: Where `train/<class>/` and `test/<class>/` go.
        train, test: Numbers of files; the classes take turns.
        seed: Decides every file, independently of the numbers and of `workers`.
        workers: Processes; by default one a core that this process may use.
        progress: Show a progress bar, if standard error is a terminal.

    Returns:
        `folder` as a path.

    Raises:
        ValueError: `folder` holds something else than a demo set.
    """
    folder = Path(folder)
    wanted = {"version": VERSION, "train": train, "test": test, "seed": seed}
    folder.mkdir(parents=True, exist_ok=True)
    with _lock(folder):
        state = _state(folder)
        if state != wanted | {"complete": True}:
            _clean(folder, keep=state == wanted | {"complete": False})
            _mark(folder, wanted | {"complete": False})
            _write_all(folder, train, test, seed, workers, progress)
            _mark(folder, wanted | {"complete": True})
    return folder


def write_one(folder: Path, split: str, seed: int, index: int) -> Path:
    """Write file `index` of a split, unless it is there. It appears under its name only when it is whole."""
    recording = Recording.draw(split, seed, index)
    path = folder / split / recording.event.name / f"{recording.event.name}_{index:04d}{recording.suffix}"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.part")
        FORMATS[recording.suffix].write(part, recording)
        os.replace(part, path)
    return path


def _write_all(folder: Path, train: int, test: int, seed: int, workers: int | None, progress: bool) -> None:
    jobs = [
        (folder, split, seed, i) for split, count in (("train", train), ("test", test)) for i in range(count)
    ]
    workers = workers or len(os.sched_getaffinity(0))
    console = Console(stderr=True)
    with rich.progress.Progress(console=console, disable=not (progress and console.is_terminal)) as bar:
        task = bar.add_task("writing demo films", total=len(jobs))
        for _ in _run(jobs, workers):
            bar.advance(task)


def _run(jobs: list[tuple[Path, str, int, int]], workers: int) -> Iterator[Path]:
    if workers == 1:
        yield from (write_one(*job) for job in jobs)
        return
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        for future in as_completed([pool.submit(write_one, *job) for job in jobs]):
            yield future.result()


def _state(folder: Path) -> dict[str, int | bool] | None:
    """What the marker says; None in a folder without one."""
    try:
        state = json.loads((folder / MARKER).read_text())
    except FileNotFoundError:
        if any(not path.name.startswith(".") for path in folder.iterdir()):
            raise ValueError(f"{folder} is not empty and holds no {MARKER}: choose another folder") from None
        return None
    except ValueError:
        raise ValueError(f"{folder / MARKER} is damaged: delete {folder} or choose another folder") from None
    return dict(state)


def _mark(folder: Path, state: dict[str, int | bool]) -> None:
    part = folder / f".{MARKER}.part"
    part.write_text(json.dumps(state) + "\n")
    os.replace(part, folder / MARKER)


def _clean(folder: Path, keep: bool) -> None:
    """Remove what a killed run left half-written; with `keep` False also the films of another set."""
    for split in ("train", "test"):
        for path in sorted((folder / split).rglob("*")):
            if path.is_file() and (path.suffix == ".part" or not keep):
                path.unlink()


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
