"""The k rows that agree most in both modalities (AVID-CMA, Eq. 7–8), exactly, in memory O(N (k + d) + block^2).

    rho_ij = min(video_i . video_j, audio_i . audio_j)

What is exact: the set and the order are those of scores accumulated in float64 from the rows as given, in one fixed
order of summation (`agreement_exact`; equal rows have equal scores, so ties are real, and go to the lower index).
Why: narrow products only ever rule keys out, with bounds that are proven (`agreement_bounds`): a key is dropped when k
others are certain to be better. What is left is ranked by its float64 scores; a row that too many keys might
belong to is searched with wider products, and at last scanned in float64 whole.
Neither block size nor thread count can change the result.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from . import checks

Mode = Literal["min", "max", "video", "audio"]
MODES: tuple[Mode, ...] = ("min", "max", "video", "audio")


def agreement_topk(
    video: Tensor | None,
    audio: Tensor | None,
    k: int,
    mode: Mode = "min",
    *,
    queries: Tensor | None = None,
    exclude_self: bool = True,
    block: int | None = None,
) -> tuple[Tensor, Tensor]:
    """For each query i the k rows j with the greatest rho_ij.

    Args:
        video, audio: (N, d) and (N, d'), fp16, bf16, fp32 or fp64, of any length; duplicates and zero rows are fine.
            The one that `mode` leaves out may be None.
        k: how many, at least 1.
        mode: "min" of both inner products (agreement), "max" (either), "video" or "audio" alone.
        queries: (Q,) int64 rows to search for, in any order, repeated or not. None: all N.
        exclude_self: a row is not its own neighbour.
        block: queries and keys of a tile. None: what fits the processor.

    Returns:
        Scores (Q, k) float32, rounded from float64, in descending order, and rows (Q, k) int64, equal scores by
        ascending index. Where fewer than k rows exist the rest is -inf and -1. No gradient flows.

    Raises:
        TypeError, ValueError: wrong types, shapes, devices; NaN or infinite entries; k or block below 1.
        On a GPU a wrong value in `queries` and non-finite entries end in an assertion at the next synchronisation.
    """
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, got {mode!r}")
    for name, size in (("k", k), ("block", block)):
        if size is not None and size < 1:
            raise ValueError(f"{name} must be at least 1, got {size}")
    tables = _tables(video, audio, mode)
    first = next(iter(tables.values()))
    if queries is None:
        queries = torch.arange(len(first), device=first.device)
    if queries.ndim != 1:
        raise ValueError(f"queries must be of one dimension, got shape {tuple(queries.shape)}")
    checks.same_device(**tables, queries=queries)
    checks.indices("queries", queries, len(first))
    # an op's arguments must not be one tensor twice: the one that does not matter is empty
    both = [tables[name].detach() if name in tables else first.new_empty(0, 1) for name in ("video", "audio")]
    values, keys = _op(*both, k, mode, queries, exclude_self, block or 0)
    return values, keys


def _tables(video: Tensor | None, audio: Tensor | None, mode: Mode) -> dict[str, Tensor]:
    """What matters of the two, checked."""
    tables: dict[str, Tensor] = {}
    for name, x in (("video", video), ("audio", audio)):
        if mode in ("min", "max", name):
            if x is None:
                raise ValueError(f"{name} must be given for mode={mode!r}, got None")
            checks.matrix(name, x)
            checks.finite(name, x)
            _bounded(name, x)
            tables[name] = x
    sizes = {name: len(x) for name, x in tables.items()}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"video and audio must have one row for each sample, got {sizes}")
    return tables


def _bounded(name: str, x: Tensor) -> None:
    """Entries are so small that no inner product overflows float64; only float64 ones can fail."""
    if x.dtype != torch.float64 or not x.numel():
        return
    limit = math.sqrt(torch.finfo(x.dtype).max / x.shape[1])
    inside = x.detach().abs().amax() <= limit
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        torch._assert_async(inside, f"{name}: inner products overflow float64")
    elif not inside:
        raise ValueError(f"{name}: entries above {limit:.1e} make inner products overflow float64")


@torch.library.custom_op("coaug::agreement_topk", mutates_args=())
def _op(
    video: Tensor, audio: Tensor, k: int, mode: str, queries: Tensor, exclude_self: bool, block: int
) -> tuple[Tensor, Tensor]:
    tables = tuple(x for name, x in (("video", video), ("audio", audio)) if mode in ("min", "max", name))
    sign = -1 if mode == "max" else 1
    if queries.device.type == "cuda":
        from .agreement_cuda import topk
    else:
        from .agreement_cpu import topk
    return topk(tables, k, sign, queries, exclude_self, block)


@_op.register_fake
def _(
    video: Tensor, audio: Tensor, k: int, mode: str, queries: Tensor, exclude_self: bool, block: int
) -> tuple[Tensor, Tensor]:
    shape = (len(queries), k)
    return queries.new_empty(shape, dtype=torch.float32), queries.new_empty(shape)
