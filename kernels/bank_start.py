"""What a memory bank holds of a recording before it is seen: a direction drawn for its sample id (AVID's code: randn).

Element c of a row is one of 65,536 quantiles of the normal distribution, chosen by 16 bits of Philox4x32-10 under the
key `seed`, at the counter (c // 8, stream, id); then the row is normalised. So a row depends on neither the order nor
the number of the others, nor on the machine: there is no mathematical library in it but the table's.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from .bank_draw import halves, philox
from .bank_rows import Array

LEVELS = 1 << 16
_HALF = np.uint64(0xFFFF)


def start_rows(ids: Tensor, width: int, *, seed: int, stream: int) -> Tensor:
    """Unit vectors, uniform on the sphere, that are functions of (seed, stream, id).

    Args:
        ids: (N,) int64 on the CPU.
        width: d.
        stream: another number for directions that are independent of these, from 0 to 2^32 - 1.

    Returns:
        (N, d) float32.

    Raises:
        ValueError: `ids` is no int64 vector.
    """
    if ids.dtype != torch.int64 or ids.ndim != 1:
        raise ValueError(f"ids must be an int64 vector, got {ids.dtype} of shape {tuple(ids.shape)}")
    rows = torch.empty(len(ids), width)
    _fill(ids.contiguous().numpy(), _quantiles(), *halves(seed), np.uint64(stream), rows.numpy())
    return rows


@cache
def _quantiles() -> Array:
    """(LEVELS,) float32, the middles of equally likely parts."""
    middles = (torch.arange(LEVELS, dtype=torch.float64) + 0.5) / LEVELS
    table: Array = torch.special.ndtri(middles).float().numpy()
    return table


@njit(cache=True, parallel=True)  # type: ignore[untyped-decorator]
def _fill(ids: Array, table: Array, seed: Any, seed_high: Any, stream: Any, rows: Array) -> None:
    for i in prange(rows.shape[0]):
        words = np.empty((4, (rows.shape[1] + 7) // 8), np.uint64)
        for block in range(words.shape[1]):
            words[0, block], words[1, block] = block, stream
            words[2, block], words[3, block] = ids[i] & 0xFFFFFFFF, ids[i] >> 32 & 0xFFFFFFFF
        philox(words[0], words[1], words[2], words[3], seed, seed_high)
        total = 0.0
        for c in range(rows.shape[1]):
            x = table[words[c // 2 % 4, c // 8] >> np.uint64(c % 2 * 16) & _HALF]
            rows[i, c] = x
            total += np.float64(x) * np.float64(x)
        scale = np.float32(1 / np.sqrt(total))
        for c in range(rows.shape[1]):
            rows[i, c] *= scale
