"""Which of AVID's and CMA's findings show on the demo set, and which do not?

    make avid-table                                    four variants x three seeds, one after the other
    make avid-table ARGS="--lambdas 0.1 1 10 --expansions video audio either"       with Fig. 4's and Fig. 6's sweeps
    make avid-table ARGS="--variants Self-AVID Cross-AVID CMA"      without Joint-AVID
    make avid-table ARGS="--seeds 0 -- train.epochs=2"  a quick look, too short for CMA's positives; what follows --
                                                       goes to every training

The demo set is packed once (data/demo-pack), so that a training takes at most three minutes on two cores. Each is an
ordinary `coaug train` into runs/avid-table/; finished ones are not run again, unfinished ones are resumed, unless the
command has changed. Figures, and the orderings of the paper with what became of them, go to docs/avid-table.md.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from trainings import Figures, figures_of, line, over, spread

from coaug.eval.table import markdown

SEEDS = [0, 1, 2]
EVALUATED = ("eval.evaluators=[linear,within,memory]", "eval.clips=4")
PACK = Path("data/demo-pack")
PACKING = ["--video", "mjpeg", "--size", "64"]
VARIANTS: dict[str, tuple[str, ...]] = {
    "Self-AVID": ("avid-demo", "model.task=self"),
    "Cross-AVID": ("avid-demo", "model.task=cross"),
    "Joint-AVID": ("avid-demo", "model.task=joint"),
    "CMA": ("cma-demo",),
}
"""Column -> preset and overrides."""
TABLES: dict[str, dict[str, str]] = {
    "Linear probe, top-1 in per cent (Table 1): of the encoders' outputs, and of blocks": {
        "video": "linear.video.top1",
        "audio": "linear.audio.top1",
        "both": "linear.both.top1",
        **{f"video, block {i}": f"linear.block{i}.video.top1" for i in range(1, 5)},
        "video, best block": "linear.best.video.top1",
        **{f"audio, block {i}": f"linear.block{i}.audio.top1" for i in range(1, 5)},
        "audio, best block": "linear.best.audio.top1",
        "video, untrained": "linear.random.video.top1",
        "video, untrained, best block": "linear.random.best.video.top1",
        "audio, untrained": "linear.random.audio.top1",
        "audio, untrained, best block": "linear.random.best.audio.top1",
        "most frequent class": "linear.chance.top1",
    },
    "Within-modal retrieval, held-out recordings among training ones, by class, in per cent": {
        "v → v, z, R@1": "within.z.v2v.r1",
        "v → v, z, R@5": "within.z.v2v.r5",
        "v → v, encoder, R@1": "within.pool.v2v.r1",
        "a → a, z, R@1": "within.z.a2a.r1",
        "a → a, z, R@5": "within.z.a2a.r5",
        "a → a, encoder, R@1": "within.pool.a2a.r1",
        "chance, R@1": "within.z.chance.r1",
    },
    "Precision@K of positive sets that an expansion finds in the trained memory, in per cent (Fig. 6b)": {
        **{
            f"{name}, K={k}": f"memory.precision.{name}.p{k}"
            for k in (4, 16)
            for name in ("agreement", "video", "audio", "either")
        },
        "chance": "memory.precision.chance",
    },
    "Linear classifiers of memory rows, top-1 in per cent (Table 6)": {
        "video memory": "memory.linear.video.top1",
        "audio memory": "memory.linear.audio.top1",
        "both": "memory.linear.both.top1",
    },
}
SIMILARITIES = {
    "video, video": "memory.calibration.video.mean",
    "audio, audio": "memory.calibration.audio.mean",
    "video, another's audio": "memory.calibration.cross.mean",
    "video, its own audio": "memory.calibration.own.mean",
}


@dataclass(frozen=True)
class Ordering:
    """A claim of the paper: `better` (column, key) exceeds `worse`, or at least equals it."""

    claim: str
    better: tuple[str, str]
    worse: tuple[str, str]
    strict: bool = True

    def differences(self, results: Mapping[str, Sequence[Figures]]) -> list[float]:
        """By how much, for each seed."""
        pairs = zip(results[self.better[0]], results[self.worse[0]], strict=True)
        return [a[self.better[1]] - b[self.worse[1]] for a, b in pairs]

    def known(self, results: Mapping[str, Sequence[Figures]]) -> bool:
        """Whether all runs have both figures."""
        return all(
            key in run for column, key in (self.better, self.worse) for run in results.get(column, [{}])
        )

    def verdict(self, differences: Sequence[float]) -> str:
        """What became of it."""
        if all(d > 0 or (d == 0 and not self.strict) for d in differences):
            return "shows in this run" if len(differences) == 1 else "shows, for every seed"
        return "on average, not for every seed" if statistics.fmean(differences) > 0 else "does not show"


def between(
    claim: str, better: str, worse: str, keys: Mapping[str, str], *, strict: bool = True
) -> list[Ordering]:
    """The same claim about two columns, for each of some figures."""
    return [Ordering(f"{claim}: {name}", (better, key), (worse, key), strict) for name, key in keys.items()]


PROBED = {f"{s}, best block": f"linear.best.{s}.top1" for s in ("video", "audio")} | {
    s: f"linear.{s}.top1" for s in ("video", "audio")
}
FOUND = {way: f"within.z.{key}.r1" for way, key in (("v → v", "v2v"), ("a → a", "a2a"))}
REMEMBERED = {f"{s} memory": f"memory.linear.{s}.top1" for s in ("video", "audio", "both")}
ORDERINGS = [
    *between("Cross-AVID > Self-AVID, linear probe (Table 1)", "Cross-AVID", "Self-AVID", PROBED),
    *between("Cross-AVID > Joint-AVID, linear probe (Table 1)", "Cross-AVID", "Joint-AVID", PROBED),
    *(
        Ordering(
            f"Cross-AVID > untrained, linear probe: {s}",
            ("Cross-AVID", f"linear.{s}.top1"),
            ("Cross-AVID", f"linear.random.{s}.top1"),
        )
        for s in ("video", "audio", "best.video", "best.audio")
    ),
    *(
        Ordering(
            f"agreement > {other}, precision@{k} in {column}'s memory (Fig. 6b)",
            (column, f"memory.precision.agreement.p{k}"),
            (column, f"memory.precision.{other}.p{k}"),
        )
        for column in ("Cross-AVID", "CMA")
        for k in (4, 16)
        for other in ("video", "audio", "either")
    ),
    *between("CMA >= Cross-AVID, within-modal retrieval, z, R@1", "CMA", "Cross-AVID", FOUND, strict=False),
    *between("CMA >= Cross-AVID, linear probe (Fig. 4)", "CMA", "Cross-AVID", PROBED, strict=False),
    *between("CMA > Cross-AVID, classifier of memory rows (Table 6)", "CMA", "Cross-AVID", REMEMBERED),
    *(
        Ordering(
            f"CMA's random {s} memories are less alike than Cross-AVID's (Table 2)",
            ("Cross-AVID", f"memory.calibration.{s}.mean"),
            ("CMA", f"memory.calibration.{s}.mean"),
        )
        for s in ("video", "audio")
    ),
]


def swept(columns: Iterable[str]) -> Iterator[Ordering]:
    """The paper's claims about columns of sweeps: any lambda helps (Fig. 4), agreement helps most (Fig. 6a)."""
    for column in columns:
        if column.startswith("CMA, λ"):
            claim = f"{column} >= Cross-AVID, linear probe (Fig. 4)"
            yield from between(claim, column, "Cross-AVID", PROBED, strict=False)
        elif column.startswith("CMA, "):
            yield from between(f"CMA > {column}, linear probe (Fig. 6a)", "CMA", column, PROBED)


