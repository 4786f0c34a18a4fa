"""CMA: AVID with positives by cross-modal agreement (Morgado et al., section 3.3).

    Cross-AVID + lambda wMPD: each modality is also drawn to the memories of its positives, within it   (Eq. 9, 10)

Positives are the recordings that agree most in both modalities' memories (Eq. 7), and are never negatives (Eq. 8).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ..config import ConfigError
from .avid import Avid, NonNegative, Size, place
from .positives import PositivesConfig, chosen, excluded, find
from .rows import Rows, own_span
from .tasks import WITHIN, Term


class CMA(Avid):
    """AVID whose recordings are drawn to those that agree with them, and not told from them."""

    @dataclass(frozen=True)
    class Config(Avid.Config):
        """As for AVID; defaults: section 5."""

        positives: PositivesConfig = field(default_factory=PositivesConfig)
        within: NonNegative = 1.0
        """lambda of Eq. 10."""
        negatives_within: Size | None = None
        """Negatives of the within-modal tasks, the first of those drawn (null: all)."""

    config: CMA.Config

    def __init__(self, config: CMA.Config) -> None:
        super().__init__(config)
        self.positives: Rows | None = None
        self._first = config.positives.first_epoch

    def attach(self, recordings: Tensor, seed: int) -> None:
        """As for AVID. Raises ConfigError where positives leave no negatives."""
        super().attach(recordings, seed)
        count, found = len(self.remembered()), self.config.positives.found
        if count < found + 2:
            raise ConfigError(
                f"model.positives.found: {found} positives of each of {count} recordings leave no negatives"
            )

    def before_step(self, step: int, steps_per_epoch: int) -> str:
        """At the start of an epoch that the schedule names, looks for positives (all ranks)."""
        super().before_step(step, steps_per_epoch)
        epoch, within = divmod(step, steps_per_epoch)
        if within or not self.config.positives.due(epoch, self._first):
            return ""
        if not self.remembered().seen:
            raise ConfigError(
                "model.positives.first_epoch: the memory has seen nothing yet; start from a run (--init runs/avid), or "
                f"look for positives later than in epoch {epoch}"
            )
        self.positives, score = find(self.remembered(), self.config.positives)
        how = f"{self.config.positives.found} positives each by {self.config.positives.expansion}"
        return f"epoch {epoch}: {how}, on average {score:.3f} alike"

    def terms(self, rows: Tensor) -> list[Term]:
        """Cross-AVID and wMPD; before there are positives, as for AVID (all ranks)."""
        if self.positives is None:
            return super().terms(rows)
        config, first = self.config, place(rows)
        found = self.positives.take(rows.clamp(min=0)).long().masked_fill(rows[:, None] < 0, -1)
        apart = excluded(rows, found, len(self.remembered()))
        drawn = chosen(found, config.positives.drawn, seed=self._seed, step=self._step, offset=first)
        fewer = config.negatives_within or config.negatives
        return [
            *(term._replace(excluded=apart) for term in super().terms(rows)),
            *(Term(task, drawn, apart, fewer, config.within) for task in WITHIN),
        ]

    def memory_state(self) -> dict[str, Any]:
        """With the positives, as rows of the sorted sample ids."""
        state = super().memory_state()
        if state and self.positives is not None:
            state["positives"] = self.positives.saved()
        return state | {"first_epoch": self._first} if state else state

    def load_memory_state(self, state: Mapping[str, Any]) -> None:
        """Goes on with both."""
        super().load_memory_state(state)
        self._first = state.get("first_epoch", self._first)
        if "positives" in state:
            memory, found = self.remembered(), state["positives"]
            first, last = own_span(len(memory)) if memory.config.placement == "sharded" else (0, len(memory))
            part = found[first:last].clone().to(memory.ids.device)
            self.positives = Rows(len(memory), part, memory.config.placement)

    def inherit(self, state: Mapping[str, Any]) -> str:
        """As for AVID; positives are looked for at once, in what was taken over."""
        told = super().inherit(state)
        self._first = 0 if self.remembered().seen else self._first
        return told
