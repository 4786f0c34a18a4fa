"""Against the authors' own code: AVID_CMA=<checkout of github.com/facebookresearch/AVID-CMA> pytest, else skipped."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import avid_authors as authors
import pytest
import torch
from avid_published import CODE, ONE, TABLE_9, TWO, near, parts
from torch import Tensor, nn

from coaug.models.avid_checkpoint import load_published, published_state, save_published

pytestmark = pytest.mark.timeout(900)  # the fixture trains a step of networks of full width a dozen times


@pytest.fixture(scope="module")
def written() -> Iterator[Path]:
    """A folder of checkpoints by the authors' code, of ours made from them, and of what their networks give."""
    if not (checkout := os.environ.get("AVID_CMA")):
        pytest.skip("AVID_CMA is not set: the folder of a checkout of github.com/facebookresearch/AVID-CMA")
    with tempfile.TemporaryDirectory() as folder:  # a gigabyte, which pytest would keep
        _run("write", checkout, folder)
        for name, (depth, pools) in authors.CASES.items():
            ours = _loaded(Path(folder), name, depth, pools, torch.float32)
            extras = load_published(Path(folder) / f"{name}.pth.tar", ours)
            save_published(Path(folder) / f"ours-{name}.pth.tar", ours, epoch=7, criterion=extras.criterion)
        _run("read", checkout, folder)
        yield Path(folder)


def _run(task: str, checkout: str, folder: str) -> None:
    subprocess.run([sys.executable, authors.__file__, task, checkout, folder], check=True, timeout=280)


def _loaded(folder: Path, name: str, depth: int, pools: bool, dtype: torch.dtype) -> dict[str, nn.Module]:
    ours = parts(
        {10: ONE, 18: TWO}[depth], width=64, pool=pools, strides=CODE if pools else TABLE_9, dtype=dtype
    )
    load_published(folder / f"{name}.pth.tar", ours)
    return ours


@pytest.mark.parametrize("dtype", authors.DTYPES)
@pytest.mark.parametrize("name", authors.CASES)
def test_outputs_equal_the_authors_networks(written, name, dtype):
    ours = _loaded(written, name, *authors.CASES[name], dtype)
    expected = torch.load(written / f"{name}-results.pt")[dtype]
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    for part in ours.values():
        part.eval()
    for found, wanted in zip(_maps(ours, dtype), expected["maps"], strict=True):
        for theirs in wanted.keys() - {"pool"}:
            near(found[theirs], wanted[theirs], tolerance)
    for mode in ("eval", "train"):
        for part in ours.values():
            part.train(mode == "train")
        for found, wanted in zip(_embeddings(ours, dtype), expected[mode], strict=True):
            near(found, wanted, tolerance)


@pytest.mark.parametrize("name", authors.CASES)
def test_one_step_of_sgd_equals_the_authors_networks(written, name):
    # in float32 a maximum may come from another place, and its gradient go there
    ours = _loaded(written, name, *authors.CASES[name], torch.float64)
    _step(ours)
    expected = torch.load(written / f"{name}-results.pt")[torch.float64]["after"]
    after = published_state(ours)
    assert set(after) == set(expected)
    for key, value in after.items():
        near(value.double(), expected[key].double(), 1e-10)


@pytest.mark.parametrize("name", authors.CASES)
def test_the_criterion_is_returned(written, name):
    extras = load_published(written / f"{name}.pth.tar", {})
    expected = torch.load(written / f"{name}-results.pt")["criterion"]
    assert extras.epoch == 7
    assert extras.criterion["nce_average.view1_mem"].shape == (authors.ROWS, 128)
    assert extras.criterion["criterion.avg_exp_score"] > 0
    assert set(extras.criterion) == set(expected)
    assert all(torch.equal(extras.criterion[key], value) for key, value in expected.items())


@pytest.mark.parametrize("name", authors.CASES)
def test_the_authors_code_reads_what_we_save(written, name):
    theirs, ours = (torch.load(written / f"{prefix}{name}-results.pt") for prefix in ("", "ours-"))
    assert ours["same"]  # as a network to start from, and to resume
    assert all(torch.equal(ours["criterion"][key], value) for key, value in theirs["criterion"].items())
    for mode in ("eval", "train"):
        for a, b in zip(ours[torch.float64][mode], theirs[torch.float64][mode], strict=True):
            assert torch.equal(a, b)


def _maps(ours: dict[str, nn.Module], dtype: torch.dtype) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """By the authors' names, spectrograms time first."""
    names = {"conv1": "conv1", **{f"block{n}": f"conv{n + 1}x" for n in range(1, 5)}}
    video, audio = authors.inputs(dtype)
    seen = {names[key]: value for key, value in ours["video"].feature_maps(video).items()}
    heard = ours["audio"].feature_maps(audio.transpose(2, 3))
    return seen, {names[key]: value.transpose(2, 3) for key, value in heard.items()}


def _embeddings(ours: dict[str, nn.Module], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    video, audio = authors.inputs(dtype)
    heard = ours["audio"](audio.transpose(2, 3))
    return ours["video_head"](ours["video"](video)), ours["audio_head"](heard)


def _step(ours: dict[str, nn.Module]) -> None:
    video, audio = _embeddings(ours, torch.float64)
    (video * audio).sum().backward()
    torch.optim.SGD([p for part in ours.values() for p in part.parameters()], authors.STEP).step()
