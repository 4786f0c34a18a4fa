"""The table of AVID's variants: verdicts of orderings, trainings and their configs."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

from coaug.engine import run_config


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    return import_module("avid_table")


def figures_of(table: ModuleType, value: float) -> dict[str, float]:
    keys = [key for keys in table.TABLES.values() for key in keys.values()]
    return dict.fromkeys([*keys, *table.SIMILARITIES.values()], value)


@pytest.mark.parametrize(
    ("differences", "strict", "verdict"),
    [
        ([0.1, 0.2], True, "shows, for every seed"),
        ([0.1], True, "shows in this run"),
        ([0.3, -0.1], True, "on average, not for every seed"),
        ([0.3, 0.0], True, "on average, not for every seed"),
        ([0.3, 0.0], False, "shows, for every seed"),
        ([0.0, 0.0], False, "shows, for every seed"),
        ([0.0, 0.0], True, "does not show"),
        ([0.1, -0.3], False, "does not show"),
    ],
)
def test_verdicts(table: ModuleType, differences: list[float], strict: bool, verdict: str) -> None:
    assert table.Ordering("", ("", ""), ("", ""), strict).verdict(differences) == verdict


def test_differences_are_of_the_same_seed_and_calibration_is_the_other_way_round(table: ModuleType) -> None:
    results = {name: [figures_of(table, 0.5), figures_of(table, 0.25)] for name in table.VARIANTS}
    for run, value in zip(results["Cross-AVID"], (0.75, 0.25), strict=True):
        run["linear.video.top1"] = run["memory.calibration.video.mean"] = value
    lines = {claim: (difference, verdict) for claim, difference, verdict in table.verdicts(results)}
    name = "Cross-AVID > Self-AVID, linear probe (Table 1): video"
    assert lines[name] == ("12.5 ± 17.7", "on average, not for every seed")
    name = "CMA >= Cross-AVID, linear probe (Fig. 4): video"
    assert lines[name] == ("-12.5 ± 17.7", "does not show")
    name = "CMA's random video memories are less alike than Cross-AVID's (Table 2)"
    assert lines[name] == ("12.5 ± 17.7", "on average, not for every seed")
    assert len(lines) == len(table.ORDERINGS)


def test_the_page_has_what_the_runs_have_and_no_more(table: ModuleType) -> None:
    results = {name: [figures_of(table, 0.5)] for name in table.VARIANTS}
    results["CMA"][0].pop("linear.video.top1")
    for runs in results.values():
        runs[0].pop("memory.precision.either.p4")
    page = table.page(results, [0], [["coaug", "train", "cma-demo"]])
    assert "| video | 50.0 | 50.0 | 50.0 |  |" in page
    assert "linear probe (Fig. 4): audio |" in page
    assert "linear probe (Fig. 4): video |" not in page
    assert "either, K=4" not in page
    assert "One run, seed 0" in page
    assert "    coaug train cma-demo\n" in page


def test_columns_of_sweeps_and_their_claims(table: ModuleType) -> None:
    columns = table.sweeps([0.1, 10.0], ["video"])
    assert list(columns) == ["CMA, λ=0.1", "CMA, λ=10", "CMA, video"]
    assert columns["CMA, λ=0.1"][-1] == "model.within=0.1"
    assert [table.folder_of(name) for name in columns] == ["cma-lambda-0.1", "cma-lambda-10", "cma-video"]
    claims = [ordering.claim for ordering in table.swept(columns)]
    assert claims[0] == "CMA, λ=0.1 >= Cross-AVID, linear probe (Fig. 4): video, best block"
    assert claims[-1] == "CMA > CMA, video, linear probe (Fig. 6a): audio"


def test_every_training_has_a_valid_config(table: ModuleType, tmp_path: Path) -> None:
    columns = table.VARIANTS | table.sweeps([0.1], ["video", "audio", "either"])
    tasks = {}
    for name, words in columns.items():
        command = table.training(words, 7, tmp_path / "pack", tmp_path)
        config = run_config.load(command[2], [word for word in command[3:] if "=" in word])
        assert config.train.seed == 7
        assert config.eval.evaluators == ("linear", "within", "memory")
        tasks[name] = config.model["task"], config.model.get("within"), config.method
    assert [tasks[n] for n in ("Self-AVID", "Joint-AVID")] == [
        ("self", None, "avid"),
        ("joint", None, "avid"),
    ]
    assert tasks["CMA, λ=0.1"] == ("cross", 0.1, "cma")
    assert tasks["CMA"][0] == tasks["Cross-AVID"][0] == "cross"


def test_trainings_are_run_once_and_the_pack_is_made_where_it_is_missing(
    table: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[list[str]] = []

    def call(command: list[str]) -> int:
        ran.append(command[3:])
        if command[3] == "pack":
            return 0
        out = Path(command[command.index("--out") + 1])
        (out / "metrics.json").write_text(json.dumps(figures_of(table, 0.5)))
        return 0

    monkeypatch.setattr("subprocess.call", call)
    monkeypatch.setattr(table, "PACK", tmp_path / "data" / "demo-pack")
    monkeypatch.setattr("coaug.pipelines.demo.write_demo", lambda folder: folder)
    arguments = ["--seeds", "3", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "docs" / "t.md")]
    assert table.main([*arguments, "--expansions", "video", "--", "train.epochs=2"]) == 0
    pack, *trainings = ran
    assert pack[:3] == ["pack", str(tmp_path / "data" / "demo"), str(tmp_path / "data" / "demo-pack")]
    assert len(trainings) == 5
    assert all({"train.seed=3", "train.epochs=2"} <= set(command) for command in trainings)
    assert sys.executable not in trainings[0]
    assert "λ" not in (tmp_path / "docs" / "t.md").read_text()
    assert (
        table.main([*arguments, "--data", str(tmp_path), "--expansions", "video", "--", "train.epochs=2"])
        == 0
    )
    assert len(ran) == 1 + 5 + 5  # other data: other commands
