"""Where a run begins that does not begin from nothing: `--init`, another run or a checkpoint of a paper's authors."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

from ..models.method import Method
from .checkpoint import Checkpoints, State, read_state
from .errors import TrainError
from .run_config import KeepConfig


def inherit(method: Method, source: Path, tell: Callable[[str], None]) -> None:
    """Takes over what was learned in `source`: weights and memory, but neither optimiser nor step (all ranks).

    Args:
        method: attached to this run's recordings.
        source: a run's folder (its newest checkpoint), one of its checkpoints, or a file that the method can read.
        tell: is told what was taken over.

    Raises:
        TrainError: nothing there, or networks of another shape.
        ConfigError: a file in a format that the method does not know.
    """
    if not source.exists():
        raise TrainError(f"--init {source}: there is no such run or file")
    state = _state(source, tell)
    if state is None:
        tell(method.load_published(source))
        return
    try:
        method.load_state_dict(state["method"])
    except RuntimeError as error:
        _, *reasons = (line.strip() for line in str(error).splitlines())
        more = f" and {len(reasons) - 3} more" if len(reasons) > 3 else ""
        raise TrainError(f"--init {source}: of other networks; {' '.join(reasons[:3])}{more}") from None
    told = method.inherit(state.get("memory", {}))
    tell(f"starting from {source} after step {state['step']}" + (f"; {told}" if told else ""))


def _state(source: Path, tell: Callable[[str], None]) -> State | None:
    """A checkpoint of ours; None for a file that is another's."""
    if source.is_dir():
        state = Checkpoints(source / "checkpoints", 1, KeepConfig(), 1).newest(tell)
        if state is None:
            raise TrainError(f"--init {source}: no checkpoint in {source / 'checkpoints'}")
        return state
    if not zipfile.is_zipfile(source):
        return None
    state = read_state(source)
    return state if isinstance(state, dict) and "method" in state else None
