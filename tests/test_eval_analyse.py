"""Examples of agreement against loops, and `coaug analyse` from a run's folder to its page and pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
import torch
from media import write_clip
from test_eval_memory import bank
from torch.nn import functional as F

from coaug.cli import main
from coaug.config import dump
from coaug.engine import run_config
from coaug.engine.parts import build_method
from coaug.eval.analyse import analyse, positives_of
from coaug.eval.examples import examples, references
from coaug.eval.plots import calibration_figure, precision_figure, random_pairs
from coaug.eval.subject import EvalError
from coaug.eval.thumbs import thumbs
from coaug.pipelines.catalog import Catalog
from coaug.pipelines.index import index

SMALL = ("train.workers=0", "model.width=2", "model.head=[8,8,6]", "model.negatives=4", "data.video.size=32")


def test_examples_are_those_of_a_loop() -> None:
    given, positives = bank(), 9
    video, audio = (x.double() @ x.double().T for x in (given.video, given.audio))
    for example in examples(given, [0, 17, 59], positives, each=3):
        row = example.row
        others = [j for j in range(len(given)) if j != row]
        agreed = sorted(others, key=lambda j: -min(video[row, j], audio[row, j]))[:positives]
        assert [n.row for n in example.taken] == agreed[:3]
        for found, scores in ((example.sight, video), (example.sound, audio)):
            nearest = sorted((j for j in others if j not in agreed), key=lambda j: -scores[row, j])
            assert [n.row for n in found] == nearest[:3]
        for n in (*example.taken, *example.sight, *example.sound):
            assert (n.video, n.audio) == pytest.approx(
                (video[row, n.row].item(), audio[row, n.row].item()), abs=1e-6
            )


def test_examples_of_a_memory_smaller_than_what_is_asked_for() -> None:
    (example,) = examples(bank(4), [1], 3, each=5)
    assert sorted(n.row for n in example.taken) == [0, 2, 3]
    assert example.sight == example.sound == []


def test_references_are_of_different_classes_while_there_are_any() -> None:
    given = bank()
    shown = references(given, 6, seed=1)
    assert sorted(given.label[shown].tolist()) == list(range(6))
    assert shown != references(given, 6, seed=2)
    assert len(set(references(given, 20))) == 20
    nameless = bank(5)
    nameless.label.fill_(-1)
    assert sorted(references(nameless, 9)) == [0, 1, 2, 3, 4]


def test_plots_show_the_figures() -> None:
    curves = {"agreement": {1: 0.9, 2: 0.8}, "video": {1: 0.5, 2: 0.4}}
    axes = precision_figure(curves, 0.1).axes[0]
    drawn = {line.get_label(): list(line.get_ydata()) for line in axes.get_lines()}  # type: ignore[arg-type]
    assert drawn == {"agreement": [90.0, 80.0], "video": [50.0, 40.0], "chance": [10.0, 10.0]}
    given = bank(offset=1.0)
    i, j = random_pairs(len(given))
    assert (i != j).all()
    assert torch.bincount(i).min() > 0
    legend = calibration_figure(given).axes[0].get_legend()
    assert legend is not None
    names = [text.get_text() for text in legend.get_texts()]
    own = F.cosine_similarity(given.video, given.audio).mean()
    assert names[-1] == f"picture, its own sound: mean {float(own):.2f}"


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    root = tmp_path_factory.mktemp("films")
    for i, place in enumerate(["train/a", "train/b"] * 4):
        (root / place).mkdir(parents=True, exist_ok=True)
        write_clip(root / place / f"{i}.mp4", frames=90)
    index([root], root / "films.parquet")
    return Catalog.open(root / "films.parquet")


def run_of(folder: Path, preset: str, catalog: Catalog, *overrides: str) -> Path:
    """The folder of a run that was never trained, but remembers the catalog where its method remembers."""
    config = run_config.load(preset, overrides)
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").write_text(dump(config))
    (folder / "catalog.txt").write_text(str(catalog.path))
    method = build_method(config, torch.device("cpu"), catalog.ids)
    state: dict[str, Any] = {"step": 3, "method": method.state_dict(), "memory": method.memory_state()}
    torch.save(state, folder / "checkpoints" / "step-00000003.pt")
    return folder


def test_a_run_is_analysed_from_its_folder(
    catalog: Catalog, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_of(tmp_path / "x", "avid-demo", catalog, *SMALL)
    assert main(["analyse", str(run), "--recordings", "2"]) == 0
    names = ["analysis.md", "calibration.png", "precision.png", "positives.png"]
    assert capsys.readouterr().out.split() == [str(run / "analysis" / name) for name in names]
    page = (run / "analysis" / "analysis.md").read_text()
    assert "8 recordings, 8 of them labelled" in page
    assert "| agreement |" in page
    assert sum(recording.key in page for recording in catalog) >= 6  # two, and four or more neighbours each
    for name in names[1:]:
        assert f"({name})" in page
        image = matplotlib.image.imread(run / "analysis" / name)
        assert image.std() > 0.05


def test_thumbs_are_of_the_recordings_that_were_asked_for(catalog: Catalog) -> None:
    data = run_config.load("avid-demo", SMALL).data
    found = thumbs(catalog, [5, 2, 5], data)
    assert set(found) == {int(catalog.ids[2]), int(catalog.ids[5])}
    for thumb in found.values():
        assert thumb.frame is not None
        assert thumb.spectrum is not None
        assert thumb.frame.shape == (32, 32, 3)
        assert thumb.frame.dtype == np.uint8
        assert thumb.frame.std() > 10
        assert thumb.spectrum.shape == data.audio.shape


def test_a_catalog_of_other_recordings_and_a_method_that_remembers_none(
    catalog: Catalog, tmp_path: Path
) -> None:
    plain = run_of(tmp_path / "plain", "svaclr-demo", catalog)
    with pytest.raises(EvalError, match="its method, svaclr, remembers no recordings"):
        analyse(plain)
    (tmp_path / "other").mkdir()
    write_clip(tmp_path / "other" / "film.mp4", frames=90)
    index([tmp_path / "other"], tmp_path / "other.parquet")
    run = run_of(tmp_path / "x", "avid-demo", catalog, *SMALL)
    with pytest.raises(EvalError, match=r"none of its 8 remembered recordings is in .*other.parquet"):
        analyse(run, data=tmp_path / "other.parquet")


def test_recordings_without_labels_have_no_precision(catalog: Catalog, tmp_path: Path) -> None:
    for i, recording in enumerate(catalog):
        (tmp_path / "flat").mkdir(exist_ok=True)
        (tmp_path / "flat" / f"{i}.mp4").symlink_to(recording.path)
    index([tmp_path / "flat"], tmp_path / "flat.parquet")
    flat = Catalog.open(tmp_path / "flat.parquet")
    written = analyse(run_of(tmp_path / "x", "avid-demo", flat, *SMALL), tmp_path / "out")
    assert [path.name for path in written] == ["analysis.md", "calibration.png", "positives.png"]
    assert "precision" not in written[0].read_text()


@pytest.mark.parametrize(("count", "positives"), [(2, 1), (400, 25), (100_000, 32)])
def test_a_small_memory_has_fewer_positives(count: int, positives: int) -> None:
    assert positives_of(count) == positives
