"""The `coaug` command: one verb a function. Heavy imports wait until a verb needs them."""

from __future__ import annotations

import hashlib
import logging
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option
from typer.exceptions import Abort, Exit, TyperException

from . import __version__
from .config import presets
from .models import METHODS

if TYPE_CHECKING:
    from .engine.run_config import RunConfig

DEMO, CATALOGS = Path("data/demo"), Path("data/catalogs")
PACKED = "pack.json"  # what tells a pack from a folder of media files
HOLDOUT = 0.1  # share of a folder without a test split that is kept for evaluation
DEVELOPMENT = {  # verb -> what this interpreter runs in a checkout
    "test": ["-m", "pytest"],
    "lint": ["-m", "ruff", "check"],
    "type-check": ["-m", "mypy"],
    "gpu-check": ["benchmarks/gpu_check.py"],
    "bench": ["benchmarks/loader.py"],
}
Overrides = Annotated[list[str] | None, Argument(metavar="[key=value]...", help="such as optim.lr=0.1")]

app = typer.Typer(
    name="coaug",
    help="Audio-visual self-supervised pre-training: two streams, one clock.",
    add_completion=False,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb; returns the exit status. What a user did wrong is one line on stderr and status 2."""
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")
    try:
        return int(app(argv, standalone_mode=False) or 0)
    except (Abort, KeyboardInterrupt):
        return _complain("interrupted", 130)
    except Exit as done:
        return done.exit_code
    except TyperException as error:
        said = getattr(error, "format_message", error.__str__)  # names the option, too
        return _complain(said())
    except (ValueError, RuntimeError, OSError) as error:
        if not isinstance(error, OSError) and not type(error).__module__.startswith("coaug."):
            raise  # not a message for the user, but a bug: show all of it
        return _complain(str(error))


def _complain(message: str, status: int = 2) -> int:
    print(f"coaug: {message}", file=sys.stderr)
    return status


@app.callback(invoke_without_command=True)
def _top(version: Annotated[bool, Option("--version", help="print the version")] = False) -> None:
    if version:
        print(f"coaug {__version__}")
        raise Exit


@app.command()
def train(
    method: Annotated[str, Argument(help=f"a method ({', '.join(METHODS)}) or a YAML file")],
    overrides: Overrides = None,
    data: Annotated[
        str | None,
        Option(help="folder of media files, a pack, or a catalog; default: a demo set is generated"),
    ] = None,
    out: Annotated[Path | None, Option(help="folder of the run; default: runs/METHOD")] = None,
    gpus: Annotated[
        int | None, Option(min=0, help="GPUs in all; default: this machine's, or its CPU")
    ] = None,
    procs: Annotated[int | None, Option(min=1, help="processes on the CPU instead")] = None,
    init: Annotated[
        Path | None, Option(help="begin from another run's folder, or from a checkpoint of the authors'")
    ] = None,
    resume: Annotated[bool, Option("--resume", help="go on from the newest checkpoint")] = False,
    print_config: Annotated[bool, Option("--print-config", help="print the config and stop")] = False,
) -> int:
    """Pre-train a method, evaluate it and print its retrieval table."""
    from .engine.launch import launch
    from .engine.run_config import load

    preset, given = _sized(method, data, gpus), overrides or []
    if print_config:
        return launch([preset, *given, "--print-config"], gpus=0)
    config = load(preset, given)  # what is wrong with it is said before anything is probed or generated
    catalog = _catalog_of(data)
    if preset != method:
        print(
            f"preset {preset}, made for a CPU; a YAML file of your own overrides this choice", file=sys.stderr
        )
    given = [*_fitting_batch(config, given, catalog), *given]
    arguments = [
        preset,
        *given,
        "--data",
        str(catalog),
        "--out",
        str(out or Path("runs") / Path(method).stem),
    ]
    begin = ["--init", str(init)] if init else []
    return launch([*arguments, *begin, *(["--resume"] if resume else [])], gpus, procs)


def _sized(method: str, data: str | None, gpus: int | None) -> str:
    """The preset to train: its small twin for the demo set, and on a CPU; `gpus` may be other machines'."""
    if f"{method}-demo" not in presets():
        return method
    from torch import cuda

    large = data is not None and (cuda.is_available() if gpus is None else gpus > 0)
    return method if large else f"{method}-demo"


def _catalog_of(data: str | Path | None) -> Path:
    """The catalog to work on: `data` itself, a folder's, a pack's, or the demo set's; probed where that is needed."""
    from .pipelines.index import index

    if data is None:
        from .pipelines.demo import write_demo

        data = write_demo(DEMO)
    if "://" in str(data):
        from .pipelines.packed.remote import fetched

        return fetched(str(data), CATALOGS)
    data = Path(data)
    if (data / PACKED).is_file():
        return data / "catalog.parquet"
    if data.suffix == ".parquet":
        return data
    name = hashlib.blake2b(str(data.resolve()).encode(), digest_size=4).hexdigest()
    catalog = CATALOGS / f"{data.resolve().name}-{name}.parquet"
    index([data], catalog, holdout=HOLDOUT)
    return catalog


def _fitting_batch(config: RunConfig, overrides: list[str], catalog: Path) -> list[str]:
    """An override for a batch that the recordings can fill, unless the user chose one."""
    from .pipelines.catalog import Catalog

    usable = Catalog.open(catalog).where(
        config.train.split, config.data.modalities, config.data.needed_seconds
    )
    if len(usable) >= config.train.batch or any(o.startswith("train.batch=") for o in overrides):
        return []
    batch = 1 << max(len(usable).bit_length() - 1, 0)
    print(f"{len(usable)} recordings: train.batch={batch} instead of {config.train.batch}", file=sys.stderr)
    return [f"train.batch={batch}"]


@app.command()
def index(
    roots: Annotated[
        list[str], Argument(metavar="ROOT...", help="folder or file; ROOT=2.0 gives it weight 2")
    ],
    out: Annotated[Path, Option(help="the catalog to write")] = Path("catalog.parquet"),
    format: Annotated[str, Option(help="how labels and splits are found")] = "folder",
    modalities: Annotated[str, Option(help="video,audio, video, audio or any")] = "video,audio",
    segments: Annotated[
        Path | None,
        Option(help="CSV: path,start,end[,label][,split][,id]"),
    ] = None,
    segment_seconds: Annotated[float | None, Option(min=0.1, help="cut long recordings into pieces")] = None,
    holdout: Annotated[
        float, Option(min=0.0, max=1.0, help="share without a split that becomes `test`")
    ] = 0.0,
    workers: Annotated[int | None, Option(min=1, help="probing processes; default: one per core")] = None,
    restart: Annotated[bool, Option("--restart", help="probe everything again")] = False,
) -> None:
    """Probe folders of media files once, in parallel, and write their catalog."""
    from .pipelines import index as room
    from .pipelines.table import CatalogError

    wanted = modalities.split(",")
    if wanted != ["any"] and not set(wanted) <= {"video", "audio"}:
        raise CatalogError(f"--modalities {modalities}: write video,audio or video or audio or any")
    room.index(
        roots,
        out,
        label_format=format,
        modalities="any" if wanted == ["any"] else tuple(wanted),  # type: ignore[arg-type]
        segments=segments,
        segment_seconds=segment_seconds,
        holdout=holdout,
        workers=workers,
        resume=not restart,
    )


@app.command()
def pack(
    data: Annotated[str, Argument(metavar="CATALOG", help="a catalog, or a folder of media files")],
    out: Annotated[Path, Argument(metavar="OUT", help="folder of the shards and of their catalog")],
    video: Annotated[str, Option(help="layered, h264, mjpeg or copy")] = "layered",
    size: Annotated[str, Option(help="the shorter side, or WIDTHxHEIGHT; multiples of 16")] = "128",
    keyint: Annotated[int, Option(min=1, help="frames from one key frame to the next")] = 16,
    quality: Annotated[int | None, Option(help="of the codec's scale, less is better")] = None,
    audio: Annotated[str, Option(help="flac or pcm")] = "flac",
    samples: Annotated[int, Option(min=1, help="recordings a shard")] = 256,
    workers: Annotated[int | None, Option(min=1, help="processes; default: one per core")] = None,
) -> None:
    """Pack recordings into shards that cost a fraction of the files to read; goes on where it was ended."""
    from .pipelines.packed.pack import pack as run
    from .pipelines.packed.settings import Packing, size_of

    packing = Packing(video, size_of(size), keyint, quality, audio, samples)
    run(_catalog_of(data), out, packing, workers=workers).show()


@app.command("eval")
def evaluate(
    run: Annotated[Path, Argument(help="folder of a run, such as runs/svaclr")],
    data: Annotated[str | None, Option(help="folder or catalog; default: the run's own")] = None,
) -> None:
    """Evaluate a trained run again, or on other data."""
    from .eval import evaluate_run

    evaluate_run(run, _catalog_of(data) if data else None)


@app.command()
def analyse(
    run: Annotated[Path, Argument(help="folder of a run of a method with a memory, such as runs/avid")],
    out: Annotated[
        Path | None, Option(help="folder of the page and its pictures; default: RUN/analysis")
    ] = None,
    data: Annotated[str | None, Option(help="folder or catalog; default: the run's own")] = None,
    recordings: Annotated[int, Option(min=1, help="rows of the contact sheet")] = 8,
) -> None:
    """Show what a run remembers: similarities, precision of positive sets, positives and rejected recordings."""
    from .eval.analyse import analyse as write

    for path in write(run, out, _catalog_of(data) if data else None, recordings=recordings):
        print(path)


@app.command()
def view(
    file: Annotated[Path, Argument(help="a video, a silent film or a sound")],
    overrides: Overrides = None,
    preset: Annotated[str, Option(help=", ".join(presets()))] = "svaclr",
    recipe: Annotated[
        list[str] | None,
        Option(help='shown instead of the preset\'s views, such as "speed(2) | shift(0.5)"; may be repeated'),
    ] = None,
    seed: Annotated[int, Option(min=0, help="of all that is drawn")] = 0,
    start: Annotated[float | None, Option(help="seconds; default: drawn, or the middle for recipes")] = None,
    out: Annotated[Path | None, Option(help="sheet to write: .png, .pdf or .svg")] = None,
    mp4: Annotated[Path | None, Option(help="also write the clips, to look at and to listen to")] = None,
) -> None:
    """Show what a preset, or recipes, make of a file: frames, sound and spectrogram of every view on one time axis."""
    from .eval.view import view as draw

    for path in draw(file, preset, out, start, overrides or [], recipes=recipe or (), seed=seed, mp4=mp4):
        print(path)


@app.command()
def stats(
    data: Annotated[str, Argument(metavar="CATALOG", help="a catalog, or a folder of media files")],
    overrides: Overrides = None,
    preset: Annotated[str, Option(help=", ".join(presets()))] = "avid",
    out: Annotated[Path, Option(help="JSON to write")] = Path("stats.json"),
    clips: Annotated[int, Option(min=2, help="clips to listen to")] = 2048,
    split: Annotated[str, Option(help="recordings to draw them from")] = "train",
    workers: Annotated[
        int | None, Option(min=0, help="source processes; default: one per core, at most 8")
    ] = None,
) -> None:
    """Compute mean and deviation of every band of a preset's spectrogram over a training set."""
    from .config import build, read
    from .pipelines.config import DataConfig
    from .pipelines.stats import measure

    config = build(DataConfig, read(preset, overrides or []).get("data", {}), "data.")
    found = measure(_catalog_of(data), config, out, clips=clips, split=split, workers=workers)
    print(f"{out}: {found['bands']} bands over {clips} clips; to use it: data.audio.stats={out}")


@app.command()
def doctor() -> int:
    """Say what works on this machine, and what to do about the rest."""
    from .doctor import doctor as examine

    return examine()


def _development(verb: str) -> Callable[[typer.Context], int]:
    def run(context: typer.Context) -> int:
        checkout = Path(__file__).resolve().parents[2]
        if not (checkout / "Makefile").is_file():
            return _complain(f"{verb}: works in a checkout of the repository only")
        return subprocess.call([sys.executable, *DEVELOPMENT[verb], *context.args], cwd=checkout)

    run.__doc__ = f"In a checkout: python {' '.join(DEVELOPMENT[verb])}."
    return run


for _verb in DEVELOPMENT:  # their options belong to the program that runs
    settings = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
    app.command(_verb, context_settings=settings)(_development(_verb))


if __name__ == "__main__":
    sys.exit(main())