def main(argv: Sequence[str] | None = None) -> int:
    options = parser().parse_args(argv)
    variants = {name: VARIANTS[name] for name in options.variants}
    variants |= sweeps(options.lambdas, options.expansions)
    data = options.data or packed(PACK)
    results: dict[str, list[Figures]] = {name: [] for name in variants}
    for seed in options.seeds:
        for name, words in variants.items():
            out = options.runs / f"{folder_of(name)}-{seed}"
            figures = figures_of(training(words, seed, data, out, options.overrides), out)
            if figures is None:
                print(
                    f"avid-table: {name}, seed {seed} did not finish; run this again to go on",
                    file=sys.stderr,
                )
                return 1
            results[name].append(figures)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    commands = [
        training(words, options.seeds[0], data, options.runs / "…", options.overrides)
        for words in variants.values()
    ]
    options.out.write_text(page(results, options.seeds, commands))
    print(f"{options.out.read_text()}\nwritten to {options.out}")
    return 0


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make avid-table", description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument(
        "--lambdas", type=float, nargs="*", default=[], help="further columns: CMA with this lambda"
    )
    parser.add_argument("--expansions", nargs="*", default=[], choices=["video", "audio", "either"])
    parser.add_argument("--data", type=Path, help="pack or catalog; default: the demo set, packed once")
    parser.add_argument("--runs", type=Path, default=Path("runs/avid-table"))
    parser.add_argument("--out", type=Path, default=Path("docs/avid-table.md"))
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="for every training")
    return parser


