"""Checkpoints: written whole or not at all, verified when read, few of them kept."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from .errors import TrainError
from .run_config import KeepConfig

State = dict[str, Any]


def write_whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Lets `write` fill a temporary file and renames it to `path` once it is on disk: readers see all or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    write(part)
    _flush(part)
    os.replace(part, path)
    _flush(path.parent)  # the rename itself


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Checkpoints:
    """The checkpoints of one run: `folder`/step-00000120.pt.

    Args:
        folder: made when the first one is written.
        every: steps between checkpoints.
        keep: which ones stay.
        steps_per_epoch: makes steps of the epochs in `keep`.
    """

    def __init__(self, folder: Path, every: int, keep: KeepConfig, steps_per_epoch: int) -> None:
        self.folder, self.every, self.keep = folder, every, keep
        self._milestone = keep.every_epochs * steps_per_epoch

    def due(self, step: int) -> bool:
        """Whether the rule asks for a checkpoint after `step` completed steps."""
        return step % self.every == 0 or self._lasting(step)

    def save(self, step: int, state: State) -> Path:
        """Writes `state` and deletes what `keep` does not cover."""
        path = self.folder / f"step-{step:08d}.pt"
        write_whole(path, lambda part: torch.save(state, part))
        for old in self.paths()[: -self.keep.last]:
            if not self._lasting(_step(old)):
                old.unlink(missing_ok=True)
        return path

    def paths(self) -> list[Path]:
        """Complete checkpoints, oldest first."""
        return sorted(self.folder.glob("step-*.pt"), key=_step)

    def newest(self, warn: Callable[[str], None]) -> State | None:
        """The newest readable state; None when there is no checkpoint at all. `warn` is told of unreadable ones.

        Raises:
            TrainError: if there are checkpoints and none can be read.
        """
        paths = self.paths()
        for path in reversed(paths):
            try:
                return read_state(path)
            except TrainError as error:
                warn(f"{error}; trying the one before")
        if paths:
            raise TrainError(
                f"no readable checkpoint among {len(paths)} in {self.folder}; start without --resume"
            )
        return None

    def _lasting(self, step: int) -> bool:
        return self._milestone > 0 and step % self._milestone == 0


def _step(path: Path) -> int:
    return int(path.stem.partition("-")[2])


def read_state(path: Path) -> State:
    """The state in `path`, on the CPU. Tensors and plain values only: nothing in the file is executed.

    Raises:
        TrainError: one line naming a file that is damaged, cut short or not a checkpoint.
    """
    try:
        with zipfile.ZipFile(path) as archive:  # torch does not look at the checksums it writes
            if damaged := archive.testzip():
                raise ValueError(f"checksum of {damaged}")
        state: State = torch.load(path, map_location="cpu", weights_only=True)
        return state
    except Exception as error:  # zipfile, pickle and torch raise a dozen kinds for damaged bytes
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
        raise TrainError(f"checkpoint {path} cannot be read ({reason})") from None
