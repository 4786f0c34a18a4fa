"""Do speed co-augmentation and soft weights help on the demo set, and does the demo set give answers away?

    make demo-table                                    nine trainings, one after the other (about an hour on 2 cores)
    make demo-table ARGS="--seeds 0 -- train.epochs=2"  a quick look; what follows -- goes to every training

Three seeds of {SoftInfoNCE, InfoNCE, no speed}, each an ordinary `coaug train` on the demo set, into runs/demo-table/.
Finished runs are not run again and unfinished ones are resumed, unless the command has changed; to start over delete
their folders. Mean and spread (sample standard deviation over seeds) go to docs/demo-table.md.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from trainings import Figures, figures_of, line, over, spread

from coaug.eval.table import markdown

SEEDS = [0, 1, 2]
EVALUATED = "eval.evaluators=[retrieval,control]"
VARIANTS: dict[str, tuple[str, ...]] = {
    "SoftInfoNCE": ("svaclr",),
    "InfoNCE": ("infonce",),
    "no speed": ("svaclr", "data.views=[{}, {}]"),
}
"""Column -> preset and overrides. "no speed" keeps both views and their crops, at speed 1."""
HEADLINE = {
    "same recording, R@1, a → v": "retrieval.instance.a2v.r1",
    "same recording, R@1, v → a": "retrieval.instance.v2a.r1",
    "same recording, R@5, a → v": "retrieval.instance.a2v.r5",
    "same recording, R@5, v → a": "retrieval.instance.v2a.r5",
    "same class, R@1, a → v": "retrieval.class.a2v.r1",
    "same class, R@1, v → a": "retrieval.class.v2a.r1",
}
CONTROLS = {
    "stills only: same recording, R@1, a → v": "control.static.instance.a2v.r1",
    "stills only: same recording, R@1, v → a": "control.static.instance.v2a.r1",
    "sound swapped in class: R@1, a → v": "control.swap.instance.a2v.r1",
    "sound swapped in class: R@1, v → a": "control.swap.instance.v2a.r1",
    "class alone: R@1, a → v": "control.swap.expected.a2v.r1",
    "class alone: R@1, v → a": "control.swap.expected.v2a.r1",
}
RATIOS = {
    "stills only / model": "control.static.ratio",
    "swapped / class alone": "control.swap.ratio",
    "model / class alone": "control.swap.lift",
}


def main(argv: Sequence[str] | None = None) -> int:
    options = parser().parse_args(argv)
    results: dict[str, list[Figures]] = {name: [] for name in VARIANTS}
    for seed in options.seeds:
        for name in VARIANTS:
            figures = result(name, seed, options.runs, options.overrides)
            if figures is None:
                print(
                    f"demo-table: {name}, seed {seed} did not finish; run this again to go on",
                    file=sys.stderr,
                )
                return 1
            results[name].append(figures)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(page(results, options.seeds, options.overrides))
    print(f"{options.out.read_text()}\nwritten to {options.out}")
    return 0


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make demo-table", description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--runs", type=Path, default=Path("runs/demo-table"))
    parser.add_argument("--out", type=Path, default=Path("docs/demo-table.md"))
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="for every training")
    return parser


def result(name: str, seed: int, runs: Path, overrides: Sequence[str]) -> Figures | None:
    """The figures of one training, which is run unless the same command left them there; None if it fails."""
    out = runs / f"{name.lower().replace(' ', '-')}-{seed}"
    return figures_of(training(name, seed, out, overrides), out)


def training(name: str, seed: int, out: Path, overrides: Sequence[str] = ()) -> list[str]:
    """The command of one training."""
    preset, *own = VARIANTS[name]
    return ["coaug", "train", preset, *own, f"train.seed={seed}", EVALUATED, *overrides, "--out", str(out)]


def page(
    results: Mapping[str, Sequence[Figures]], seeds: Sequence[int], overrides: Sequence[str] = ()
) -> str:
    """The Markdown page."""
    given = [
        *(["--seeds", *map(str, seeds)] if list(seeds) != SEEDS else []),
        *(["--", *overrides] if overrides else []),
    ]
    arguments = f' ARGS="{" ".join(given)}"' if given else ""
    commands = (line(training(name, seeds[0], Path("runs/demo-table/…"), overrides)) for name in results)
    paragraphs = [
        "# Demo set: speed, weights and controls",
        f"`make demo-table{arguments}`, on {os.cpu_count()} cores. {over(seeds)}; held-out files, one entry a "
        "recording, in per cent.",
        markdown(["", *results, "chance"], rows(HEADLINE, results, 100)),
        "Controls: retrieval from the mean picture and the mean spectrum of a recording alone; with its sound swapped "
        "for another's of its class; and what is left of the model's ranking if the members of a class are shuffled.",
        markdown(["", *results, "chance"], rows(CONTROLS, results, 100)),
        "R@1 of the same recording as ratios (of two directions the one less in the model's favour):",
        markdown(["", *results], [cells[:-1] for cells in rows(RATIOS, results, 1)]),
        "Each column is one of these commands for every seed:",
        "\n".join(f"    {command}" for command in commands),
    ]
    return "\n\n".join(text.rstrip("\n") for text in paragraphs) + "\n"


def rows(
    keys: Mapping[str, str], results: Mapping[str, Sequence[Figures]], scale: float
) -> Iterator[list[str]]:
    """A line for every figure that all runs have: its name, a cell a column, chance."""
    runs = [figures for column in results.values() for figures in column]
    for name, key in keys.items():
        if all(key in figures for figures in runs):
            columns = ([scale * figures[key] for figures in column] for column in results.values())
            yield [name, *(spread(values, 1 if scale > 1 else 2) for values in columns), chance(runs[0], key)]


def chance(figures: Figures, key: str) -> str:
    """Chance of a figure, in per cent: that of the same gallery and k."""
    _, kind, *_, k = key.split(".")
    value = figures.get(f"retrieval.{'class' if kind == 'class' else 'instance'}.chance.{k}")
    return "" if value is None else f"{100 * value:.1f}"


if __name__ == "__main__":
    sys.exit(main())
