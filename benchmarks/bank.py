"""What does a memory bank of 1.8 million recordings cost: to start, in a step, and when positives are looked for?

    python benchmarks/bank.py [--n 1784108 17841] [--json FILE] [--device cuda]

The bank is AVID's: two modalities, d = 128. A step is what `models/avid.py` adds to the networks': ids to rows, 1,024
negatives for each of 256 samples, Cross-AVID's two losses forwards and backwards, the update. A second, smaller bank
shows what of it depends on N. The search for everyone's 32 positives is timed in a bank of fewer recordings, and its
time multiplied by the square of the ratio: an estimate, and its memory is that of the small one. `peak MB` is what was
needed beside what was there before.

Size for comparison: AudioSet in the paper's section 6 has 1,784,108 recordings.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from kernel_rows.worker import give_memory_back, memory
from measure import machine
from rich.console import Console
from rich.table import Table
from torch.nn.functional import normalize

from coaug.kernels import agreement_topk
from coaug.losses.nce import Draw, Partition
from coaug.models.memory import Memory, MemoryConfig
from coaug.models.tasks import CROSS, Term, losses
from coaug.pipelines.memory import keep_memory

AUDIOSET = 1_784_108
WIDTH, BATCH, NEGATIVES, FOUND = 128, 256, 1024, 32
Row = dict[str, Any]


def main() -> None:
    options, console, rows = arguments(), Console(), list[Row]()
    torch.set_num_threads(options.threads)
    warm(options)
    for n in options.n:
        for storage in options.storage:
            rows += measured(n, storage, options)
    show(rows, console)
    if options.json:
        about = machine() | {"device": options.device, "threads": options.threads}
        options.json.write_text(json.dumps([row | about for row in rows], indent=1))


def warm(options: argparse.Namespace) -> None:
    """Compiles everything."""
    list(measured(1000, "float32", options))


def measured(n: int, storage: str, options: argparse.Namespace) -> Iterator[Row]:
    """Start, step and search of one bank."""
    device = torch.device(options.device)
    ids = torch.randperm(n) * 5_000_000_029  # 63-bit numbers in no order
    about: Row = {"n": n, "storage": storage}
    few = min(options.search, n)
    search = searching(few, storage, device)  # before there is much else in memory
    found = figures(search, 3, options.device)
    found |= {key: found[key] * (n / few) ** 2 for key in ("seconds", "cpu_s")}
    bank: list[Memory] = []

    def start() -> None:
        bank.clear()
        bank.append(Memory(ids, WIDTH, MemoryConfig(storage=storage), 0, device))  # type: ignore[arg-type]

    yield about | {"what": "start"} | figures(start, 1, options.device)
    step = stepping(bank[0], ids.to(device))
    yield about | {"what": "step"} | figures(step, options.repeats, options.device)
    yield about | {"what": f"search, estimated from {few:,} recordings"} | found


def searching(n: int, storage: str, device: torch.device) -> Callable[[], object]:
    """Everyone's positives in a bank of their own."""
    bank = Memory(torch.arange(n), WIDTH, MemoryConfig(storage=storage), 0, device)  # type: ignore[arg-type]
    return lambda: agreement_topk(bank["video"].own, bank["audio"].own, FOUND)


def stepping(bank: Memory, ids: torch.Tensor) -> Callable[[], None]:
    """A step's work on the bank, on other recordings each time."""
    partition, valid = (
        Partition(values={"all": 2.208}),
        torch.ones(BATCH, dtype=torch.bool, device=ids.device),
    )
    count = 0

    def step() -> None:
        nonlocal count
        count += 1
        seen = ids[count * BATCH % len(ids) :][:BATCH]
        x = {
            name: normalize(torch.randn(len(seen), WIDTH, device=ids.device), dim=1).requires_grad_()
            for name in ("video", "audio")
        }
        rows, used = bank.rows_of(seen, valid[: len(seen)]), valid[: len(seen)]
        terms = [Term(task, rows[:, None], rows[:, None], NEGATIVES) for task in CROSS]
        given: dict[str, Any] = {"partition": partition, "temperature": 0.07, "draw": Draw(0, count, 0)}
        total = sum(losses(t, x[t.task.query], used, bank[t.task.target], **given).mean() for t in terms)
        torch.autograd.backward(total)  # type: ignore[arg-type]
        bank.update_(rows, {name: value.detach() for name, value in x.items()}, used)

    return step


def figures(work: Callable[[], object], repeats: int, device: str) -> Row:
    """What a first pass needs of memory, and medians of the wall and CPU seconds of those after it."""
    give_memory_back()
    before, wall, cpu = memory(device, reset=True), list[float](), list[float]()
    work()
    peak = (memory(device) - before) / 1e6
    keep_memory()  # as trainers do on a CPU
    for _ in range(repeats):
        started = time.perf_counter(), time.process_time()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        wall.append(time.perf_counter() - started[0])
        cpu.append(time.process_time() - started[1])
    return {"seconds": statistics.median(wall), "cpu_s": statistics.median(cpu), "peak_mb": peak}


def show(rows: list[Row], console: Console) -> None:
    table = Table("recordings", "storage", "what", "seconds", "CPU s", "peak MB", title=f"bank, d = {WIDTH}")
    for row in rows:
        times = (f"{row[key]:,.3g}" for key in ("seconds", "cpu_s"))
        table.add_row(f"{row['n']:,}", row["storage"], row["what"], *times, f"{row['peak_mb']:,.0f}")
    console.print(table)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--n", nargs="+", type=int, default=[AUDIOSET, AUDIOSET // 100], help="recordings")
    parser.add_argument(
        "--storage", nargs="+", choices=["float32", "float16"], default=["float32", "float16"]
    )
    parser.add_argument("--search", type=int, default=50_000, help="recordings of which the search is timed")
    parser.add_argument("--repeats", type=int, default=20, help="steps")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of a CPU")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--json", type=Path, help="write the rows here")
    return parser.parse_args()


if __name__ == "__main__":
    main()
