"""What every operation asks of its tensors before it runs, and what it says when it does not get it."""

from __future__ import annotations

import torch
from torch import Tensor

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def matrix(
    name: str, x: Tensor, *, width: int | None = None, dtypes: tuple[torch.dtype, ...] = FLOATS
) -> None:
    """`x` is a contiguous matrix (rows, `width`) of one of `dtypes`.

    Raises:
        TypeError: it is no tensor, or of another dtype.
        ValueError: it has another shape, no columns, or is not contiguous.
    """
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(x).__name__}")
    if x.dtype not in dtypes:
        wanted = ", ".join(_short(dtype) for dtype in dtypes)
        raise TypeError(f"{name} must be one of {wanted}, got {describe(x)}")
    if x.ndim != 2 or x.shape[1] == 0:
        raise ValueError(f"{name} must be a matrix (rows, columns), got {describe(x)}")
    if width is not None and x.shape[1] != width:
        raise ValueError(f"{name} must have {width} columns, got {describe(x)}")
    contiguous(name, x)


def contiguous(name: str, x: Tensor) -> None:
    """`x` lies in memory row by row without gaps; ValueError if not."""
    if not x.is_contiguous():
        raise ValueError(f"{name} must be contiguous, got {describe(x)}: pass {name}.contiguous()")


def same_device(**tensors: Tensor) -> None:
    """All `tensors` are on one device; ValueError naming each one's if not."""
    devices = {x.device for x in tensors.values()}
    if len(devices) > 1:
        places = ", ".join(f"{name} on {x.device}" for name, x in tensors.items())
        raise ValueError(f"these tensors must be on one device, got {places}")


def indices(name: str, x: Tensor, limit: int, least: int = 0) -> None:
    """`x` is a contiguous int64 tensor of values in [least, limit).

    On a GPU the values are checked there without waiting for the answer: a wrong one ends the process's
    CUDA context with an assertion at the next synchronisation.

    Raises:
        TypeError: not a tensor, or not int64.
        ValueError: not contiguous, or (on the CPU) a value out of range.
    """
    if not isinstance(x, Tensor) or x.dtype != torch.int64:
        raise TypeError(f"{name} must be an int64 tensor, got {describe(x)}")
    contiguous(name, x)
    inside = ((x >= least) & (x < limit)).all()
    if _decided_later(x):
        torch._assert_async(inside, f"{name}: a value outside {least} … {limit - 1}")
    elif not inside:
        wrong = x[(x < least) | (x >= limit)][0].item()
        raise ValueError(f"{name} must lie in {least} … {limit - 1}, got {wrong} among {describe(x)}")


def finite(name: str, x: Tensor) -> None:
    """`x` holds neither NaN nor infinity: ValueError on the CPU, a device-side assertion on a GPU.

    Under torch.compile it becomes part of the graph, and a RuntimeError on the CPU.
    """
    x = x.detach()
    if _decided_later(x):
        torch._assert_async(_all_finite(x), f"{name} holds NaN or infinity")
    elif not _all_finite(x):
        kind = "NaN" if torch.isnan(x).any() else "infinity"
        raise ValueError(f"{name} holds {kind} among {describe(x)}: wanted finite numbers")


def describe(x: object) -> str:
    """Shape, dtype, device and, where it is unusual, stride of a tensor, in words for an error."""
    if not isinstance(x, Tensor):
        return type(x).__name__
    stride = "" if x.is_contiguous() else f", strides {tuple(x.stride())}"
    return f"{_short(x.dtype)} of shape {tuple(x.shape)} on {x.device}{stride}"


def _all_finite(x: Tensor) -> Tensor:
    """Scalar bool tensor: least and greatest value are numbers (one pass, no mask as large as `x`)."""
    if x.numel() == 0:
        return torch.ones((), dtype=torch.bool, device=x.device)
    least, greatest = torch.aminmax(x)  # NaN propagates through both
    return torch.isfinite(least) & torch.isfinite(greatest)


def _decided_later(x: Tensor) -> bool:
    """Whether looking at `x` would make the host wait, or there is nothing to look at yet."""
    return x.device.type != "cpu" or torch.compiler.is_compiling()


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
