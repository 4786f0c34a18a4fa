"""Schedule, optimiser, checkpoints, log and stop request, one by one."""

from __future__ import annotations

import json
import math
import os
import signal
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from coaug.config import ConfigError, dump
from coaug.engine.checkpoint import Checkpoints, read_state, write_whole
from coaug.engine.errors import TrainError
from coaug.engine.folder import summary
from coaug.engine.log import duration, rows_of, truncate
from coaug.engine.optim import build_optimizer
from coaug.engine.run_config import KeepConfig, OptimConfig, conflicts, load
from coaug.engine.schedule import learning_rate
from coaug.engine.stop import StopRequest, Verdict

PAPER = OptimConfig()


@pytest.mark.parametrize(
    ("epoch", "expected"),
    [(0, 0.064), (5, (0.064 + 0.64) / 2), (10, 0.64), (55, (0.64 + 0.1) / 2), (100, 0.1)],
)
def test_the_papers_schedule(epoch: int, expected: float) -> None:
    assert learning_rate(epoch * 468, PAPER, 100, 468) == pytest.approx(expected)


@given(st.integers(1, 50), st.integers(1, 40), st.floats(0, 60), st.integers(0, 3000))
def test_schedule_stays_between_its_ends(epochs: int, steps: int, warmup: float, step: int) -> None:
    config = OptimConfig(warmup_epochs=warmup)
    assert 0.064 <= learning_rate(step, config, epochs, steps) <= 0.64


def test_presets_hold_the_papers_values() -> None:
    config = load("svaclr")
    assert config.optim == PAPER
    assert (config.train.batch, config.train.epochs) == (512, 100)
    assert (config.data.video.frames, config.data.video.size) == (30, 128)
    assert [view.temporal for view in config.data.views] == ["", "speed(1, 2, 3, 4)"]
    assert config.data.audio.shape == (40, 99)
    baseline = load("infonce")
    assert baseline.model["weights"] == "none"
    assert baseline.data == config.data


def test_presets_of_avid_hold_the_papers_values() -> None:
    small, full = load("avid-small"), load("avid")
    assert small.optim == OptimConfig("adam", 5e-4, 0.064, 5e-4, 0.0, 1e-5)
    assert [learning_rate(step, small.optim, 400, 390) for step in (0, 70_000, 155_999)] == [5e-4] * 3
    assert (small.train.batch, small.train.micro_batch, small.train.epochs) == (256, 32, 400)
    assert (full.optim.lr, full.optim.end_lr, full.train.epochs) == (2e-4, 2e-4, 300)
    assert small.model["head"] == full.model["head"] == [512, 512, 128]
    assert (small.model["video_blocks"], full.model["video_blocks"]) == ([1, 1, 1, 1], [2, 2, 2, 2])
    assert (small.model["stem_pool"], full.model["stem_pool"]) == (False, True)
    assert (small.data.audio.shape, full.data.audio.shape) == ((129, 100), (257, 200))
    for config, before, found, drawn in ((load("cma-small"), small, 32, None), (load("cma"), full, 128, 32)):
        assert config.data == before.data
        assert config.optim == before.optim
        positives = config.model["positives"]
        assert (positives["found"], positives["drawn"], positives["expansion"]) == (found, drawn, "agreement")
        assert config.model["within"] == 1


def test_the_demo_preset_shrinks_and_changes_nothing_else() -> None:
    changed = {line.partition(":")[0] for line in conflicts(dump(load("svaclr")), load("svaclr-demo"))}
    assert changed == {
        *("data.video.frames", "data.video.fps", "data.video.size"),
        *("model.width", "model.video_blocks", "model.temperature"),
        *("optim.name", "optim.lr", "optim.start_lr", "optim.end_lr", "optim.warmup_epochs", "train.batch"),
    }


def test_the_demo_presets_of_avid_shrink_and_change_nothing_else() -> None:
    changed = {line.partition(":")[0] for line in conflicts(dump(load("avid-small")), load("avid-demo"))}
    assert changed == {
        *(f"data.video.{name}" for name in ("frames", "fps", "size", "crop")),
        *(f"data.video.{name}" for name in ("brightness", "contrast", "saturation", "hue")),
        *("data.audio.spectrum", "model.width", "model.audio_strides", "model.head", "model.head_norm"),
        *("model.negatives", "model.temperature"),
        *("optim.lr", "optim.start_lr", "optim.end_lr", "optim.warmup_epochs", "train.batch"),
    }
    both = {line.partition(":")[0] for line in conflicts(dump(load("avid-demo")), load("cma-demo"))}
    assert both == {"method", "model.within"} | {
        f"model.positives.{name}" for name in ("found", "expansion", "first_epoch")
    }


@pytest.mark.parametrize("name", ["svaclr", "infonce", "svaclr-demo", "avid", "avid-small", "cma"])
def test_a_printed_config_is_the_same_config(name: str, tmp_path: Path) -> None:
    config = load(name, ["optim.lr=1e-3", "train.keep.last=5"])
    (tmp_path / "printed.yaml").write_text(dump(config))
    assert load(tmp_path / "printed.yaml") == config
    assert (config.optim.lr, config.train.keep.last) == (1e-3, 5)