def sweeps(lambdas: Sequence[float], expansions: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Columns of Fig. 4 and Fig. 6."""
    own = VARIANTS["CMA"]
    return {
        **{f"CMA, λ={value:g}": (*own, f"model.within={value:g}") for value in lambdas},
        **{f"CMA, {name}": (*own, f"model.positives.expansion={name}") for name in expansions},
    }


def folder_of(name: str) -> str:
    """A column's folder name, for shells."""
    return name.lower().replace(", ", "-").replace("λ=", "lambda-").replace(" ", "-")


def training(
    words: Sequence[str], seed: int, data: Path, out: Path, overrides: Sequence[str] = ()
) -> list[str]:
    """The command of one training."""
    given = [*words, f"train.seed={seed}", *EVALUATED, *overrides]
    return ["coaug", "train", *given, "--data", str(data), "--out", str(out)]


def packed(folder: Path) -> Path:
    """The demo set's pack, which is made where it is missing or unfinished."""
    if not (folder / "catalog.parquet").is_file():
        from coaug.pipelines.demo import write_demo

        films = write_demo(folder.with_name("demo"))
        command = ["pack", str(films), str(folder), *PACKING]
        if subprocess.call([sys.executable, "-m", "coaug.cli", *command]):
            raise SystemExit(f"avid-table: coaug {line(command)} failed")
    return folder


def page(
    results: Mapping[str, Sequence[Figures]], seeds: Sequence[int], commands: Sequence[Sequence[str]]
) -> str:
    """The Markdown page."""
    parts = [
        "# Demo set: AVID's variants and CMA",
        f"On {os.cpu_count()} cores. {over(seeds)}; 128 held-out films of 16 classes, 400 to train on: a test of the "
        "machinery and of orderings, not of the paper's figures. Of 128, a share of 50 % has a standard error of "
        "4.4 points.",
        "## What of the paper shows here",
        "Difference in points (of per cent; of the cosine times 100 for similarities), of the same seed.",
        markdown(["claim", "difference", "at this scale"], verdicts(results)),
        "## Figures",
    ]
    for title, keys in TABLES.items():
        parts += [f"{title}:", markdown(["", *results], rows(keys, results, 100, 1))]
    title = "Mean cosine of memories of different recordings, and of a recording's own two (Table 2)"
    parts += [f"{title}:", markdown(["", *results], rows(SIMILARITIES, results, 1, 2))]
    parts += [
        "Each column is one of these commands for every seed:",
        "\n".join(f"    {line(c)}" for c in commands),
    ]
    return "\n\n".join(text.rstrip("\n") for text in parts) + "\n"


def verdicts(results: Mapping[str, Sequence[Figures]]) -> Iterator[list[str]]:
    """A line for every ordering that the runs know of."""
    for ordering in [*ORDERINGS, *swept(results)]:
        if ordering.known(results):
            differences = ordering.differences(results)
            yield [ordering.claim, spread([100 * d for d in differences], 1), ordering.verdict(differences)]


def rows(
    keys: Mapping[str, str], results: Mapping[str, Sequence[Figures]], scale: float, digits: int
) -> Iterator[list[str]]:
    """A line for every figure that any column has: its name, a cell a column."""
    for name, key in keys.items():
        cells = [_cell(column, key, scale, digits) for column in results.values()]
        if any(cells):
            yield [name, *cells]


def _cell(column: Sequence[Figures], key: str, scale: float, digits: int) -> str:
    values = [scale * figures[key] for figures in column if key in figures]
    return spread(values, digits) if len(values) == len(column) else ""


if __name__ == "__main__":
    sys.exit(main())
