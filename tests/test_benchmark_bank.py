"""The bank's benchmark runs, and measures what it says."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = str(Path(__file__).parents[1] / "benchmarks")


@pytest.fixture
def bank() -> Iterator[ModuleType]:
    sys.path.insert(0, FOLDER)
    try:
        yield import_module("bank")
    finally:
        sys.path.remove(FOLDER)


def test_every_size_and_storage_has_its_three_rows(
    bank: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "bank.json"
    options = ["--n", "700", "300", "--search", "50", "--repeats", "2", "--threads", "1", "--json", str(out)]
    monkeypatch.setattr(sys, "argv", ["bank.py", *options])
    bank.main()
    rows = json.loads(out.read_text())
    search = "search, estimated from 50 recordings"
    assert [(row["n"], row["storage"], row["what"]) for row in rows] == [
        (n, storage, what)
        for n in (700, 300)
        for storage in ("float32", "float16")
        for what in ("start", "step", search)
    ]
    assert all(row["seconds"] > 0 and row["threads"] == 1 for row in rows)
