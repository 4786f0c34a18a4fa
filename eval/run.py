"""Evaluate a finished run from its folder: `coaug eval RUN [--data CATALOG]`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import torch

from ..engine import run_config
from ..engine.checkpoint import Checkpoints
from ..engine.folder import write_json
from ..engine.parts import build_method
from ..engine.run_config import RunConfig
from ..models.method import Method
from ..pipelines.catalog import Catalog
from . import evaluate
from .subject import EvalError
from .table import show

CATALOG = "catalog.txt"
"""File of a run's folder that holds the path of the catalog it was trained on."""


def evaluate_run(run: Path, data: Path | None = None) -> dict[str, float]:
    """The figures of the newest readable checkpoint in `run`, printed and written to `run`/eval.json.

    Args:
        run: folder with `config.yaml` and `checkpoints/`.
        data: catalog to evaluate on; None is the one of training.

    Raises:
        EvalError: no run, no checkpoint, or no catalog to be found.
        TrainError: no checkpoint can be read.
    """
    opened = open_run(run, data)
    config, catalog = opened.config, opened.catalog
    figures = evaluate(opened.method, catalog, config, opened.device)
    if not figures:
        raise EvalError(f"{catalog.path}: nothing to evaluate in split {config.eval.split!r}")
    write_json(run / "eval.json", figures)
    show(figures)
    return figures


@dataclass(frozen=True)
class OpenedRun:
    """A finished run: its newest readable checkpoint's method on `device`, and the recordings to ask it about."""

    folder: Path
    config: RunConfig
    catalog: Catalog
    method: Method
    device: torch.device


def open_run(run: Path, data: Path | None = None) -> OpenedRun:
    """The run of a folder with `config.yaml` and `checkpoints/`. Arguments and errors as for `evaluate_run`."""
    config, device = _config(run), torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", torch.cuda.current_device())
    catalog = Catalog.open(data or _own_catalog(run))
    return OpenedRun(run, config, catalog, _method(run, config, device), device)


def _config(run: Path) -> RunConfig:
    path = run / "config.yaml"
    if not path.is_file():
        raise EvalError(f"{run} is not the folder of a run: it holds no config.yaml")
    config = run_config.load(path)
    plain = dataclasses.replace(config.train, compile=False, sync_batch_norm=False)  # for training only
    return dataclasses.replace(config, train=plain)


def _own_catalog(run: Path) -> Path:
    note = run / CATALOG
    path = Path(note.read_text().strip()) if note.is_file() else None
    if path is None or not path.is_file():
        where = f"its catalog {path} is gone" if path else "it does not say which catalog it was trained on"
        raise EvalError(f"{run}: {where}; name one with --data")
    return path


def _method(run: Path, config: RunConfig, device: torch.device) -> Method:
    saved = Checkpoints(run / "checkpoints", config.train.checkpoint_every, config.train.keep, 1)
    state = saved.newest(lambda message: print(f"coaug eval: {message}"))
    if state is None:
        raise EvalError(f"{run}: no checkpoint in {saved.folder}")
    method = build_method(config, device)
    method.load_state_dict(state["method"])
    method.load_memory_state(state.get("memory", {}))
    return method
