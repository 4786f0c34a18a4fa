"""Tables on the terminal and in Markdown, and the demo table's page."""

from __future__ import annotations

import io
import json
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from rich.console import Console

from coaug.eval.table import markdown, show


def figures_of(r1: float) -> dict[str, float]:
    groups = ("retrieval.instance", "retrieval.class", "control.static.instance", "control.swap.instance")
    found = {f"{g}.{w}.r{k}": r1 for g in groups for w in ("a2v", "v2a") for k in (1, 5, 10, 20)}
    found |= {f"{g}.chance.r{k}": 0.01 * k for g in groups[:3] for k in (1, 5, 10, 20)}
    return found | {"control.static.ratio": 0.25, "control.swap.ratio": 0.9, "control.swap.lift": 2.0}


def test_the_terminal_shows_per_cent_and_times_chance_in_80_columns() -> None:
    screen = io.StringIO()
    show(figures_of(0.1234) | {"train.loss.last": 1.0}, Console(file=screen, width=80))
    lines = screen.getvalue().splitlines()
    assert lines[2].split() == [
        "same",
        "recording",
        "a",
        "→",
        "v",
        *["12.3", "(12×)", "12.3", "(2.5×)", "12.3", "(1.2×)", "12.3", "(0.6×)"],
    ]
    assert lines[4].split() == ["chance", "1.0", "5.0", "10.0", "20.0"]
    assert lines[11].split()[:6] == ["sound", "swapped", "in", "class", "a", "→"]
    assert "0.25  stills / model" in screen.getvalue()


def test_probes_and_memory_have_tables_of_their_own() -> None:
    figures = {f"linear.{side}.top1": 0.5 for side in ("video", "audio", "both")} | {
        "linear.block1.video.top1": 0.301,
        "linear.best.video.top1": 0.4,
        "linear.random.audio.top1": 0.1,
        "linear.random.block1.video.top1": 0.2,
        "linear.random.best.video.top1": 0.3,
        "linear.chance.top1": 0.0625,
        "memory.linear.both.top1": 0.875,
        "memory.precision.chance": 0.06,
        "within.z.v2v.r1": 0.25,
        "within.z.chance.r1": 0.05,
    }
    figures |= {f"memory.precision.{e}.p{k}": k / 100 for e in ("agreement", "either") for k in (8, 16)}
    figures |= {
        f"memory.calibration.{s}.{f}": 0.234 for s in ("video", "audio", "cross") for f in ("mean", "std")
    }
    screen = io.StringIO()
    show(figures, Console(file=screen, width=80))
    lines = [" ".join(line.split()) for line in screen.getvalue().splitlines()]
    assert "same class, alike v → v 25.0 (5.0×)" in lines
    for line in (
        *(
            "linear probe, top-1 % video audio both",
            "encoders 50.0 50.0 50.0",
            "block1 30.1",
            "best block 40.0",
        ),
        *("untrained, block1 20.0", "untrained, best block 30.0"),
        *("untrained 10.0", "memory rows 87.5", "most frequent class 6.2 6.2 6.2"),
        *("positives right, % K=8 K=16", "agreement 8.0 16.0", "either 8.0 16.0", "chance 6.0 6.0"),
        *("cosine of random memories video audio", "audio 0.234 ± 0.23 0.234 ± 0.23"),
    ):
        assert line in lines


def test_without_figures_nothing_is_shown() -> None:
    screen = io.StringIO()
    show({"train.loss.last": 1.0}, Console(file=screen))
    assert screen.getvalue() == ""


def test_markdown() -> None:
    want = "| x | a/b |\n| --- | ---: |\n| one | 1 |\n"
    assert markdown(["x", "a|b"], [["one", "1"]]) == want


@pytest.fixture
def demo_table(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    return import_module("demo_table")


def test_mean_and_spread_over_seeds(demo_table: Any) -> None:
    assert demo_table.spread([10.0, 12.0, 14.0], 1) == "12.0 ± 2.0"
    assert demo_table.spread([0.5], 2) == "0.50"


def test_the_page_holds_figures_chance_and_commands(demo_table: Any) -> None:
    results = {name: [figures_of(0.1), figures_of(0.2)] for name in demo_table.VARIANTS}
    page = demo_table.page(results, [0, 1])
    assert "| same recording, R@1, a → v | 15.0 ± 7.1 | 15.0 ± 7.1 | 15.0 ± 7.1 | 1.0 |" in page
    assert "| same recording, R@5, v → a | 15.0 ± 7.1 | 15.0 ± 7.1 | 15.0 ± 7.1 | 5.0 |" in page
    assert "| stills only / model | 0.25 ± 0.00 | 0.25 ± 0.00 | 0.25 ± 0.00 |" in page
    assert "class alone" not in page.partition("ratios")[0]  # no run has those figures
    assert '    coaug train svaclr "data.views=[{}, {}]"' in page
    assert "\n\n|" in page


def test_every_training_has_a_valid_config(demo_table: Any, tmp_path: Path) -> None:
    from coaug.engine import run_config

    for name in demo_table.VARIANTS:
        command = demo_table.training(name, 7, tmp_path)
        overrides = [word for word in command[3:] if "=" in word]
        config = run_config.load(f"{command[2]}-demo", overrides)
        played = {view.temporal for view in config.data.views}
        assert played == ({""} if name == "no speed" else {"", "speed(1, 2, 3, 4)"})
        assert config.train.seed == 7
        assert config.method == ("infonce" if name == "InfoNCE" else "svaclr")
        assert config.eval.evaluators == ("retrieval", "control")


def test_finished_runs_are_not_run_again_and_unfinished_ones_resumed(
    demo_table: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[list[str]] = []

    def train(command: list[str]) -> int:
        ran.append(command)
        out = Path(command[command.index("--out") + 1])
        (out / "checkpoints").mkdir(parents=True, exist_ok=True)
        if len(ran) == 2:
            return 1
        (out / "metrics.json").write_text(json.dumps(figures_of(0.1)))
        return 0

    monkeypatch.setattr("subprocess.call", train)
    arguments = ["--seeds", "0", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "docs" / "t.md")]
    assert demo_table.main([*arguments, "--", "train.epochs=2"]) == 1
    assert len(ran) == 2  # the second one failed
    assert demo_table.main([*arguments, "--", "train.epochs=2"]) == 0
    assert len(ran) == 4
    assert ["--resume" in command for command in ran] == [False, False, True, False]
    assert all("train.epochs=2" in command and command[0] == sys.executable for command in ran)
    page = (tmp_path / "docs" / "t.md").read_text()
    assert demo_table.main([*arguments, "--", "train.epochs=3"]) == 0  # another command: all over again
    assert len(ran) == 7
    assert not any("--resume" in command for command in ran[4:])
    assert '`make demo-table ARGS="--seeds 0 -- train.epochs=2"`' in page
