"""The memory bank's moving average of each instance's features (AVID, section 3: "updated ... by 0.5").

    v <- normalise(m v + (1 - m) normalise(x))

An id that stands in the batch several times is updated once, with the mean of its normalised features, added up in
the order of their places in the global batch. So the result depends on the global batch alone: not on how many
processes it was divided among, nor on threads.
"""

from __future__ import annotations

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from . import checks
from .bank_rows import Array
from .bank_scores import THREADS, check_storage, kernels


def bank_update_(
    bank: Tensor, ids: Tensor, features: Tensor, momentum: float = 0.5, valid: Tensor | None = None
) -> Tensor:
    """Move the rows `ids` of the bank towards `features`, in place; rows that are not named are not touched.

    Args:
        bank: (N, d) float32, float16 or bfloat16, on the CPU float64 too.
        ids: (B,) int64, the global batch's rows; those that are not valid may hold anything.
        features: (B, d) floating, in the order of the global batch, of any length: a zero vector has no direction
            and counts as not valid. The arithmetic is float64, rounded to float32, then to the bank's type.
        momentum: m in [0, 1].
        valid: (B,) bool; features that are False are not used. None: all are valid.

    Returns:
        The bank. A row whose features cancel, or cancel it, stays as it is.

    Raises:
        TypeError, ValueError: wrong dtype, shape, device or memory layout, an id outside the bank, features that
            are not finite.
    """
    check_storage(bank)
    checks.matrix("features", features, width=bank.shape[1])
    if ids.shape != features.shape[:1] or ids.dtype != torch.int64:
        raise ValueError(f"ids must be an int64 vector of {len(features)}, got {checks.describe(ids)}")
    if not 0 <= momentum <= 1:
        raise ValueError(f"momentum must lie in 0 … 1, got {momentum}")
    checks.same_device(bank=bank, ids=ids, features=features)
    if valid is not None:
        if valid.dtype != torch.bool or valid.shape != ids.shape:
            raise ValueError(f"valid must be a bool vector of {len(ids)}, got {checks.describe(valid)}")
        ids = ids.masked_fill(~valid, -1)
        features = features.masked_fill(~valid[:, None], 0)  # NaN there is nobody's concern
    _bank_update(bank, ids, features.detach(), momentum)
    return bank


@torch.library.custom_op("coaug::bank_update_", mutates_args=("bank",), device_types="cpu")
def _bank_update(bank: Tensor, ids: Tensor, features: Tensor, momentum: float) -> None:
    """`ids` of -1 are left out."""
    rows, order = _sorted(bank, ids, features)
    heads = torch.ones_like(rows, dtype=torch.bool)
    heads[1:] = rows[1:] != rows[:-1]
    heads &= rows >= 0
    starts = heads.nonzero().squeeze(1)
    moved = bank[rows[starts]].double()
    _blend(moved.numpy(), rows.numpy(), starts.numpy(), order.numpy(), features.double().numpy(), momentum)
    bank[rows[starts]] = moved.to(bank.dtype) if bank.dtype == torch.float64 else moved.float().to(bank.dtype)


@_bank_update.register_kernel("cuda")
def bank_update_cuda(bank: Tensor, ids: Tensor, features: Tensor, momentum: float) -> None:
    """The CUDA path of `bank_update_`."""
    rows, order = _sorted(bank, ids, features)
    if len(rows):
        args = (bank, rows, order, features.to(torch.float32), len(rows), np.float64(momentum))
        warps = THREADS // 32
        kernels(bank).launch("bank_update", -(-len(rows) // warps), THREADS, args)


@_bank_update.register_fake
def _(bank: Tensor, ids: Tensor, features: Tensor, momentum: float) -> None:
    return None


def _sorted(bank: Tensor, ids: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
    """The ids ascending, and the places in the batch where they stood, ascending among equal ids."""
    checks.indices("ids", ids, len(bank), least=-1)
    checks.finite("features", features)
    rows, order = torch.sort(ids, stable=True)
    return rows, order


@njit(cache=True, parallel=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _blend(moved: Array, rows: Array, starts: Array, order: Array, features: Array, momentum: float) -> None:
    for i in prange(starts.shape[0]):
        toward, count, place = np.zeros(moved.shape[1]), 0, starts[i]
        while place < rows.shape[0] and rows[place] == rows[starts[i]]:
            x = features[order[place]]
            size = np.sqrt((x * x).sum())
            if size > 0:
                toward += x / size
                count += 1
            place += 1
        if not (toward == 0).all():
            row = momentum * moved[i] + (1 - momentum) / count * toward
            size = np.sqrt((row * row).sum())
            if size > 0:
                moved[i] = row / size
