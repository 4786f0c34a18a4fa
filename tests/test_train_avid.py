"""AVID and CMA in the training loop: killed and resumed to the bit, and one after the other."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import toy
import yaml
from avid_thin import THIN

import coaug.train

STEPS = 20
CONFIG: dict[str, Any] = {
    "method": "cma",
    "model": {**THIN, "positives": {"found": 4, "drawn": 2, "first_epoch": 1, "every": 2}},
    "optim": {"name": "adam", "lr": 0.01, "start_lr": 0.01, "end_lr": 0.01, "warmup_epochs": 0},
    "train": {"epochs": 4, "batch": 8, "checkpoint_every": 3, "precision": "fp32", "micro_batch": 4},
}
Run = Callable[..., int]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`coaug train` in this process, on batches of the toy loader."""
    toy.install(monkeypatch.setattr)
    (tmp_path / "cma.yaml").write_text(yaml.safe_dump(CONFIG))

    def call(out: str, *arguments: str) -> int:
        return coaug.train.main(
            [str(tmp_path / "cma.yaml"), "--data", "files", "--out", str(tmp_path / out), *arguments]
        )

    return call


def losses(folder: Path) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k.startswith(("step", "loss"))} for row in rows]


def last(folder: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(folder / f"checkpoints/step-{STEPS:08d}.pt")
    return state


def assert_same(one: Any, other: Any) -> None:
    """To the bit, through dicts and lists."""
    assert type(one) is type(other)
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    else:
        assert one == other


@pytest.mark.parametrize("step", [5, 6, None])  # around the first search, and anywhere after it
def test_killed_and_resumed_to_the_bit(run: Run, tmp_path: Path, step: int | None) -> None:
    step = step or random.randrange(7, STEPS)  # not when collected: pytest-xdist's workers must agree
    assert run("whole") == 0
    command = [sys.executable, toy.__file__, str(tmp_path / "cma.yaml"), "--data", "files", "--out"]
    killed = subprocess.run(
        [*command, str(tmp_path / "killed")], env={**os.environ, "TOY_SIGKILL": str(step)}, check=False
    )
    assert killed.returncode == -9
    assert len(losses(tmp_path / "killed")) == step
    assert run("killed", "--resume") == 0
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")
    for part in ("method", "memory", "optimizer"):
        assert_same(last(tmp_path / "killed")[part], last(tmp_path / "whole")[part])


def test_cma_begins_where_avid_ended(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On a catalog with eight recordings more."""
    avid = "model={width: 2, head: [8, 8, 6], negatives: 16, temperature: 0.2}"
    assert run("avid", "method=avid", avid) == 0
    assert "loss.positives_v2v" not in losses(tmp_path / "avid")[-1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(toy, "RECORDINGS", 48)
        capsys.readouterr()
        assert run("cma", "--init", str(tmp_path / "avid"), "train.epochs=1") == 0
    told = capsys.readouterr().err
    where = f"starting from {tmp_path / 'avid'} after step 20"
    assert f"{where}; memory: 40 recordings taken over, 8 new, 0 of the other run's left out" in told
    assert "epoch 0: 4 positives each by agreement" in told
    assert "loss.positives_v2v" in losses(tmp_path / "cma")[0]
    memory = torch.load(tmp_path / "cma/checkpoints/step-00000006.pt")["memory"]
    assert memory["ids"].tolist() == list(range(48))
    assert memory["partition"] == last(tmp_path / "avid")["memory"]["partition"]


def test_both_stages_in_one_run(run: Run, tmp_path: Path) -> None:
    assert run("a") == 0
    found = ["loss.positives_v2v" in row for row in losses(tmp_path / "a")]
    assert found == [False] * 5 + [True] * 15


def test_a_search_before_anything_was_seen_is_refused(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("a", "model.positives.first_epoch=0") == 2
    assert "model.positives.first_epoch: the memory has seen nothing yet" in capsys.readouterr().err
