"""Counter-based randomness: every draw is a pure function of its key, so there is no state to save or order to keep."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MASK = (1 << 64) - 1


def uniforms(
    seed: int, epoch: int, sample: int, view: int, count: int, *, purpose: int = 0
) -> NDArray[np.float64]:
    """`count` uniforms in [0, 1) that belong to (seed, epoch, sample id, view) and nothing else, shape (count,)."""
    counter = np.array([0, view, epoch, purpose], np.uint64)  # the lowest word counts the draws
    bits = np.random.Philox(key=np.array([seed & MASK, sample & MASK], np.uint64), counter=counter)
    return np.random.Generator(bits).random(count)


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
        self.keys = bits.random_raw(self.ROUNDS)

    def __call__(self, index: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where each index of range(n) goes; any shape."""
        value = np.atleast_1d(index).astype(np.uint64)  # scalars would warn of the overflow that is meant
        if value.size and int(value.max()) >= self.n:
            raise IndexError(f"index outside range({self.n})")
        value = self._feistel(value)
        while (outside := value >= self.n).any():
            value = np.where(outside, self._feistel(value), value)
        return value.astype(np.int64).reshape(np.shape(index))

    def _feistel(self, value: NDArray[np.uint64]) -> NDArray[np.uint64]:
        half, mask = np.uint64(self.half), np.uint64((1 << self.half) - 1)
        left, right = value >> half, value & mask
        for key in self.keys:
            left, right = right, left ^ (_mix(right ^ key) & mask)
        return (left << half) | right


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finaliser (Steele et al., 2014): every bit of the output depends on every bit of the input."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
