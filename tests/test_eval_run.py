"""Evaluation from files to figures, from a run's folder, with the real loader."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from media import write_clip

from coaug.config import dump
from coaug.engine import run_config
from coaug.engine.parts import build_method
from coaug.eval import evaluate, evaluate_run
from coaug.eval.subject import EvalError
from coaug.pipelines.catalog import Catalog
from coaug.pipelines.index import index

SMALL = ("train.workers=0", "eval.clips=2", "eval.batch=4", "eval.evaluators=[retrieval,control]",
         "model.width=2", "model.hidden=8", "model.projection=4", "data.video.size=32")  # fmt: skip


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """Six recordings of two classes to test on, two to train on."""
    root = tmp_path_factory.mktemp("films")
    for i, place in enumerate(["test/a"] * 3 + ["test/b"] * 3 + ["train/a", "train/b"]):
        (root / place).mkdir(parents=True, exist_ok=True)
        write_clip(root / place / f"{i}.mp4", frames=45 + i)
    index([root], root / "films.parquet")
    return Catalog.open(root / "films.parquet")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was never trained."""
    folder = tmp_path_factory.mktemp("runs") / "x"
    config = run_config.load("svaclr-demo", SMALL)
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").write_text(dump(config))
    torch.manual_seed(0)
    method = build_method(config, torch.device("cpu"))
    torch.save({"step": 3, "method": method.state_dict()}, folder / "checkpoints" / "step-00000003.pt")
    return folder


def test_a_run_is_evaluated_from_its_folder(
    run: Path, catalog: Catalog, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = evaluate_run(run, catalog.path)
    assert figures["retrieval.instance.chance.r1"] == pytest.approx(1 / 6)
    assert figures["retrieval.class.chance.r1"] == pytest.approx(3 / 6)
    assert figures["retrieval.class.a2v.r20"] == 1.0  # more neighbours than recordings
    assert json.loads((run / "eval.json").read_text()) == figures
    assert "same recording" in capsys.readouterr().out
    config = run_config.load(run / "config.yaml")
    method = build_method(config, torch.device("cpu"))
    method.load_state_dict(torch.load(run / "checkpoints" / "step-00000003.pt")["method"])
    assert evaluate(method, catalog, config, torch.device("cpu")) == pytest.approx(figures)


def test_a_run_that_does_not_know_its_catalog_asks_for_one(run: Path, tmp_path: Path) -> None:
    with pytest.raises(EvalError, match="does not say which catalog it was trained on; name one with --data"):
        evaluate_run(run)
    (run / "catalog.txt").write_text(str(tmp_path / "gone.parquet"))
    with pytest.raises(EvalError, match=r"gone.parquet is gone; name one with --data"):
        evaluate_run(run)


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(EvalError, match="is not the folder of a run"):
        evaluate_run(tmp_path)


def test_a_run_without_a_checkpoint(run: Path, catalog: Catalog, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text((run / "config.yaml").read_text())
    with pytest.raises(EvalError, match="no checkpoint"):
        evaluate_run(tmp_path, catalog.path)


def test_a_split_that_does_not_exist(run: Path, catalog: Catalog) -> None:
    config = run_config.load(run / "config.yaml")
    changed = run_config.load("svaclr-demo", (*SMALL, "eval.split=valid"))
    method = build_method(config, torch.device("cpu"))
    assert evaluate(method, catalog, changed, torch.device("cpu")) == {}
