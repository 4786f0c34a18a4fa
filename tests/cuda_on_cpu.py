"""Runs a `.cu` file's kernels on the CPU: cuda_headers/, a C++ compiler (cuda_build.py) and ctypes.

    run("agreement_topk", "function", grid, block, [array, 3, 0.5], shared_bytes=0, WIDTH=128)

What that means and what it does not catch stands at the top of cuda_headers/cuda_on_cpu.h. Where there is no
compiler `NoCompiler` is raised; `needs_compiler` marks tests that are to be skipped there.
"""

from __future__ import annotations

import ctypes
import tempfile
import threading
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal
from zlib import crc32

import numpy as np
import pytest
import torch
from cuda_build import KERNELS, NoCompiler, compiler, library

Order = Literal["forward", "reverse"]


class KernelError(RuntimeError):
    """A kernel broke a rule that cuda_headers/cuda_on_cpu.h names."""


def run(
    name: str | Path,
    function: str,
    grid: int | tuple[int, ...],
    block: int | tuple[int, ...],
    args: Sequence[Any],
    shared_bytes: int = 0,
    order: Order = "forward",
    **defines: int | str,
) -> None:
    """Launch one kernel of `kernels/<name>.cu`, or of the file `name` if it is a path.

    Args:
        args: in the kernel's order: NumPy arrays and CPU tensors by pointer, int as int32, float as float32,
            NumPy scalars as they are. Each is held against the kernel's parameter.
        order: which thread and block is run first; a kernel without races does not care.

    Raises:
        NoCompiler, KernelError: see there.
        TypeError: an argument does not fit its parameter.
    """
    compiled = library(_path(name), tuple(sorted(defines.items())))
    _check(function, _kinds(compiled, function), args)
    values = [_value(x) for x in args]
    pointers = (ctypes.c_void_p * len(values))(*(ctypes.addressof(x) for x in values))
    sizes = [(ctypes.c_uint * 3)(*_three(size)) for size in (grid, block)]
    with _lock:  # the launch's state is global, and ctypes releases the interpreter
        launch = getattr(compiled, f"launch_{function}")
        launch.restype = ctypes.c_char_p
        error = launch(*sizes, ctypes.c_size_t(shared_bytes), pointers, order == "reverse").decode()
    if error:
        raise KernelError(f"{function}: {error}")


class Module:
    """Stands in for `coaug.kernels.cuda.Module` in tests of the code that launches, on CPU tensors."""

    def __init__(self, name: str | Path, order: Order = "forward", **defines: int | str) -> None:
        self.name, self.order, self.defines = name, order, defines

    def launch(
        self,
        function: str,
        grid: int | tuple[int, ...],
        block: int | tuple[int, ...],
        args: Sequence[Any],
        shared_bytes: int = 0,
    ) -> None:
        run(self.name, function, grid, block, args, shared_bytes, self.order, **self.defines)


def kernel_file(text: str) -> Path:
    """A `.cu` file of common.cuh and `text`, for tests of a few lines of CUDA; it is gone when the process ends."""
    path = Path(_scratch().name) / f"case-{crc32(text.encode()):08x}.cu"
    path.write_text('#include "common.cuh"\n' + text, encoding="utf-8")
    return path


@cache
def _scratch() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="coaug-cu-")


def _has_compiler() -> bool:
    try:
        return bool(compiler())
    except NoCompiler:
        return False


needs_compiler = pytest.mark.skipif(
    not _has_compiler(), reason="no C++ compiler (g++, clang++, ziglang or $CXX)"
)

_lock = threading.Lock()


def _path(name: str | Path) -> Path:
    return name if isinstance(name, Path) else KERNELS / f"{name}.cu"


def _kinds(compiled: ctypes.CDLL, function: str) -> list[str]:
    try:
        kinds = getattr(compiled, f"kinds_{function}")
    except AttributeError:
        raise ValueError(f'no function {function}: is it `extern "C" __global__ void`?') from None
    kinds.restype = ctypes.c_char_p
    return list(kinds().decode().split())


def _check(function: str, kinds: list[str], args: Sequence[Any]) -> None:
    """Every argument fits its parameter: on a GPU nobody looks."""
    if len(kinds) != len(args):
        raise TypeError(f"{function} takes {len(kinds)} arguments, got {len(args)}")
    for position, (kind, x) in enumerate(zip(kinds, args, strict=True)):
        if not _fits(kind, _kind(x)):
            raise TypeError(f"{function}: argument {position} is {_kind(x)}, the kernel wants {kind}")


def _fits(kind: str, got: str) -> bool:
    names = {"__half": "f2", "__nv_bfloat16": "bf2"}
    if kind.startswith("p"):
        wanted = names.get(kind[1:], kind[1:])
        if not got.startswith("p") or wanted == "*":
            return got.startswith("p")
        if wanted == "bf2" and got[1:] in ("u2", "i2"):  # NumPy has no bfloat16
            return True
        return wanted == got[1:] or (wanted[0] in "iub" and got[1] in "iub" and wanted[1:] == got[2:])
    return kind == got or (kind[0] in "iu" and got[0] in "iu" and kind[1:] == got[1:])


def _kind(x: Any) -> str:
    if isinstance(x, torch.Tensor):
        return "pbf2" if x.dtype == torch.bfloat16 else _kind(x.detach().numpy())
    if isinstance(x, np.ndarray):
        return f"p{x.dtype.kind}{x.dtype.itemsize}"
    scalar = _scalar(x)
    return f"{scalar.dtype.kind}{scalar.dtype.itemsize}"


def _scalar(x: Any) -> np.generic:
    if isinstance(x, np.generic):
        return x
    return np.float32(x) if isinstance(x, float) else np.int32(x)


def _value(x: Any) -> Any:
    """A ctypes object that holds the pointer or the number."""
    if isinstance(x, torch.Tensor):
        return ctypes.c_void_p(x.data_ptr())
    if isinstance(x, np.ndarray):
        if not x.flags.c_contiguous:
            raise ValueError(f"arrays must be contiguous, got strides {x.strides} of shape {x.shape}")
        return ctypes.c_void_p(x.ctypes.data)
    return np.ctypeslib.as_ctypes_type(_scalar(x).dtype)(_scalar(x).item())


def _three(size: int | tuple[int, ...]) -> tuple[int, int, int]:
    sizes = (*(size if isinstance(size, tuple) else (size,)), 1, 1)
    return sizes[0], sizes[1], sizes[2]
