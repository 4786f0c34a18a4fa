"""The built wheel, installed elsewhere, has everything; the rooms are importable under one name only."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import coaug
from coaug.config import presets

ROOT = Path(coaug.__file__).resolve().parents[2]
PROBE = """
import sys
sys.path.insert(0, sys.argv[1])
import coaug, coaug.cli, coaug.train, coaug.pipelines.loader
from coaug.config import presets, read
assert coaug.__file__.startswith(sys.argv[1]), coaug.__file__
assert all(read(name) for name in presets())
assert not {"kernels", "models", "losses", "eval", "pipelines", "train"} & set(sys.modules)
print(*presets())
"""


def python(*arguments: str, cwd: Path) -> str:
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=cwd, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_installed_wheel_finds_its_presets(tmp_path: Path) -> None:
    if not (ROOT / "pyproject.toml").is_file():
        pytest.fail("the tests run in a checkout")
    python("-m", "build", "--no-isolation", "--outdir", str(tmp_path), str(ROOT), cwd=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    python(
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-index",
        "--target",
        str(site),
        str(wheel),
        cwd=tmp_path,
    )
    assert python("-c", PROBE, str(site), cwd=tmp_path).split() == list(presets())
