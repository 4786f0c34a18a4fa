"""One recording of the demo set: everything that its number decides."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .events import EVENTS
from .events.event import Event
from .picture import Look, design, film
from .score import Array, Score, compose

SPLITS = ("train", "test")
SUFFIXES = {".mp4": 0.75, ".webm": 0.15, ".avi": 0.10}
SAMPLE_RATES = {".mp4": (44100, 48000, 32000), ".webm": (48000,), ".avi": (44100, 48000)}


@dataclass(frozen=True)
class Recording:
    """A film before it is encoded.

    Attributes:
        event: Its class.
        score, look: What happens, and how it looks.
        suffix: Of the file: the container and its codecs.
        sample_rate, channels: Of the sound.
        gain, hiss: Loudness of the sound and of the noise under it, independent of what is seen.
        pan: In [-1, 1], left to right: where the stage stands.
    """

    event: Event
    score: Score
    look: Look
    suffix: str
    sample_rate: int
    channels: int
    gain: float
    hiss: float

    @classmethod
    def draw(cls, split: str, seed: int, index: int) -> Recording:
        """File `index` of a split: the same for ever, whoever draws it in whatever order."""
        held_out = split == "test"
        turn, kind = divmod(index, len(EVENTS))
        rng = np.random.default_rng([seed, SPLITS.index(split), index])
        suffix = str(rng.choice(list(SUFFIXES), p=list(SUFFIXES.values())))
        return cls(
            event=list(EVENTS.values())[kind],
            score=compose(rng, rng.uniform(6.0, 7.5), _place(split, seed, turn, kind), held_out),
            look=design(rng, held_out, dark=turn % 2 == 0),
            suffix=suffix,
            sample_rate=int(rng.choice(SAMPLE_RATES[suffix])),
            channels=int(rng.integers(1, 3)),
            gain=float(10 ** rng.uniform(-0.6, -0.1)),
            hiss=float(10 ** rng.uniform(-3.0, -1.9)),
        )

    def frames(self) -> Iterator[Array]:
        """(H, W, 3) uint8 pictures at `look.rate`."""
        return film(self.event, self.score, self.look)

    def samples(self) -> Array:
        """(channels, S) float32 sound in [-1, 1]; in stereo it comes from where the stage stands."""
        wave = self.event.play(self.score, self.sample_rate)
        wave = self.gain * wave / max(float(abs(wave).max()), 1e-6)
        rng = np.random.default_rng(self.score.seed + 1)
        wave = wave + self.hiss * rng.standard_normal(len(wave), dtype=np.float32)
        pan = 3 * self.look.centre[0] if self.channels == 2 else 0.0
        sides = np.array([[1 - pan], [1 + pan]], np.float32)[: self.channels]
        return np.clip(wave * sides, -1, 1).astype(np.float32)


def _place(split: str, seed: int, turn: int, kind: int) -> Array:
    """The `turn`-th point of a class in [0, 1)^3: an even spread, so that few files of a class are alike.

    Roberts' R_3 sequence (2018), "The unreasonable effectiveness of quasirandom sequences", at a random offset.
    """
    offset = np.random.default_rng([seed, SPLITS.index(split), kind, 3]).random(3)
    golden = 1.2207440846057596  # the root of x**4 = x + 1
    return np.asarray((offset + turn * golden ** -np.arange(1.0, 4.0)) % 1.0)
