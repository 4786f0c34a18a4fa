"""The whole way, real files to losses: a killed run that is resumed is the run that was not, to the bit."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from media import write_clip

from coaug.pipelines.index import index

STEPS = 12
OVERRIDES = [
    *("data.video.frames=4", "data.video.size=32", "model.width=4", "train.epochs=3", "train.batch=4"),
    *("train.checkpoint_every=2", "train.split=null", "eval.evaluators=[]", "train.log_every=1"),
]
FORMATS = (".mp4", ".webm", ".avi", ".mkv")


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen recordings of 2 s in four formats, each with a tone of its own."""
    folder = tmp_path_factory.mktemp("films")
    for number in range(16):
        write_clip(folder / f"{number}{FORMATS[number % 4]}", frames=40, fps=20)
    index([folder], folder / "films.parquet", workers=1, progress=False)
    return folder / "films.parquet"


def command(catalog: Path, out: Path, *more: str) -> list[str]:
    train = [sys.executable, "-m", "coaug.train", "svaclr-demo", *OVERRIDES]
    return [*train, "--data", str(catalog), "--out", str(out), *more]


def losses(out: Path) -> list[tuple[int, float]]:
    rows = map(json.loads, (out / "log.jsonl").read_text().splitlines())
    return [(row["step"], row["loss"]) for row in rows]


def kill_after(step: int, started: list[str]) -> None:
    """SIGKILL to the whole session (workers included) some time after it has said that `step` is done."""
    child = subprocess.Popen(started, start_new_session=True, stderr=subprocess.PIPE, text=True)
    assert child.stderr is not None
    assert any(line.startswith(f"step {step}/") for line in child.stderr)
    os.killpg(child.pid, signal.SIGKILL)
    assert child.wait() == -9


def test_killed_and_resumed_on_real_files(
    catalog: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    alone, helped = "train.workers=0", "train.workers=1"
    subprocess.run(command(catalog, tmp_path / "whole", alone), check=True, stderr=subprocess.DEVNULL)
    kill_after(random.randrange(3, STEPS - 1), command(catalog, tmp_path / "killed", helped))
    resumed = command(catalog, tmp_path / "killed", alone, "--resume")
    subprocess.run(resumed, check=True, stderr=subprocess.DEVNULL)
    assert [step for step, _ in losses(tmp_path / "whole")] == list(range(1, STEPS + 1))
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")
    assert len({loss for _, loss in losses(tmp_path / "whole")}) == STEPS
