"""Where `GPUS=n` goes on machines with and without GPUs and Slurm, and two real processes under torchrun."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import toy
import yaml

from coaug.engine import launch as room
from coaug.engine.launch import launch, sbatch_script

ARGV = ["svaclr", "--data", "my catalog.parquet"]
CONFIG = {"method": "toy", "train": {"epochs": 3, "batch": 8, "checkpoint_every": 4, "precision": "fp32"}}


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """What was started, instead of starting it; no Slurm, two GPUs."""
    calls: list[tuple[str, int]] = []
    monkeypatch.setattr(room, "_here", lambda argv: calls.append(("here", 1)) or 0)
    monkeypatch.setattr(
        room, "_torchrun", lambda argv, n, cpu=False: calls.append(("cpu" if cpu else "gpu", n)) or 0
    )
    monkeypatch.setattr(room.torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("GPUS_PER_NODE", raising=False)
    return calls


@pytest.mark.parametrize(
    ("gpus", "procs", "there", "expected"),
    [
        (None, None, 2, ("gpu", 2)),
        (None, None, 1, ("here", 1)),
        (None, None, 0, ("here", 1)),
        (1, None, 2, ("here", 1)),
        (2, None, 2, ("gpu", 2)),
        (0, None, 2, ("cpu", 1)),
        (None, 3, 0, ("cpu", 3)),
        (None, 3, 2, ("cpu", 3)),
    ],
)
def test_on_one_machine(
    started: list[tuple[str, int]],
    monkeypatch: pytest.MonkeyPatch,
    gpus: int,
    procs: int,
    there: int,
    expected: object,
) -> None:
    monkeypatch.setattr(room.torch.cuda, "device_count", lambda: there)
    assert launch(ARGV, gpus, procs) == 0
    assert started == [expected]


def test_too_many_gpus_without_slurm_prints_a_line_for_each_node(
    started: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(room.torch.cuda, "device_count", lambda: 0)
    assert launch(ARGV, 64) == 2
    assert started == []
    why, *lines = capsys.readouterr().err.splitlines()
    assert "no GPU and no Slurm" in why
    assert len(lines) == 8
    assert lines[3] == (
        "node 3: torchrun --nnodes=8 --node-rank=3 --nproc-per-node=8 --rdzv-backend=c10d --rdzv-endpoint=HOST:29500 "
        "--rdzv-id=coaug -m coaug.train svaclr --data 'my catalog.parquet'"
    )


def test_slurm_gets_a_script(
    started: list[tuple[str, int]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fake(tmp_path / "sbatch", f"cat > {tmp_path}/script; echo '123;cluster'")
    fake(tmp_path / "sinfo", "printf 'gpu:h100:4(S:0-1)\\n(null)\\n'")
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert launch(ARGV, 64) == 0
    assert "Slurm job 123" in capsys.readouterr().err
    script = (tmp_path / "script").read_text()
    assert "#SBATCH --nodes=16" in script
    assert "--nproc-per-node=4" in script
    assert "-m coaug.train svaclr --data 'my catalog.parquet' --resume" in script
    assert launch(ARGV, 63) == 2
    assert "does not fill whole nodes" in capsys.readouterr().err


def test_the_script_is_valid_shell() -> None:
    script = sbatch_script(ARGV, 16, 8)
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0


def fake(path: Path, body: str) -> None:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()]


def test_two_processes_train_as_one_and_stop_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(room, "MODULE", [toy.__file__])
    config = tmp_path / "toy.yaml"
    config.write_text(yaml.safe_dump(CONFIG))
    argv = [str(config), "--data", "files", "--out"]
    monkeypatch.setenv("TOY_SIGTERM", "5")
    monkeypatch.setenv("TOY_VICTIM", str(os.getpid()))
    assert launch([*argv, str(tmp_path / "two")], procs=2) == 143
    done = len(losses(tmp_path / "two"))
    assert f"coaug train: stopped by SIGTERM after step {done} of 15" in capfd.readouterr().err
    assert 5 <= done < 15
    assert (tmp_path / f"two/checkpoints/step-{done:08d}.pt").exists()
    monkeypatch.delenv("TOY_SIGTERM")
    toy.install(monkeypatch.setattr)
    assert launch([*argv, str(tmp_path / "one")], procs=1) == 0
    assert launch([*argv, str(tmp_path / "two"), "--resume"], procs=1) == 0  # in another world size
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-5)


def test_kernels_leave_torch_its_threads() -> None:
    """In a process of its own: which call of Numba's is the first one matters."""
    program = """
import torch, numba
from coaug.engine import distributed
torch.set_num_threads(1)
distributed.share_threads()
from coaug.kernels.bank_start import start_rows
start_rows(torch.arange(10), 8, seed=0, stream=0)
print(torch.get_num_threads(), numba.get_num_threads())
"""
    environment = {**os.environ, "NUMBA_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=True)
    assert done.stdout.split() == [b"1", b"1"]