def test_config_errors_name_the_key() -> None:
    with pytest.raises(ConfigError, match=r"unknown key 'train\.keep\.lst'; did you mean 'last'\?"):
        load("svaclr", ["train.keep.lst=3"])
    with pytest.raises(ConfigError, match=r"unknown method 'svacl'; did you mean 'svaclr'\?"):
        load("svaclr", ["method=svacl"])
    with pytest.raises(ConfigError, match=r"eval\.evaluators: no retreival; there are .*retrieval"):
        load("svaclr", ["eval.evaluators=[retreival]"])


def test_conflicts_are_those_that_change_training() -> None:
    saved = dump(load("svaclr"))
    free = [
        "train.epochs=5",
        "train.log_every=2",
        "eval.clips=3",
        "train.keep.last=9",
        "train.micro_batch=4",
    ]
    assert conflicts(saved, load("svaclr", free)) == []
    assert conflicts(saved, load("svaclr", ["train.batch=64"])) == ["train.batch: 512 -> 64"]


def test_weight_decay_spares_biases_and_norms() -> None:
    module = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    optimizer = build_optimizer(module, OptimConfig(weight_decay=0.1, decay_biases=False))
    decayed = {id(p) for group in optimizer.param_groups if group["weight_decay"] for p in group["params"]}
    assert decayed == {id(module[0].weight)}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 4


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_whole(path, lambda part: part.write_text("old"))

    def fail(part: Path) -> None:
        part.write_text("ne")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_whole(path, fail)
    assert path.read_text() == "old"


@pytest.mark.parametrize("damage", ["empty", "short", "bit", "text", "missing"])
def test_damaged_checkpoints_are_named(tmp_path: Path, damage: str) -> None:
    path = Checkpoints(tmp_path, 1, KeepConfig(), 1).save(1, {"x": torch.arange(1000.0)})
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    replaced = {"empty": b"", "short": data[:500], "bit": data, "text": b"hello"}
    path.write_bytes(replaced[damage]) if damage in replaced else path.unlink()
    with pytest.raises(TrainError, match=r"^checkpoint .*step-00000001.pt cannot be read \(.+\)$"):
        read_state(path)


def test_a_checkpoint_cannot_run_code(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save({"x": Evil()}, tmp_path / "step-1.pt")
    with pytest.raises(TrainError, match="cannot be read"):
        read_state(tmp_path / "step-1.pt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("keep", "expected"),
    [(KeepConfig(2), [9, 10]), (KeepConfig(1, 1), [4, 8, 10]), (KeepConfig(3, 2), [8, 9, 10])],
)
def test_retention(tmp_path: Path, keep: KeepConfig, expected: list[int]) -> None:
    saved = Checkpoints(tmp_path, 5, keep, steps_per_epoch=4)
    for step in range(1, 11):
        saved.save(step, {})
    assert [int(path.stem[5:]) for path in saved.paths()] == expected
    assert saved.due(5)
    assert saved.due(8) == (keep.every_epochs > 0)
    assert not saved.due(6)


def test_the_log_is_cut_at_a_step_and_at_a_torn_row(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps({"step": s}) + "\n" for s in range(1, 6)) + '{"step": 6')
    assert [row["step"] for row in rows_of(path)] == [1, 2, 3, 4, 5]
    truncate(path, 3)
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n{"step": 3}\n'


def test_summary_weights_steps_by_their_time() -> None:
    rows = [
        {"step": 0, "loss": 4.0, "clips_per_s": 0.01, "data_wait": 1.0},  # starting up
        {"step": 1, "loss": 4.0, "clips_per_s": 10.0, "data_wait": 0.5},  # 1 s
        {"step": 2, "loss": 2.0, "clips_per_s": 10 / 3, "data_wait": 0.1},  # 3 s
    ]
    figures = summary(rows, clips=10, ends=1)
    assert figures["train.clips_per_s"] == pytest.approx(20 / 4)
    assert figures["train.data_wait"] == pytest.approx((0.5 + 0.3) / 4)
    assert (figures["train.loss.first"], figures["train.loss.last"]) == (4, 2)


@pytest.mark.parametrize(
    ("seconds", "text"), [(4.4, "4 s"), (89, "89 s"), (600, "10 min"), (11_100, "3 h 05 min")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_stop_requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COAUG_STOP_FILE", str(tmp_path / "stop"))
    before = signal.getsignal(signal.SIGTERM)
    with StopRequest(max_minutes=1000) as stop:
        assert stop.verdict is Verdict.GO_ON
        (tmp_path / "stop").write_text("SIGTERM")
        assert stop.verdict is Verdict.LEAVE
        assert (stop.name, stop.code) == ("SIGTERM", 0)
    assert signal.getsignal(signal.SIGTERM) is before
    assert StopRequest(max_minutes=-math.inf).verdict is Verdict.LEAVE  # the file still stands


def test_a_second_signal_exits_at_once() -> None:
    child = os.fork()
    if child == 0:
        with StopRequest():
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 130
