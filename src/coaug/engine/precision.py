"""Which arithmetic the encoders use."""

from __future__ import annotations

from typing import Literal

import torch


def autocast(precision: Literal["auto", "fp32", "bf16"], device: torch.device) -> torch.autocast:
    """The autocast context of a run on `device`; embeddings and objectives stay in fp32 (see `gradcache`)."""
    enabled = precision == "bf16" or (precision == "auto" and bf16_pays(device))
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)


def bf16_pays(device: torch.device) -> bool:
    """Whether the device computes in bf16 (Ampere and later; CPUs with AVX512-BF16 or AMX)."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # torch.cpu has no public name for these
    return any(getattr(torch.cpu, name, bool)() for name in names)
