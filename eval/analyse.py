"""`coaug analyse RUN`: what a memory knows, as plots, a contact sheet and a page (AVID, Table 2, Fig. 6b and 7)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure

from ..pipelines.catalog import Catalog
from .bank import Bank, bank_of, places_of
from .examples import Example, examples, references
from .examples_sheet import draw
from .grids import grids
from .memory import calibrated, classified, precise
from .plots import calibration_figure, precision_figure
from .precision import EXPANSIONS
from .run import OpenedRun, open_run
from .subject import EvalError
from .table import markdown
from .thumbs import thumbs

POSITIVES = 32
"""Positives of a recording, at most: AVID's section 5 has 32, of a memory of 100,000 rows."""
PAGE = "analysis.md"


def analyse(
    run: Path, out: Path | None = None, data: Path | None = None, *, recordings: int = 8
) -> list[Path]:
    """Writes `analysis.md` with its tables and pictures.

    Args:
        run: folder of a run of a method with a memory.
        out: where to; default `run`/analysis.
        data: catalog that holds the remembered recordings; default: the run's own.
        recordings: rows of the contact sheet.

    Returns:
        The files written. Without labels there is no precision; what cannot be read is left blank on the sheet.

    Raises:
        EvalError: the run's method remembers nothing, or nothing of this catalog.
    """
    opened, out = open_run(run, data), out or run / "analysis"
    bank, places = _remembered(opened)
    shown = references(bank, recordings, seed=opened.config.train.seed)
    found = examples(bank, shown, positives_of(len(bank)))
    out.mkdir(parents=True, exist_ok=True)
    figures = dict(_figures(bank, opened.config.train.seed))
    pictures = {
        "calibration.png": calibration_figure(bank),
        **_curves(figures),
        "positives.png": _sheet(found, bank, places, opened),
    }
    for name, picture in pictures.items():
        picture.savefig(out / name)
    (out / PAGE).write_text(page(run, bank, figures, list(pictures), found, opened.catalog))
    return [out / PAGE, *(out / name for name in pictures)]


def positives_of(count: int) -> int:
    """How many positives a recording has in a memory of `count`: fewer in a small one, which holds few of its class."""
    return max(1, min(POSITIVES, count // 16))


def page(
    run: Path,
    bank: Bank,
    figures: dict[str, float],
    pictures: Sequence[str],
    found: Sequence[Example],
    catalog: Catalog,
) -> str:
    """The Markdown page."""
    heads = {
        "calibration.png": "Random pairs of different recordings: within a modality, and across (AVID, Table 2).",
        "precision.png": "Positive sets of four expansions against labels (AVID, Fig. 6b).",
        "positives.png": f"Recordings, those that agree with them (of {positives_of(len(bank))} positives), and those "
        "that are near in one modality and were turned down (AVID, Fig. 7). Frame and spectrogram of the middle of "
        "each; v and a are the cosines of pictures and of sounds; green: the same class.",
    }
    parts = [
        f"# Memory of {run.name}",
        f"{len(bank)} recordings, {int((bank.label >= 0).sum())} of them labelled.",
    ]
    parts += [markdown([grid.corner, *grid.heads], grid.rows) for grid in grids(figures)]
    for name in pictures:
        parts += [heads[name], f"![{name.partition('.')[0]}]({name})"]
    return "\n\n".join(part.rstrip("\n") for part in [*parts, listed(found, bank, catalog)]) + "\n"


def listed(found: Sequence[Example], bank: Bank, catalog: Catalog) -> str:
    """The sheet as a table: keys of recordings, with the similarity of picture / sound."""
    places = places_of(bank.ids, catalog)

    def key(row: int) -> str:
        return catalog[int(places[row])].key if places[row] >= 0 else str(int(bank.ids[row]))

    body = [
        [
            key(e.row),
            *(
                "; ".join(f"{key(n.row)} ({n.video:.2f} / {n.audio:.2f})" for n in g)
                for g in e.groups.values()
            ),
        ]
        for e in found
    ]
    return markdown(["recording", *found[0].groups], body).replace("---:", "---")


def _remembered(opened: OpenedRun) -> tuple[Bank, Sequence[int]]:
    bank = bank_of(opened.method, opened.catalog)
    if bank is None:
        raise EvalError(
            f"{opened.folder}: its method, {opened.config.method}, remembers no recordings; analyses are of a memory"
        )
    places = places_of(bank.ids, opened.catalog)
    if len(bank) < 2 or (places < 0).all():
        raise EvalError(
            f"{opened.folder}: none of its {len(bank)} remembered recordings is in {opened.catalog.path}; name the "
            "catalog of training with --data"
        )
    return bank, places.tolist()


def _figures(bank: Bank, seed: int) -> Iterator[tuple[str, float]]:
    yield from calibrated(bank)
    known = bank.rows(bank.label >= 0)
    if len(known) > 1:
        yield from precise(known, seed)
    if len(torch.unique(known.label)) > 1:
        yield from classified(known, seed)


def _curves(figures: dict[str, float]) -> dict[str, Figure]:
    prefixes = {name: f"memory.precision.{name}.p" for name in EXPANSIONS}
    curves = {
        name: {
            int(key.removeprefix(prefix)): value for key, value in figures.items() if key.startswith(prefix)
        }
        for name, prefix in prefixes.items()
    }
    if not any(curves.values()):
        return {}
    return {"precision.png": precision_figure(curves, figures["memory.precision.chance"])}


def _sheet(found: Sequence[Example], bank: Bank, places: Sequence[int], opened: OpenedRun) -> Figure:
    rows = {row for e in found for row in (e.row, *(n.row for group in e.groups.values() for n in group))}
    seen = thumbs(opened.catalog, [places[row] for row in rows if places[row] >= 0], opened.config.data)
    return draw(found, bank, seen, opened.catalog.label_names)
