"""`--init`: what a run takes over from another one, and what it says where it cannot."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from toy import Toy

from coaug.config import ConfigError
from coaug.engine.errors import TrainError
from coaug.engine.inherit import inherit


class Remembering(Toy):
    """Says what it was given."""

    def inherit(self, state):  # type: ignore[no-untyped-def]
        return f"memory of {len(state['ids'])}"

    def load_published(self, path: Path) -> str:
        return f"published {path.name}"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of two checkpoints."""
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    for step in (3, 5):
        torch.manual_seed(step)
        state = {
            "step": step,
            "method": Toy(Toy.Config()).state_dict(),
            "memory": {"ids": torch.arange(step)},
        }
        torch.save(state, tmp_path / f"run/checkpoints/step-{step:08d}.pt")
    return tmp_path / "run"


def weights(seed: int) -> torch.Tensor:
    torch.manual_seed(seed)
    return Toy(Toy.Config()).state_dict()["video.0.weight"]


@pytest.mark.parametrize(("where", "step"), [("", 5), ("checkpoints/step-00000003.pt", 3)])
def test_weights_and_memory_of_a_run(run: Path, where: str, step: int) -> None:
    method, told = Remembering(Toy.Config()), list[str]()
    inherit(method, run / where, told.append)
    assert torch.equal(method.video[0].weight, weights(step))
    assert told == [f"starting from {run / where} after step {step}; memory of {step}"]


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_that_is_not_ours_is_the_methods_affair(tmp_path: Path, zipped: bool) -> None:
    path, told = tmp_path / "theirs.pth.tar", list[str]()
    torch.save({"model": {}}, path, _use_new_zipfile_serialization=zipped)
    inherit(Remembering(Toy.Config()), path, told.append)
    assert told == ["published theirs.pth.tar"]
    with pytest.raises(ConfigError, match=r"theirs\.pth\.tar: want the folder of a run"):
        inherit(Toy(Toy.Config()), path, told.append)


def test_what_cannot_be_taken_over_is_named(run: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="gone: there is no such run or file"):
        inherit(Toy(Toy.Config()), tmp_path / "gone", print)
    with pytest.raises(TrainError, match=f"no checkpoint in {tmp_path / 'checkpoints'}"):
        inherit(Toy(Toy.Config()), tmp_path, print)
    with pytest.raises(TrainError, match=r"of other networks; size mismatch for video\.0\.weight"):
        inherit(Toy(Toy.Config(width=3)), run, print)
