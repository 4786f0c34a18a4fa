"""What a loader has seen go well and badly, and how much of the latter it puts up with."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .deadline import STAGES
from .source import BANNED

log = logging.getLogger("coaug.loader")


class LoaderError(RuntimeError):
    """The loader cannot go on, or cannot start; the message says why and what to do."""


@dataclass(frozen=True)
class ErrorBudget:
    """How much may go wrong before a run stops: `count` failures, or more than `rate` of all samples once `after`
    samples have been seen."""

    count: int = 100_000
    rate: float = 0.1
    after: int = 200

    def exceeded(self, failures: int, samples: int) -> bool:
        """Whether to stop."""
        return failures > self.count or (samples >= self.after and failures > self.rate * samples)


class Tally:
    """Samples, failures by reason, the `last` of these, the source's seconds by stage, frames decoded and shown."""

    def __init__(self, budget: ErrorBudget, known: Iterable[str] = ()) -> None:
        self.budget = budget
        self.samples = 0
        self.failures: Counter[str] = Counter()
        self.last = next(iter(known), "before this run was resumed")
        self._seconds = dict.fromkeys(STAGES, 0.0)
        self._decoded = self._shown = 0

    def count(self, errors: Sequence[str], seconds: Sequence[float], frames: Sequence[int]) -> list[int]:
        """Take in a batch: an error (or "") for each row, seconds for each stage, frames decoded and shown.

        Returns:
            The rows that failed and were not known to.

        Raises:
            LoaderError: the budget is used up.
        """
        self.samples += len(errors)
        self._seconds = {s: self._seconds[s] + t for s, t in zip(STAGES, seconds, strict=True)}
        self._decoded, self._shown = self._decoded + frames[0], self._shown + frames[1]
        self.failures.update(error for error in errors if error)
        fresh = [row for row, error in enumerate(errors) if error and error != BANNED]
        for row in fresh:
            self.note(errors[row])
        failures = self.failures.total()
        if self.budget.exceeded(failures, self.samples):
            raise LoaderError(
                f"{failures} of {self.samples} samples could not be read, more than the error budget allows; "
                f"the last: {self.last}"
            )
        return fresh

    def note(self, error: str) -> None:
        """Say that a file is left out, and why."""
        self.last = error
        log.warning("left out: %s", error)

    def report(self, epoch: int) -> None:
        """Log the counts at an epoch's end."""
        failures, banned = self.failures.total(), self.failures[BANNED]
        log.log(
            logging.WARNING if failures else logging.INFO,
            "%d samples after epoch %d; %d of them not valid, %d of these banned before",
            *(self.samples, epoch, failures, banned),
        )

    def stats(self) -> dict[str, float]:
        """Counts so far, frames decoded for each one shown, and the source's mean milliseconds a sample by stage."""
        stages = {f"ms.{s}": 1e3 * t / max(self.samples, 1) for s, t in self._seconds.items()}
        cost = {"decoded_per_shown": self._decoded / max(self._shown, 1)}
        return {"samples": self.samples, "failures": self.failures.total(), **cost, **stages}

    def state_dict(self) -> dict[str, Any]:
        """The counts, as plain values."""
        return {"failures": dict(self.failures), "samples": self.samples}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on counting from `state`."""
        self.samples, self.failures = state["samples"], Counter(state["failures"])
