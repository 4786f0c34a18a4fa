"""Rows in a narrow type with a proof of how wrong their inner products can be.

A row x is encoded as scale * codes, and e = x - scale * codes is measured, not estimated. By Cauchy-Schwarz

    |x.y - scale_x scale_y codes_x.codes_y|  <=  ||e_x|| ||y|| + ||scale_x codes_x|| ||e_y||,

to which the accumulation adds `rounding` ||x|| ||y||. The same bound holds for the minimum or the maximum of two
products when the larger of the two bounds is taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_CHUNK, _MORE = 512, 4096  # rows that are in float64 at a time: what a core's cache holds; on a GPU
_UP = 1 + 2.0**-20  # more than what rounding the bounds themselves to float32 takes away
_TINY = 2.0**-80  # more than any underflow in float32, for tables whose largest entry is about 1

Coder = Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Encoded:
    """Rows of one modality: `codes` (N, d); `scale`, `norm` and `error` (N,) float32, the last two upper bounds of
    the greater of ||x|| and ||scale * codes||, and of ||e||; `rounding`, the accumulation's share."""

    codes: Tensor
    scale: Tensor
    norm: Tensor
    error: Tensor
    rounding: float

    def take(self, rows: Tensor | slice) -> Encoded:
        """These rows only."""
        return Encoded(self.codes[rows], self.scale[rows], self.norm[rows], self.error[rows], self.rounding)


def int16(x: Tensor) -> tuple[Tensor, Tensor]:
    """Codes of float64 rows, with a scale for each row. Rows of codes are no longer than the root of 2**31, so that
    their products, and any part of one, fit int32."""
    longest = math.isqrt(2**31 - 1) - 1 - math.sqrt(x.shape[1]) / 2  # less what rounding adds
    scale = (torch.maximum(x.abs().amax(1) / 32767, _length(x) / longest) * _UP).float()
    codes = (x / scale.double().clamp_min(torch.finfo(torch.float32).tiny)[:, None]).round()
    return codes.to(torch.int16), scale


def float32(x: Tensor) -> tuple[Tensor, Tensor]:
    """The rows in float32."""
    return x.float(), torch.ones(len(x), device=x.device)


def half(x: Tensor) -> tuple[Tensor, Tensor]:
    """The rows in float16, without scales: what is small beside the greatest entry of all is imprecise."""
    return x.half(), torch.ones(len(x), device=x.device)


def rounding(coder: Coder, width: int) -> float:
    """The greatest |computed - real| product of `width` codes, per product of the rows' norms."""
    unit = 2.0**-24
    if coder is int16:  # int32 sums are exact; converting, scaling and comparing round six times
        return 16 * unit
    # float32: width roundings in any order; tensor cores may truncate, and align 16 products to the greatest
    return (1.01 * width + 8) * unit if coder is float32 else (4 * width + 16) * unit


def exponent(*tables: Tensor) -> Tensor:
    """() int32: the power of two that is just above every entry, by which rows are divided before encoding."""
    zero = tables[0].new_zeros((), dtype=torch.float64)
    greatest = torch.stack([x.abs().amax().double() if x.numel() else zero for x in tables]).amax()
    # where exact scores themselves underflow in float64 no bound may tell them apart: below _TINY all are alike
    return torch.frexp(greatest).exponent.clamp(-480, 1000)


def encode(x: Tensor, power: Tensor, coder: Coder) -> Encoded:
    """(N, d) rows over 2**power, encoded, with their bounds. float64 is used for some rows at a time."""
    step = _CHUNK if x.device.type == "cpu" else _MORE
    parts = [_encode(x[start : start + step], power, coder) for start in range(0, max(len(x), 1), step)]
    codes, scale, norm, error = (torch.cat(column) for column in zip(*parts, strict=True))
    return Encoded(codes, scale, norm, error, rounding(coder, x.shape[1]))


def _encode(x: Tensor, power: Tensor, coder: Coder) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rows = torch.ldexp(x.double(), -power)
    codes, scale = coder(rows)
    coded = codes.double() * scale.double()[:, None]
    norm = torch.maximum(_length(rows), _length(coded))
    return codes, scale, _rounded_up(norm), _rounded_up(_length(rows - coded))


def _length(x: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(x, dim=1)
    return length


def _rounded_up(x: Tensor) -> Tensor:
    return (x * _UP).float()


def joint(sides: list[Encoded]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """`norm` and `error` (N,) such that e_i n_j + n_i e_j bounds how far the products of any modality are off."""
    norm = torch.stack([x.norm for x in sides]).amax(0)
    error = torch.stack([x.error + (_UP * x.rounding / 2) * x.norm for x in sides]).amax(0)
    return norm.numpy(), _rounded_up(error.double()).numpy()
