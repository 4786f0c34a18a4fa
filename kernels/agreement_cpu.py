"""agreement_topk on the CPU: tiles of int8 or float32 products, candidates with bounds, float64 ranking.

int8 products are taken where the processor has them four times as fast as float32 (VNNI, AMX). Rows whose candidates
are too many to keep, as with thousands of equal keys, get every key's score in float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from . import agreement_bounds as bounds
from .agreement_bounds import Encoded
from .agreement_exact import rank, scan
from .agreement_prune import OPEN, Candidates, Table, room
from .agreement_select import Side, Tile, admit

Rows = NDArray[np.int64]
_QUERIES, _KEYS = 256, 2048  # of a tile, for one thread: its products stay in the core's cache
_INT8_WIDTH = 2**31 // 127**2  # beyond, an int32 sum of products could overflow
_LOOKS = 1 / 16  # a row's share of keys looked at in float32, beyond which tiles are better in float32 too


@dataclass(frozen=True)
class Problem:
    """`tables`: one or two (N, d) of float32 or float64; `sign`: 1 for the smaller of both products, -1 for the larger;
    `own`: whether a row may find itself; `tile`: queries and keys of a tile."""

    tables: tuple[Tensor, ...]
    sign: int
    own: bool
    tile: tuple[int, int]

    def barred(self, queries: Rows) -> Rows:
        """(R,) the key that each of these rows must not find, or -1."""
        return np.full_like(queries, -1) if self.own else queries


def topk(
    tables: tuple[Tensor, ...], k: int, sign: int, queries: Tensor, exclude_self: bool, block: int
) -> tuple[Tensor, Tensor]:
    """The op's work on CPU tensors; see `agreement_topk.agreement_topk`.

    Args:
        tables: video and audio, or the one that matters.
        sign: 1 for min, -1 for max.
        queries: (Q,) int64.
        block: queries and keys of a tile; 0 for what fits the cache.
    """
    tile = (block, block) if block else (_QUERIES * torch.get_num_threads(), _KEYS)
    wide = tuple(x if x.dtype == torch.float64 else x.float() for x in tables)
    problem = Problem(wide, sign, not exclude_self, tile)
    values = np.full((len(queries), k), -np.inf)
    keys = np.full((len(queries), k), -1, np.int64)
    with _threads_of_torch():
        _search(problem, queries.numpy(), values, keys)
    return torch.from_numpy(values).float(), torch.from_numpy(keys)


def _search(problem: Problem, queries: Rows, values: NDArray[np.float64], keys: Rows) -> None:
    """Fill values and keys, a block of queries at a time."""
    power = bounds.exponent(*problem.tables)
    exact = [bounds.encode(x, power, bounds.float32) for x in problem.tables]
    fine = coarse = Codes(exact, problem)
    if _has_int8(exact):
        coarse = Codes([bounds.encode(x, power, bounds.int8) for x in problem.tables], problem)
    table = fine.table(problem.sign)
    # float32 rows over a power of two are the rows themselves, and those just looked at are still in the cache
    same = all(x.dtype == torch.float32 for x in problem.tables) and not any(x.error.any() for x in exact)
    video, audio = (
        (table.video, table.audio) if same else (problem.tables[0].numpy(), problem.tables[-1].numpy())
    )
    for start in range(0, len(queries), problem.tile[0]):
        part = slice(start, start + problem.tile[0])
        rows = queries[part]
        found = _candidates(problem, coarse, table, rows, keys.shape[1])
        rank(rows, table, found, video, audio, values[part], keys[part])
        unsettled = np.flatnonzero(found.size == OPEN)
        scan(rows, problem.barred(rows), unsettled, video, audio, problem.sign, values[part], keys[part])
        if found.looks.mean() > _LOOKS * len(video):  # int8 tells too few keys apart here
            coarse = fine
    if same:
        values *= np.ldexp(1.0, 2 * int(power))


@contextmanager
def _threads_of_torch() -> Iterator[None]:
    """Numba's loops on as many threads as torch's products: more would wait for each other at every tile."""
    threads = torch.get_num_threads()
    before = numba.get_num_threads()
    numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
    torch.set_num_threads(
        threads
    )  # starting Numba's threads changes torch's number where both use one OpenMP
    try:
        yield
    finally:
        numba.set_num_threads(before)


def _has_int8(rows: list[Encoded]) -> bool:
    # without VNNI int8 products are slow, and on some processors they saturate; of one column torch's are wrong
    widths = [x.codes.shape[1] for x in rows]
    return min(widths) > 1 and max(widths) <= _INT8_WIDTH and bool(torch.cpu._is_vnni_supported())


class Codes:
    """Rows of every modality in one type, with bounds, as queries and in tiles as keys."""

    def __init__(self, rows: list[Encoded], problem: Problem) -> None:
        self.codes = [x.codes for x in rows]
        self.scales = [x.scale.numpy() for x in rows]
        self.norm, self.error = bounds.joint(rows)
        size = problem.tile[1]
        self.tiles = [slice(first, first + size) for first in range(0, len(self.norm), size)]
        self.keys = [(self.side(part), [x[part] for x in self.codes]) for part in self.tiles]
        kind = torch.int32 if self.codes[0].dtype == torch.int8 else torch.float32
        shape = len(rows), problem.tile[0] * min(size, len(self.norm))
        self._room = torch.empty(shape, dtype=kind)

    def table(self, sign: int) -> Table:
        """For float32 codes: what candidates are looked at in."""
        return Table(self.codes[0].numpy(), self.codes[-1].numpy(), self.norm, self.error, sign)

    def side(self, rows: Rows | slice, sign: int = 1) -> Side:
        """Scales and bounds of some rows."""
        a, b = (self.scales[x][rows] * np.float32(sign) for x in (0, -1))
        return Side(a, b, self.norm[rows], self.error[rows])

    def products(self, queries: list[Tensor], keys: list[Tensor]) -> list[NDArray[np.float32]]:
        """(R, T) int32 or float32 of each modality, valid until the next call."""
        made = []
        for buffer, q, k in zip(self._room, queries, keys, strict=True):
            out = buffer[: len(q) * len(k)].view(len(q), len(k))
            if q.dtype == torch.int8:
                torch._int_mm(q, k.T, out=out)
            else:  # not torch's: its float32 products may be bfloat16 ones, by a global setting
                np.matmul(q.numpy(), k.numpy().T, out=out.numpy())
            made.append(out.numpy())
        return made


def _candidates(problem: Problem, codes: Codes, table: Table, queries: Rows, k: int) -> Candidates:
    """A superset of the k best keys of a block of queries, for those rows that it does not leave open."""
    found, own = room(len(queries), k), problem.barred(queries)
    asked = [x[torch.from_numpy(queries)] for x in codes.codes]
    side = codes.side(queries, problem.sign)
    for part, (keys, rows) in zip(codes.tiles, codes.keys, strict=True):
        products = codes.products(asked, rows)
        admit(Tile(products[0], products[-1], part.start, queries, own), side, keys, table, k, found)
    return found
