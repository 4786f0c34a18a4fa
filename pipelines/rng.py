"""Counter-based randomness: every draw is a pure function of its key, so there is no state to save or order to keep."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

MASK = (1 << 64) - 1
Words = Any  # an int of 64 bits, or an array of uint64: the arithmetic is the same


def uniforms(
    seed: int, epoch: int, sample: int, view: int, count: int, *, purpose: int = 0
) -> NDArray[np.float64]:
    """`count` uniforms in [0, 1) that belong to (seed, epoch, sample id, view) and nothing else, shape (count,)."""
    key = np.array([seed & MASK, sample & MASK], np.uint64)
    counter = np.array([0, view, epoch, purpose], np.uint64)  # the lowest word counts the draws
    return _keyed.generator(key, counter).random(count)


class _Keyed(threading.local):
    """A generator that is set to a key: a new one would first ask the system for entropy, three times the work."""

    def __init__(self) -> None:
        self._bits = np.random.Philox(0)
        self._generator = np.random.Generator(self._bits)
        self._fresh = self._bits.state

    def generator(self, key: NDArray[np.uint64], counter: NDArray[np.uint64]) -> np.random.Generator:
        """As `Generator(Philox(key=key, counter=counter))`, until the thread asks for the next one."""
        self._bits.state = self._fresh | {"state": {"key": key, "counter": counter}}
        return self._generator


_keyed = _Keyed()


class Permutation:
    """A keyed permutation of range(n), O(1) in time and memory an element: a Feistel network, walked until inside."""

    ROUNDS = 6

    def __init__(self, n: int, seed: int, epoch: int) -> None:
        if n < 1:
            raise ValueError(f"nothing to permute: {n = }")
        self.n = n
        self.half = max(1, (max(n - 1, 1).bit_length() + 1) // 2)  # 4^half >= n
        key, counter = [seed & MASK, epoch & MASK], [0, 0, 0, MASK]
        bits = np.random.Philox(key=np.array(key, np.uint64), counter=np.array(counter, np.uint64))
        self.keys: list[int] = bits.random_raw(self.ROUNDS).tolist()

    def __call__(self, index: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where each index of range(n) goes; any shape."""
        # not a scalar, which would warn of the overflow that is meant
        value: Words = np.atleast_1d(index).astype(np.uint64)
        if value.size and int(value.max()) >= self.n:
            raise IndexError(f"index outside range({self.n})")
        value = self._feistel(value)
        while (outside := value >= self.n).any():
            value = np.where(outside, self._feistel(value), value)
        return np.asarray(value.astype(np.int64).reshape(np.shape(index)))

    def place(self, index: int) -> int:
        """Where one index goes: as of an array of one, in a tenth of the time."""
        if not 0 <= index < self.n:
            raise IndexError(f"index {index} outside range({self.n})")
        value: int = self._feistel(index)
        while value >= self.n:
            value = self._feistel(value)
        return value

    def _feistel(self, value: Words) -> Words:
        mask = (1 << self.half) - 1
        left, right = value >> self.half, value & mask
        for key in self.keys:
            left, right = right, left ^ (_mix(right ^ key) & mask)
        return (left << self.half) | right


def _mix(x: Words) -> Words:
    """SplitMix64's finaliser (Steele et al., 2014): every bit of the output depends on every bit of the input."""
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & MASK
    return x ^ (x >> 31)
