"""What a person reads who mistypes something: one line, status 2, no traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from coaug import cli
from coaug.cli import main


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    status = main([*words])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["trian"], "No such command"),
        (["train"], "method"),
        (["train", "svaclrr", "--print-config"], "no preset or file 'svaclrr'"),
        (["train", "svaclr", "--print-config", "optim.lrr=1"], "did you mean 'lr'"),
        (["train", "svaclr", "--print-config", "train.batch=many"], "train.batch"),
        (["train", "svaclr", "--print-config", "model.widht=1"], "model.widht"),
        (["train", "svaclr", "--data", "/nowhere"], "/nowhere"),
        (["index", "/nowhere"], "/nowhere"),
        (["index", ".", "--modalities", "smell"], "smell"),
        (["index", ".", "--holdout", "2"], "holdout"),
        (["index", ".", "--workers", "-1"], "workers"),
        (["index", ".", "--segment-seconds", "-3"], "segment-seconds"),
        (["train", "svaclr", "--gpus", "-1"], "gpus"),
        (["train", "svaclr", "--procs", "0"], "procs"),
        (["eval", "/nowhere"], "/nowhere"),
        (["view", "/nowhere.mp4"], "/nowhere.mp4"),
    ],
)
def test_one_line_says_what_was_wrong(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, err = run(capsys, *words)
    assert status == 2
    assert said in err
    assert "Traceback" not in err + out
    assert len(err.strip().splitlines()) == 1


def test_print_config_is_a_config(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    status, out, _ = run(capsys, "train", "svaclr", "--print-config", "optim.lr=0.5", "--data", str(tmp_path))
    assert status == 0
    again = tmp_path / "mine.yaml"
    again.write_text(out)
    status, repeated, _ = run(capsys, "train", str(again), "--print-config")
    assert (status, repeated) == (0, out)
    assert "lr: 0.5" in out


def test_a_folder_without_media_is_said_so(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("no video")
    status, _, err = run(capsys, "train", "svaclr", "--data", str(tmp_path))
    assert status == 2
    assert "no media files" in err


@pytest.mark.parametrize(
    ("data", "gpus", "here", "preset"),
    [
        (None, None, True, "svaclr-demo"),
        ("/videos", None, True, "svaclr"),
        ("/videos", None, False, "svaclr-demo"),
        ("/videos", 64, False, "svaclr"),  # a login node sends the job elsewhere
        ("/videos", 0, True, "svaclr-demo"),
    ],
)
def test_the_small_twin_is_trained_on_the_demo_set_and_on_cpus(
    data: str | None, gpus: int | None, here: bool, preset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: here)
    assert cli._sized("svaclr", Path(data) if data else None, gpus) == preset


def test_train_hands_on_where_a_run_begins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr("coaug.engine.launch.launch", lambda argv, *_: started.append(list(argv)) or 0)
    monkeypatch.setattr("coaug.cli._fitting_batch", lambda *_: [])
    given = ["train", "cma", "--data", str(tmp_path / "c.parquet"), "--init", "runs/avid", "--out", "runs/x"]
    assert main([*given, "--gpus", "8", "--resume"]) == 0
    assert main([*given[:4]]) == 0
    data = str(tmp_path / "c.parquet")
    assert started[0] == ["cma", "--data", data, "--out", "runs/x", "--init", "runs/avid", "--resume"]
    assert started[1] == ["cma-demo", "--data", data, "--out", "runs/cma"]
