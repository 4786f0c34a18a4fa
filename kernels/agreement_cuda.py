"""agreement_topk on a GPU: agreement_topk.cu's kernels, a part of the queries at a time.

Half codes on tensor cores where a tile of them fits a block's shared memory, float32 products where not. Nothing here
waits for the GPU.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from . import agreement_bounds as bounds
from . import cuda
from .agreement_bounds import Encoded

_CANDIDATES = 1 << 28  # bytes of a part's candidates in one split: what bounds the memory
_THREADS = 256  # of a block of `rank_rows` and `scan_rows`
_STATIC = 8 << 10  # more than `candidates` has of shared memory beside the codes


@dataclass(frozen=True)
class Plan:
    """Which variant of `candidates` runs: on tensor cores or not, and how many queries and keys a tile has."""

    tensor: bool
    queries: int
    keys: int

    def code_bytes(self, widths: list[int]) -> int:
        """Dynamic shared memory: the tile's queries and two tiles of keys, rows 8 codes longer than wide."""
        if not self.tensor:
            return 0
        return sum((self.queries + 2 * self.keys) * (width + 8) * 2 for width in widths)

    def room(self, k: int) -> int:
        """Candidates of a row and split: k, two tiles, and as many as half codes may not tell from the k-th."""
        return -(-(k + k // 2 + 2 * self.keys) // 32) * 32


@dataclass(frozen=True)
class Search:
    """What all parts of the queries share: `sides`, one or two tables encoded; `rows`, the same as float32 or 64."""

    sides: list[Encoded]
    rows: list[Tensor]
    k: int
    sign: int
    exclude_self: bool
    plan: Plan


def topk(
    tables: tuple[Tensor, ...], k: int, sign: int, queries: Tensor, exclude_self: bool, block: int
) -> tuple[Tensor, Tensor]:
    """The op's work on CUDA tensors; see `agreement_topk.agreement_topk`.

    Tiles are what fits the GPU, `block` is not used.

    Raises:
        ValueError: k is too large for a block's shared memory.
    """
    most = max(1, len(tables[0]))
    if k > most:
        values, keys = topk(tables, most, sign, queries, exclude_self, block)
        return F.pad(values, (0, k - most), value=-torch.inf), F.pad(keys, (0, k - most), value=-1)
    values = torch.full((len(queries), k), -torch.inf, device=queries.device)
    keys = torch.full((len(queries), k), -1, dtype=torch.int64, device=queries.device)
    processors, shared_bytes = gpu(queries.device)
    _check(k, shared_bytes)
    wide = torch.float64 if any(x.dtype == torch.float64 for x in tables) else torch.float32
    plan = planned([-(-x.shape[1] // 16) * 16 for x in tables], shared_bytes)
    power = bounds.exponent(*tables)
    rows = [x.to(wide) for x in tables]
    sides = [padded(bounds.encode(x, power, bounds.half if plan.tensor else bounds.float32)) for x in rows]
    search = Search(sides, rows, k, sign, exclude_self, plan)
    step = part(len(queries), max(1, _CANDIDATES // (8 * plan.room(k))), plan.queries)
    for start in range(0, len(queries), step):
        some = slice(start, start + step)
        pieces = splits(len(queries[some]), len(rows[0]), k, plan, processors, shared_bytes)
        _search(search, queries[some], pieces, processors, values[some], keys[some])
    return values, keys


def gpu(device: torch.device) -> tuple[int, int]:
    """Its number of multiprocessors, and the shared memory that a block may have, in bytes."""
    properties = torch.cuda.get_device_properties(device)
    optin: int = properties.shared_memory_per_block_optin  # type: ignore[attr-defined]  # torch's stubs lack it
    return properties.multi_processor_count, optin


def planned(widths: list[int], shared_bytes: int) -> Plan:
    """The largest tile of half codes of these widths (multiples of 16) that fits, or float32 tiles, which always do."""
    plans = [Plan(True, queries, 64) for queries in (256, 192, 128, 96)]
    plans += [Plan(True, queries, 32) for queries in (96, 64, 32)]
    fitting = [plan for plan in plans if plan.code_bytes(widths) + _STATIC <= shared_bytes]
    return fitting[0] if fitting else Plan(False, 128, 64)


def part(queries: int, most: int, tile: int) -> int:
    """Queries at a time: parts of equal size, of whole tiles, of about `most` at most."""
    parts = max(1, -(-queries // most))
    return max(1, -(-queries // (parts * tile))) * tile


def splits(queries: int, keys: int, k: int, plan: Plan, processors: int, shared_bytes: int) -> int:
    """Parts of the keys for blocks of their own, so that the last wave of blocks leaves few multiprocessors idle.

    No more than `rank_rows` has memory for, and none of fewer than 16 tiles. Each costs candidates: 2 % here.
    """
    tiles = -(-queries // plan.queries)
    most = max(1, min(shared_bytes // (16 * plan.room(k)), keys // (16 * plan.keys), 64))
    return min(range(1, most + 1), key=lambda s: (1 + s / 50) * -(-tiles * s // processors) / s)


def padded(rows: Encoded) -> Encoded:
    """With columns of zeros up to a multiple of 16."""
    codes = F.pad(rows.codes, (0, -rows.codes.shape[1] % 16)).contiguous()
    return Encoded(codes, rows.scale, rows.norm, rows.error, rows.rounding)


def _check(k: int, shared_bytes: int) -> None:
    most = shared_bytes // 24 - _THREADS  # what `scan_rows` sorts in; `rank_rows` needs less
    if k > most:
        raise ValueError(
            f"k must be at most {most} on this GPU, whose blocks have {shared_bytes >> 10} KiB of shared memory, "
            f"got {k}: the CPU has no such limit"
        )


def _search(
    search: Search, queries: Tensor, pieces: int, processors: int, values: Tensor, keys: Tensor
) -> None:
    """Fill values and keys of these queries, the keys of the tables in `pieces`."""
    sides, rows, plan, k, q = search.sides, search.rows, search.plan, search.k, len(queries)
    n, room, own = len(rows[0]), plan.room(k), int(search.exclude_self)
    kind = "double" if rows[0].dtype == torch.float64 else "float"
    widths = [x.codes.shape[1] for x in sides]
    tile = {"TENSOR": int(plan.tensor), "QUERIES": plan.queries, "KEYS": plan.keys}
    sizes = {"VIDEO": widths[0], "AUDIO": widths[1] if len(sides) > 1 else 0}
    module = cuda.module("agreement_topk", **tile, **sizes, ROW=kind)
    found = torch.empty(q, pieces, room, dtype=torch.int32, device=queries.device)
    scores, counts = torch.empty_like(found, dtype=torch.float32), found.new_empty(q, pieces)
    offs = scores.new_empty(q)
    greatest = torch.stack([y.amax() for x in (sides[0], sides[-1]) for y in (x.norm, x.error)])
    tables: list[cuda.Argument] = [y for x in (sides[0], sides[-1]) for y in (x.codes, x.norm, x.error)]
    rounding = max(x.rounding for x in sides)
    asked: list[cuda.Argument] = [greatest, rounding, queries, q, n, k, search.sign, own]
    module.launch(
        "candidates", (-(-q // plan.queries), pieces), plan.queries,
        [*tables, *asked, room, found, scores, counts, offs], plan.code_bytes(widths),
    )  # fmt: skip
    open_rows, open_count = found.new_empty(q), found.new_zeros(1)
    exact: list[cuda.Argument] = [rows[0], rows[-1], rows[0].shape[1], rows[-1].shape[1], queries]
    module.launch(
        "rank_rows", q, _THREADS,
        [*exact, pieces, room, k, search.sign, found, scores, counts, offs, values, keys, open_rows, open_count],
        pieces * room * 16,
    )  # fmt: skip
    module.launch(
        "scan_rows", min(q, 8 * processors), _THREADS,
        [*exact, open_rows, open_count, n, k, search.sign, own, values, keys],
        24 * (k + _THREADS),
    )  # fmt: skip
