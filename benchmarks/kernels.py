"""What do our kernels cost, and what does the same cost as people write it in torch, as AVID-CMA does it, or at best?

    python benchmarks/kernels.py [--kernel agreement_topk …] [--n …] [--json FILE] [--device cuda]

Every row runs in a process of its own, on the same inputs; passes are interleaved, figures are medians. `ms` is wall
time and `cpu_ms` the process's CPU time; on one thread of a CPU rows are compared by the latter, as other work on the
machine does not count there. `peak_mb` is what a first pass needs beside its inputs: resident memory on a CPU, torch's
on a GPU. What is not installed, or does not run here, is left out and said so.

Where all queries would take minutes, some are computed, and the row's name says how many: its times are those,
multiplied. `x ours` is the row's figure over ours, with a 95 % interval, and what it is to be at least.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from kernel_rows import KERNELS, OURS, Target, Unavailable, kernel
from kernel_rows.worker import Job, Pass, running
from measure import machine, ratio
from rich.console import Console
from rich.table import Table

Row = dict[str, Any]


def main() -> None:
    options, console, rows = arguments(), Console(), list[Row]()
    for name in options.kernel:
        for n in options.n or kernel(name).SIZES[options.device]:
            found = measured(name, n, options, console)
            if found:
                show(found, console)
            rows += found
    if options.json:
        about = machine() | {"device": options.device, "threads": options.threads}
        options.json.write_text(json.dumps([row | about for row in rows], indent=1))


def measured(name: str, n: int, options: argparse.Namespace, console: Console) -> list[Row]:
    """A row for each way that runs here."""
    passes: dict[Job, list[Pass]] = {}
    peaks: dict[Job, float] = {}
    with ExitStack() as stack:
        pipes = {}
        for job in jobs(name, n, options):
            try:
                pipes[job], peaks[job] = stack.enter_context(running(job))
                passes[job] = []
            except Unavailable as problem:
                console.print(f"{name} {n:,}: {job.impl}: left out: {problem}", markup=False)
        for _ in range(options.repeats):
            for job, pipe in pipes.items():
                pipe.send(None)
                passes[job].append(scaled(job, pipe.recv()))
    rows = [row_of(job, passes[job], peaks[job]) for job in passes]
    return compared(rows, list(passes.values()), options)


def jobs(name: str, n: int, options: argparse.Namespace) -> Iterator[Job]:
    file = kernel(name)
    sampled = getattr(file, "sampled", lambda *_: None)
    for impl in options.impl or file.IMPLS:
        if impl in file.IMPLS:
            yield Job(name, impl, n, options.device, sampled(n, options.device, impl), options.threads)


def scaled(job: Job, found: Pass) -> Pass:
    """A pass over some of the queries as one over all of them."""
    factor = job.n / (job.queries or job.n)
    return Pass(factor * found.wall, factor * found.cpu)


def row_of(job: Job, passes: Sequence[Pass], peak: float) -> Row:
    file = kernel(job.kernel)
    return {
        "kernel": job.kernel,
        "impl": job.impl + (f" (estimated from {job.queries:,} queries)" if job.queries else ""),
        "n": job.n,
        "k": file.K(job.n),
        "ms": 1e3 * statistics.median(p.wall for p in passes),
        "cpu_ms": 1e3 * statistics.median(p.cpu for p in passes),
        "peak_mb": peak,
        "about": file.IMPLS[job.impl].about,
    }


def compared(rows: list[Row], passes: Sequence[Sequence[Pass]], options: argparse.Namespace) -> list[Row]:
    """The rows with `x ours` and, where there are targets, `wanted`."""
    if not rows or not rows[0]["impl"].startswith(OURS):
        return rows
    cpu = options.device == "cpu" and options.threads == 1
    times = [[p.cpu if cpu else p.wall for p in some] for some in passes]
    for row, mine in zip(rows, times, strict=True):
        row["x ours"] = ratio(mine, times[0])
    for row in rows:
        row["wanted"] = [verdict(t, row, rows[0]) for t in targets(row, options.device)]
    return rows


def targets(row: Row, device: str) -> list[Target]:
    impl = row["impl"].split(" (")[0]
    wanted = kernel(row["kernel"]).TARGETS
    mine = [t for t in wanted if (t.impl or OURS) == impl and t.device == device]
    return [t for t in mine if not t.sizes or row["n"] in t.sizes]


def verdict(target: Target, row: Row, ours: Row) -> Row:
    """What is wanted and what it is."""
    found = row["ms"] if not target.impl else row["x ours"][0]
    if target.figure == "peak_mb":
        found = row["peak_mb"] / max(ours["peak_mb"], 1e-3)
    met = found <= target.wanted if not target.impl else found >= target.wanted
    return {"figure": target.figure, "wanted": target.wanted, "found": found, "met": met}


def show(rows: Sequence[Row], console: Console) -> None:
    first = rows[0]
    table = Table(
        "", "ms", "CPU ms", "peak MB", "x ours", "wanted", title=f"{first['kernel']}, n = {first['n']:,}"
    )
    for row in rows:
        times = "{:.2f} ({:.2f}-{:.2f})".format(*row["x ours"]) if "x ours" in row else ""
        figures = (f"{row[key]:,.1f}" for key in ("ms", "cpu_ms", "peak_mb"))
        table.add_row(row["impl"], *figures, times, "; ".join(map(said, row.get("wanted", ()))))
    console.print(table)


def said(wanted: Row) -> str:
    """A target in the table."""
    kept = "ok" if wanted["met"] else "missed"
    return f"{wanted['figure']} {wanted['wanted']:g}: {kept} ({wanted['found']:.2f})"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kernel", nargs="+", choices=list(KERNELS), default=list(KERNELS))
    parser.add_argument("--n", nargs="+", type=int, help="sizes; default: those of the targets")
    parser.add_argument("--impl", nargs="+", help="rows of these names only; ours is coaug")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--repeats", type=int, default=5, help="interleaved passes")
    parser.add_argument(
        "--threads", type=int, default=len(os.sched_getaffinity(0)), help="of a CPU, each row"
    )
    parser.add_argument("--json", type=Path, help="write the rows here")
    return parser.parse_args()


if __name__ == "__main__":
    main()
