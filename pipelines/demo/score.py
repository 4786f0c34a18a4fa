"""What one recording is about: when things happen, how strongly, how high. Picture and sound both read it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

MARGIN = (
    1.5  # seconds of events before and after the recording: tails ring in, movements have somewhere to go
)
SHORTEST = 0.2  # seconds between two events: about two of the frames that a network is shown
RHYTHMS = ((1.0,), (0.62, 1.38), (0.7, 0.7, 1.6), (0.8, 0.8, 0.8, 1.6))


@dataclass(frozen=True)
class Score:
    """One recording's events. `times`, `strengths` and `steps` are (E,), ascending in time.

    Attributes:
        seconds: Length of the recording; events reach `MARGIN` beyond both ends.
        times: Seconds at which something happens, seen and heard at the same instant.
        strengths: In (0, 1]: how far things move and how loud they are.
        steps: In [-0.5, 0.5]: which of several places is struck, and the pitch that goes with it.
        pitch: In [0, 1], low to high; large things are low.
        tempo: Mean events a second.
        ring: Seconds in which light and sound of an event fall to 1/e.
        seed: For what else has to be drawn, alike in picture and sound.
    """

    seconds: float
    times: Array
    strengths: Array
    steps: Array
    pitch: float
    tempo: float
    ring: float
    seed: int

    @property
    def size(self) -> float:
        """Factor on lengths of the sounding thing: 1.45 for the lowest pitch, 0.55 for the highest."""
        return float(1.45 * (0.55 / 1.45) ** self.pitch)

    def hertz(self, low: float, octaves: float, step: float = 0.0) -> float:
        """Frequency of the recording's pitch in a range that starts at `low`, `step` octaves off."""
        return float(low * 2.0 ** (octaves * self.pitch + step))

    def last(self, t: float) -> int:
        """Index of the latest event at or before `t` seconds."""
        return int(np.searchsorted(self.times, t, side="right")) - 1

    def since(self, t: float) -> float:
        """Seconds since the latest event."""
        return float(t - self.times[self.last(t)])

    def phase(self, t: float) -> tuple[int, float]:
        """The latest event and how far, in [0, 1), the time has come towards the next."""
        i = self.last(t)
        return i, float((t - self.times[i]) / (self.times[i + 1] - self.times[i]))

    def gap(self, i: int) -> float:
        """Seconds from event i to the next."""
        return float(self.times[i + 1] - self.times[i])

    def glow(self, t: float) -> float:
        """Strength of the latest event, fading as its sound does."""
        i = self.last(t)
        return float(self.strengths[i] * np.exp(-(t - self.times[i]) / self.ring))

    def beats(self, t: Array | float) -> Array:
        """Events so far as a continuous count: the angle of everything that turns."""
        return np.asarray(np.interp(t, self.times, np.arange(len(self.times))))


def compose(rng: np.random.Generator, seconds: float, place: Array, held_out: bool) -> Score:
    """Draw a score. `place`, in [0, 1)^3, decides tempo, pitch and ring; held-out pitches lie between training's."""
    tempo = float(1.15 * 3.1 ** place[0])
    times = _times(rng, tempo, seconds)
    return Score(
        seconds=seconds,
        times=times,
        strengths=_strengths(rng, len(times)),
        steps=_steps(rng, len(times)),
        pitch=_pitch(float(place[1]), held_out),
        tempo=tempo,
        ring=max(0.06, (0.1 + 0.9 * float(place[2])) / tempo),
        seed=int(rng.integers(2**31)),
    )


def _times(rng: np.random.Generator, tempo: float, seconds: float) -> Array:
    """A rhythm repeated with human unevenness. No two recordings share their instants."""
    count = int(4 + (seconds + 2 * MARGIN) / SHORTEST)
    rhythm = np.resize(np.roll(RHYTHMS[rng.integers(len(RHYTHMS))], rng.integers(4)), count)
    gaps = np.maximum(rhythm / tempo * np.exp(rng.normal(0, 0.12, count)), SHORTEST)
    times = np.cumsum(gaps) - MARGIN - rng.uniform(1.0, 2.0) * gaps[0]
    return np.asarray(times[: int(np.searchsorted(times, seconds + MARGIN)) + 2])


def _strengths(rng: np.random.Generator, count: int) -> Array:
    """Every n-th event is accented, by more or less."""
    every = int(rng.integers(1, 5))
    weak = rng.uniform(0.3, 0.8)
    accent = (np.arange(count) + rng.integers(every)) % every == 0
    return np.asarray(np.where(accent, 1.0, weak) * rng.uniform(0.85, 1.0, count))


def _steps(rng: np.random.Generator, count: int) -> Array:
    """A melody of five places, wide or narrow, wandering or alternating."""
    spread = rng.uniform(0.1, 1.0)
    wander = rng.integers(0, 5, count)
    alternate = (np.arange(count) % 2) * 4
    places = wander if rng.random() < 0.6 else alternate
    return np.asarray((places / 4 - 0.5) * spread)


def _pitch(place: float, held_out: bool) -> float:
    """Training takes the outer two thirds of each sixth of the range, held-out files the middle third."""
    sixth, inner = divmod(6 * place, 1.0)
    inner = (1 + inner) / 3 if held_out else (2 * inner - 1) / 3 % 1.0
    return (sixth + inner) / 6
