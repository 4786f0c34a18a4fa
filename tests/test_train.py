"""The loop on a toy method and loader: interruptions, resuming, refusals, and what is left in the run's folder."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import toy
import yaml
from safetensors import safe_open
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import coaug.train

STEPS = 20
CONFIG = {
    "method": "toy",
    "model": {"dropout": 0.3, "norm": True},
    "optim": {"lr": 0.05, "start_lr": 0.01, "end_lr": 0.001, "warmup_epochs": 1},
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
    """`coaug train` in this process on the toys, with `TOY_…` variables set for this call."""
    toy.install(monkeypatch.setattr)
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(CONFIG))

    def call(out: str, *arguments: str, data: str = "files", **hurt: int) -> int:
        for name in [n for n in os.environ if n.startswith("TOY_")]:
            monkeypatch.delenv(name)
        for name, step in hurt.items():
            monkeypatch.setenv(f"TOY_{name}", str(step))
        return coaug.train.main(
            [str(tmp_path / "toy.yaml"), "--data", data, "--out", str(tmp_path / out), *arguments]
        )

    return call


def rows(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def losses(folder: Path) -> list[tuple[float, float]]:
    return [(row["step"], row["loss"]) for row in rows(folder)]


def test_a_run_leaves_everything_behind(run: Run, tmp_path: Path) -> None:
    assert run("a") == 0
    out = tmp_path / "a"
    assert [step for step, _ in losses(out)] == list(range(1, STEPS + 1))
    metrics = json.loads((out / "metrics.json").read_text())
    last = [loss for _, loss in losses(out)][-10:]
    assert metrics["train.loss.last"] == pytest.approx(sum(last) / 10)
    assert metrics["train.loss.last"] < metrics["train.loss.first"]
    assert 0 <= metrics["train.data_wait"] <= 1
    assert metrics["train.clips_per_s"] > 0
    assert metrics["toy.figure"] == 1
    assert yaml.safe_load((out / "config.yaml").read_text())["train"]["batch"] == 8
    with safe_open(out / "video.safetensors", "pt") as file:
        assert file.get_tensor("0.weight").shape == (8, 12)
        assert yaml.safe_load(file.metadata()["config"])["method"] == "toy"
    board = EventAccumulator(str(out / "tensorboard")).Reload()
    assert [event.step for event in board.Scalars("train/loss")] == list(range(1, STEPS + 1))


def test_learning_rate_of_the_steps(run: Run, tmp_path: Path) -> None:
    run("a")
    lrs = [row["lr"] for row in rows(tmp_path / "a")]
    assert lrs[:6] == pytest.approx([0.01, 0.018, 0.026, 0.034, 0.042, 0.05])  # five steps an epoch
    assert 0.001 < lrs[-1] < 0.002


def test_killed_at_a_random_step_and_resumed(run: Run, tmp_path: Path) -> None:
    assert run("whole") == 0
    step = random.randrange(4, STEPS)
    out, config = tmp_path / "killed", tmp_path / "toy.yaml"
    command = [sys.executable, toy.__file__, str(config), "--data", "files", "--out", str(out)]
    killed = subprocess.run(command, env={**os.environ, "TOY_SIGKILL": str(step)}, check=False)
    assert killed.returncode == -9
    assert len(losses(out)) == step
    with (out / "log.jsonl").open("a") as log:
        log.write('{"step": 19, "lo')  # as if killed while writing
    assert run("killed", "--resume") == 0
    assert losses(out) == losses(tmp_path / "whole")
    weights = [
        torch.load(tmp_path / n / "checkpoints/step-00000020.pt")["method"] for n in ("whole", "killed")
    ]
    assert all(torch.equal(a, b) for a, b in zip(weights[0].values(), weights[1].values(), strict=True))


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_signals_finish_the_step_and_save(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, code: int
) -> None:
    run("whole")
    capsys.readouterr()
    assert run("stopped", **{name: 7}) == code
    *_, line = capsys.readouterr().err.splitlines()
    assert line == f"coaug train: stopped by {name} after step 8 of 20; --resume goes on from there"
    assert [p.name for p in sorted((tmp_path / "stopped/checkpoints").iterdir())][-1] == "step-00000008.pt"
    assert run("stopped", "--resume") == 0
    assert losses(tmp_path / "stopped") == losses(tmp_path / "whole")


def test_nan_stops_with_the_samples(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("nan", "model.norm=false", NAN=7) == 1
    *_, line = capsys.readouterr().err.splitlines()
    found = json.loads((tmp_path / "nan/nonfinite.json").read_text())
    assert "at step 8" in line
    assert "step-00000006" in {p.stem for p in (tmp_path / "nan/checkpoints").iterdir()}
    assert len(found["sample_ids"]) == 8
    assert found["nonfinite_inputs"] == [found["sample_ids"][1]]
    assert str(found["nonfinite_inputs"][0]) in line
    assert "Traceback" not in line


def test_resume_skips_damaged_checkpoints(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("whole")
    run("torn", SIGTERM=10)
    newest, before = (
        tmp_path / "torn/checkpoints/step-00000011.pt",
        tmp_path / "torn/checkpoints/step-00000009.pt",
    )
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1  # one bit, which torch.load alone would not notice
    newest.write_bytes(data)
    capsys.readouterr()
    assert run("torn", "--resume") == 0
    warning, *_ = capsys.readouterr().err.splitlines()
    assert "step-00000011.pt cannot be read" in warning
    assert losses(tmp_path / "torn") == losses(tmp_path / "whole")
    for path in before.parent.iterdir():
        path.write_bytes(path.read_bytes()[:100])
    assert run("torn", "--resume") == 1
    assert "no readable checkpoint among 2" in capsys.readouterr().err.splitlines()[-1]


def test_resume_refuses_what_changes_training(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("a", SIGTERM=10)
    capsys.readouterr()
    assert run("a", "--resume", "model.width=16", "optim.lr=0.1") == 1
    assert "model.width: 8 -> 16; optim.lr: 0.05 -> 0.1" in capsys.readouterr().err
    assert run("a", "--resume", data="others") == 1
    assert "the catalog holds other recordings" in capsys.readouterr().err
    assert run("a", "--resume", "train.epochs=5", "train.log_every=1", "eval.clips=3") == 0
    assert [step for step, _ in losses(tmp_path / "a")] == list(range(1, 26))


def test_resume_without_a_checkpoint_begins(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("a", "--resume") == 0
    assert "starting from the beginning" in capsys.readouterr().err
    assert len(losses(tmp_path / "a")) == STEPS


def test_a_new_run_never_destroys_an_old_one(run: Run, tmp_path: Path) -> None:
    run("a")
    first = losses(tmp_path / "a")
    run("a", "train.seed=1")
    assert losses(tmp_path / "a/previous-1") == first
    assert (tmp_path / "a/previous-1/video.safetensors").exists()
    assert len(losses(tmp_path / "a")) == STEPS


def test_synchronised_batch_norm_in_one_process_changes_nothing(run: Run, tmp_path: Path) -> None:
    assert run("plain") == run("synced", "train.sync_batch_norm=true") == 0
    assert losses(tmp_path / "plain") == losses(tmp_path / "synced")


def test_a_run_begins_from_another_one_and_is_resumed_as_itself(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("a")
    given = ("--init", str(tmp_path / "a"), *(f"optim.{name}=1e-12" for name in ("lr", "start_lr", "end_lr")))
    run("whole", *given)
    assert f"starting from {tmp_path / 'a'} after step 20" in capsys.readouterr().err
    before, after = (
        torch.load(tmp_path / n / "checkpoints/step-00000020.pt")["method"] for n in ("a", "whole")
    )
    torch.testing.assert_close(after["video.0.weight"], before["video.0.weight"], rtol=0, atol=1e-9)
    run("stopped", *given, SIGTERM=7)
    assert run("stopped", *given, "--resume") == 0
    assert losses(tmp_path / "stopped") == losses(tmp_path / "whole")


def test_a_run_may_begin_from_the_one_it_replaces(run: Run, tmp_path: Path) -> None:
    run("a")
    assert run("a", "--init", str(tmp_path / "a")) == 0
    assert len(losses(tmp_path / "a/previous-1")) == STEPS


def test_the_time_budget_ends_training_and_evaluates(run: Run, tmp_path: Path) -> None:
    assert run("a", "train.max_minutes=1e-9") == 0
    assert len(losses(tmp_path / "a")) == 1
    assert json.loads((tmp_path / "a/metrics.json").read_text())["toy.figure"] == 1


def test_retention(run: Run, tmp_path: Path) -> None:
    run("a", "train.keep={last: 1, every_epochs: 2}")
    assert sorted(p.stem for p in (tmp_path / "a/checkpoints").iterdir()) == [
        "step-00000010",
        "step-00000020",
    ]


def test_plain_lines(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run("a", "train.log_every=10")
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("step ")]
    assert [line.split()[1] for line in lines] == ["10/20", "20/20"]
    assert all(word in lines[0] for word in ("loss", "lr", "clips/s", "data wait", "left"))


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("optim.lrr=1", "unknown key 'optim.lrr'; did you mean 'lr'?"),
        ("optim.lr=hello", "optim.lr: Input should be a valid number (got 'hello')"),
        ("model.widht=2", "unknown key 'model.widht'; did you mean 'width'?"),
        ("train.precision=fp16", "train.precision: Input should be 'auto', 'fp32' or 'bf16' (got 'fp16')"),
    ],
)
def test_bad_configs(run: Run, capsys: pytest.CaptureFixture[str], argument: str, message: str) -> None:
    assert run("a", argument) == 2
    assert capsys.readouterr().err.startswith(f"coaug train: {message}")
