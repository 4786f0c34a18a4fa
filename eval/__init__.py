"""Evaluation protocols, one a file. An evaluator is one file here and one line in `EVALUATORS`."""

from __future__ import annotations

import difflib
import importlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from ..engine.run_config import RunConfig
    from ..models.method import Method
    from ..pipelines.catalog import Catalog
    from .subject import Figure, Subject

EVALUATORS = {
    "retrieval": "retrieval:evaluate",
    "control": "control:evaluate",
    "linear": "linear:evaluate",
    "within": "within:evaluate",
    "memory": "memory:evaluate",
}
"""Name -> module and function, imported only when asked for. A function of a `Subject` that yields (key, value)."""


def get_evaluator(name: str) -> Callable[[Subject], Iterator[Figure]]:
    """The evaluator of a name. Raises EvalError with the nearest name for one that does not exist."""
    from .subject import EvalError

    if name not in EVALUATORS:
        near = difflib.get_close_matches(name, EVALUATORS, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(EVALUATORS)}"
        raise EvalError(f"eval.evaluators: unknown evaluator {name!r}; {hint}")
    module, _, function = EVALUATORS[name].partition(":")
    evaluator: Callable[[Subject], Iterator[Figure]]
    evaluator = getattr(importlib.import_module(f".{module}", __name__), function)
    return evaluator


def evaluate(
    method: Method,
    catalog: Catalog,
    config: RunConfig,
    device: torch.device,
    names: Sequence[str] | None = None,
) -> dict[str, float]:
    """The figures of `names` (None: `config.eval.evaluators`) by flat key; the same on every rank (a collective).

    Without a usable recording in `config.eval.split` there are none, and a warning; an evaluator that cannot do its
    work on these data (no labels, a modality missing) is left out with a warning that says why.

    Raises:
        EvalError: an evaluator that does not exist.
        LoaderError: more recordings than the loader tolerates could not be read.
    """
    from ..engine.precision import autocast
    from ..engine.run_config import model_config
    from ..models import get_method
    from .subject import Subject

    evaluators = [get_evaluator(name) for name in (config.eval.evaluators if names is None else names)]
    subject = Subject(
        method,
        catalog,
        config.data,
        device,
        split=config.eval.split,
        train_split=config.train.split,
        clips=config.eval.clips,
        crops=config.eval.crops,
        batch=config.eval.batch,
        workers=config.train.workers,
        autocast=autocast(config.train.precision, device),
        seed=config.train.seed,
        fresh=lambda: get_method(config.method)(model_config(config)),
    )
    if not subject.size(subject.split):
        split = f"split {subject.split!r}" if subject.split else "the catalog"
        logging.getLogger("coaug.eval").warning("nothing evaluated: no usable recording in %s", split)
        return {}
    return dict(_figures(evaluators, subject))


def _figures(
    evaluators: Iterable[Callable[[Subject], Iterator[Figure]]], subject: Subject
) -> Iterator[Figure]:
    from .subject import EvalError

    for evaluator in evaluators:
        try:
            yield from evaluator(subject)
        except EvalError as error:  # at the end of a long training the others' figures are still wanted
            logging.getLogger("coaug.eval").warning("left out: %s", error)


def evaluate_run(run: str | Path, data: str | Path | None = None) -> dict[str, float]:
    """Evaluates a trained run, prints its table and writes `eval.json` into its folder. See `eval.run`."""
    from .run import evaluate_run as evaluate_folder

    return evaluate_folder(Path(run), None if data is None else Path(data))
