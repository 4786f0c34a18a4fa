"""The `coaug` command: one verb a line below, one function each. Heavy imports wait until a verb needs them."""

from __future__ import annotations

import argparse
import hashlib
import logging
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from . import __version__
from .config import ConfigError, presets

DEMO = Path("data/demo")
HOLDOUT = 0.1  # share of a folder without a test split that is kept for evaluation
DEVELOPMENT = {  # verbs that need a checkout
    "test": ["-m", "pytest"],
    "lint": ["-m", "ruff", "check"],
    "type-check": ["-m", "mypy"],
    "gpu-check": ["benchmarks/gpu_check.py"],
    "bench": ["benchmarks/loader.py"],
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb; returns the exit status. What a user did wrong is one line on stderr and status 2."""
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")
    words = list(sys.argv[1:] if argv is None else argv)
    if words and words[0] in DEVELOPMENT:
        return _development(words[0], words[1:])
    options = parser().parse_intermixed_args(words)
    try:
        return int(options.run(options))
    except KeyboardInterrupt:
        print(f"coaug {options.verb}: interrupted", file=sys.stderr)
        return 130
    except (ValueError, RuntimeError, OSError) as error:
        if not _for_the_user(error):
            raise
        print(f"coaug {options.verb}: {error}", file=sys.stderr)
        return 2


def _for_the_user(error: Exception) -> bool:
    """Whether the message says it all: errors of our own, and the system's about files."""
    return isinstance(error, OSError) or type(error).__module__.startswith("coaug.")


def parser() -> argparse.ArgumentParser:
    """All verbs and their options."""
    top = argparse.ArgumentParser(
        prog="coaug", description="Audio-visual self-supervised pre-training: two streams, one clock."
    )
    top.add_argument("--version", action="version", version=f"coaug {__version__}")
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")
    for add in (_add_train, _add_index, _add_eval, _add_view, _add_doctor):
        add(verbs)
    for name, command in DEVELOPMENT.items():
        verbs.add_parser(name, help=f"in a checkout: python {' '.join(command)}", add_help=False)
    return top


Verbs = "argparse._SubParsersAction[argparse.ArgumentParser]"


def _add_train(verbs: Verbs) -> None:
    verb = verbs.add_parser("train", help="pre-train a method, evaluate it, print its retrieval table")
    verb.add_argument("method", help=f"a preset ({', '.join(presets())}) or a YAML file")
    verb.add_argument("overrides", nargs="*", metavar="key=value", help="such as optim.lr=0.1")
    verb.add_argument("--data", type=Path, help="folder of media files, or a catalog; default: a generated demo set")
    verb.add_argument("--out", type=Path, help="folder of the run (default: runs/METHOD)")
    verb.add_argument("--gpus", type=int, help="GPUs in all (default: those of this machine, or the CPU)")
    verb.add_argument("--procs", type=int, help="processes on the CPU instead")
    verb.add_argument("--resume", action="store_true", help="go on from the newest checkpoint")
    verb.add_argument("--print-config", action="store_true", help="print the final config and stop")
    verb.set_defaults(run=_train)


def _train(options: argparse.Namespace) -> int:
    from .engine.launch import launch
    from .engine.log import say

    name, overrides = options.method, list(options.overrides)
    if options.print_config:
        return launch([_sized(name, options.data), *overrides, "--print-config"], gpus=0)
    catalog = _catalog_of(options.data, progress=True)
    preset = _sized(name, options.data)
    if preset != name:
        say(f"using the preset {preset}, made for a CPU (name another one, or a YAML file, to change that)")
    overrides = [*_fitting_batch(preset, overrides, catalog, say), *overrides]
    out = options.out or Path("runs") / Path(name).stem
    arguments = [preset, *overrides, "--data", str(catalog), "--out", str(out)]
    return launch([*arguments, *(["--resume"] if options.resume else [])], options.gpus, options.procs)


def _sized(name: str, data: Path | None) -> str:
    """The preset to train: its small twin for the demo set, and on a machine without a GPU."""
    from torch import cuda

    small = f"{name}-demo"
    return small if small in presets() and (data is None or not cuda.is_available()) else name


def _catalog_of(data: Path | None, progress: bool) -> Path:
    """The catalog to train on: `data` itself, a folder's, or the demo set's; probed where that is needed."""
    from .pipelines.index import index

    if data is None:
        from .pipelines.demo import write_demo

        data = write_demo(DEMO, progress=progress)
    if data.is_file():
        return data
    known = hashlib.blake2b(str(data.resolve()).encode(), digest_size=4).hexdigest()
    catalog = Path("data") / "catalogs" / f"{data.resolve().name}-{known}.parquet"
    index([data], catalog, progress=progress, holdout=HOLDOUT)
    return catalog


def _fitting_batch(preset: str, overrides: list[str], catalog: Path, say: object) -> list[str]:
    """A batch that the recordings can fill, unless the user chose one."""
    from .engine import run_config
    from .pipelines.catalog import Catalog

    config = run_config.load(preset, overrides)
    usable = Catalog.open(catalog).where(config.train.split, config.data.modalities, config.data.seconds)
    if len(usable) >= config.train.batch or any(o.startswith("train.batch=") for o in overrides):
        return []
    batch = max(2, 1 << (len(usable).bit_length() - 1))
    print(f"{len(usable)} recordings: train.batch={batch} instead of {config.train.batch}", file=sys.stderr)
    return [f"train.batch={batch}"]


def _add_index(verbs: Verbs) -> None:
    verb = verbs.add_parser("index", help="probe folders of media files once, and write their catalog")
    verb.add_argument("roots", nargs="+", metavar="ROOT", help="folder or file; ROOT=2.0 weighs it twice")
    verb.add_argument("--out", type=Path, default=Path("catalog.parquet"), help="default: catalog.parquet")
    verb.add_argument("--format", default="folder", help="how labels and splits are found (default: folder)")
    verb.add_argument("--modalities", default="video,audio", help="video,audio (default), video, audio or any")
    verb.add_argument("--segments", type=Path, help="CSV: path,start,end[,label][,split][,id]")
    verb.add_argument("--segment-seconds", type=float, help="cut long recordings into pieces")
    verb.add_argument("--holdout", type=float, default=0.0, help="share without a split that becomes `test`")
    verb.add_argument("--workers", type=int, help="probing processes (default: one per core)")
    verb.add_argument("--restart", action="store_true", help="probe everything again")
    verb.set_defaults(run=_index)


def _index(options: argparse.Namespace) -> int:
    from .pipelines.index import index

    modalities = "any" if options.modalities == "any" else tuple(options.modalities.split(","))
    index(
        options.roots,
        options.out,
        label_format=options.format,
        workers=options.workers,
        modalities=modalities,
        segment_seconds=options.segment_seconds,
        segments=options.segments,
        holdout=options.holdout,
        resume=not options.restart,
    )
    return 0


def _add_eval(verbs: Verbs) -> None:
    verb = verbs.add_parser("eval", help="evaluate a trained run again, or on other data")
    verb.add_argument("folder", type=Path, metavar="RUN", help="folder of a run, such as runs/svaclr")
    verb.add_argument("--data", type=Path, help="folder or catalog (default: the one it was trained on)")
    verb.set_defaults(run=_eval)


def _eval(options: argparse.Namespace) -> int:
    from .eval import evaluate_run

    evaluate_run(options.folder, _catalog_of(options.data, progress=True) if options.data else None)
    return 0


def _add_view(verbs: Verbs) -> None:
    verb = verbs.add_parser("view", help="a picture of what a preset makes of a file")
    verb.add_argument("file", type=Path)
    verb.add_argument("overrides", nargs="*", metavar="key=value")
    verb.add_argument("--preset", default="svaclr", help=", ".join(presets()))
    verb.add_argument("--start", type=float, help="seconds (default: the middle)")
    verb.add_argument("--out", type=Path, help="PNG to write (default: FILE's name, here)")
    verb.set_defaults(run=_view)


def _view(options: argparse.Namespace) -> int:
    from .eval.view import view

    print(view(options.file, options.preset, options.out, options.start, options.overrides))
    return 0


def _add_doctor(verbs: Verbs) -> None:
    verb = verbs.add_parser("doctor", help="what works on this machine, and what to do about the rest")
    verb.set_defaults(run=_doctor)


def _doctor(options: argparse.Namespace) -> int:
    from .doctor import doctor

    return doctor()


def _development(verb: str, arguments: Sequence[str]) -> int:
    """A developer's verb, run by this interpreter in the checkout that holds this package."""
    checkout = Path(__file__).resolve().parents[2]
    if not (checkout / "Makefile").is_file():
        print(f"coaug {verb}: works in a checkout of the repository only", file=sys.stderr)
        return 2
    return subprocess.call([sys.executable, *DEVELOPMENT[verb], *arguments], cwd=checkout)


if __name__ == "__main__":
    sys.exit(main())
