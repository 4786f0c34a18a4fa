"""A pack whose making is cut short: killed at any moment, or on a full disk, it goes on as if nothing had been."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections import namedtuple
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from packs import contents, in_this_process, quick

from coaug.pipelines.catalog import CatalogError
from coaug.pipelines.packed import index
from coaug.pipelines.packed import pack as module

COMMAND = [sys.executable, "-m", "coaug.cli", "pack"]
OPTIONS = ["--video", "h264", "--size", "32", "--keyint", "4", "--samples", "2", "--workers", "2"]


@pytest.mark.parametrize("parts", [2, 8])
def test_a_run_that_was_killed_goes_on(
    packable_catalog: Path, pack_folder: Path, tmp_path: Path, parts: int
) -> None:
    """Its workers, which nobody killed, may still be writing what they were at."""
    out = tmp_path / "pack"
    process = subprocess.Popen([*COMMAND, packable_catalog, out, *OPTIONS], stdout=subprocess.DEVNULL)
    deadline, seen = time.monotonic() + 60, set[str]()
    while len(seen) < parts and process.poll() is None and time.monotonic() < deadline:
        with suppress(FileNotFoundError):
            seen |= {entry.name for entry in os.scandir(out / ".packing") if entry.name[0] != "."}
    process.kill()
    process.wait()
    assert len(seen) >= parts
    with in_this_process():
        quick(packable_catalog, out)
    assert contents(out) == contents(pack_folder)


DYING = """
import os, signal, sys
from pathlib import Path
from packs import in_this_process, quick
left = int(sys.argv[3])
def dying(before):
    def call(*arguments, **named):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return before(*arguments, **named)
    return call
os.replace, Path.unlink, os.fsync = dying(os.replace), dying(Path.unlink), dying(os.fsync)
with in_this_process():
    quick(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def test_a_run_that_is_killed_again_and_again_goes_on(
    packable_catalog: Path, pack_folder: Path, tmp_path: Path
) -> None:
    """Each time before the next file is moved to its place, taken away or brought to the disk."""
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    ends = []
    for moment in (3, 8, 11, 13, 14, 16, 17, 200):
        command = [sys.executable, "-c", DYING, packable_catalog, tmp_path / "pack", str(moment)]
        ends.append(subprocess.run(command, check=False, env={**os.environ, "PYTHONPATH": path}).returncode)
    assert ends[:5] == [-signal.SIGKILL] * 5 and ends[-1] == 0
    assert contents(tmp_path / "pack") == contents(pack_folder)


@pytest.mark.usefixtures("pack_here")
def test_a_full_disk_ends_the_run_and_rejects_nothing(
    packable_catalog: Path, pack_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, real = [], index.write

    def full(rows: Any, path: Path) -> None:
        written.append(path)
        if len(written) > 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(rows, path)

    with monkeypatch.context() as patch:
        patch.setattr(index, "write", full)
        with pytest.raises(CatalogError, match="No space left"):
            quick(packable_catalog, tmp_path / "pack")
    assert quick(packable_catalog, tmp_path / "pack").rejects == ()
    assert contents(tmp_path / "pack") == contents(pack_folder)


Disk = namedtuple("Disk", "total used free")


@pytest.mark.usefixtures("pack_here")
def test_too_little_room_is_told_beforehand(
    packable_catalog: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(module.shutil, "disk_usage", lambda _: Disk(10**6, 10**6, 1000))
        patch.setattr(module, "TRIED", 2)
        with pytest.raises(CatalogError, match=r"will be needed, .* are free; .*--size"):
            quick(packable_catalog, tmp_path / "pack")
    assert not list((tmp_path / "pack").glob("*.tar"))
    assert len(list((tmp_path / "pack" / ".packing").glob("*.tar"))) == 2  # no more than it takes to tell
    quick(packable_catalog, tmp_path / "pack")
