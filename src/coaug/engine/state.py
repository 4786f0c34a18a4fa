"""What a checkpoint holds, and putting it back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from ..config import dump
from ..models.method import Method
from . import distributed
from .checkpoint import State
from .errors import TrainError
from .run_config import RunConfig, conflicts


@dataclass(frozen=True)
class Training:
    """Everything that changes while a run trains. The schedule is a function of the step and needs no state."""

    method: Method
    optimizer: Optimizer
    loader: Any
    config: RunConfig
    data: str
    """Fingerprint of the catalog."""

    def state(self, step: int) -> State:
        """The state after `step` completed steps (a collective: every rank calls it)."""
        return {
            "step": step,
            "config": dump(self.config),
            "data": self.data,
            "method": self.method.state_dict(),
            "memory": self.method.memory_state(),
            "optimizer": self.optimizer.state_dict(),
            "loader": distributed.gather_objects(self.loader.state_dict()),  # one a rank: ban lists differ
            "random": _random_state(),
        }

    def restore(self, state: State) -> int:
        """Takes a run up where `state` left it; returns its step.

        Raises:
            TrainError: one line naming what differs, if `state` is of a run that trains something else.
        """
        if differ := conflicts(state["config"], self.config):
            raise TrainError(
                f"cannot resume, the config changed: {'; '.join(differ)} (undo it, or use another --out)"
            )
        if state["data"] != self.data:
            raise TrainError("cannot resume: the catalog holds other recordings than when the run began")
        self.method.load_state_dict(state["method"])
        self.method.load_memory_state(state.get("memory", {}))
        self.optimizer.load_state_dict(state["optimizer"])
        states, rank = state["loader"], distributed.rank()
        self.loader.load_state_dict(states[rank] if len(states) == distributed.world_size() else states[0])
        _set_random_state(state["random"])
        return int(state["step"])


def _random_state() -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def _set_random_state(states: dict[str, Tensor]) -> None:
    torch.set_rng_state(states["cpu"])
    if torch.cuda.is_available() and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"])
