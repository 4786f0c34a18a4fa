"""Runs a `.cu` file's kernels on the CPU: cuda_on_cpu.h, a C++ compiler and ctypes.

    run("agreement_topk", "function", grid, block, [array, 3, 0.5], shared_bytes=0, WIDTH=128)

What that means and what it does not catch stands at the top of cuda_on_cpu.h. Where there is no compiler
`NoCompiler` is raised; `needs_compiler` marks tests that are to be skipped there.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch

import coaug.kernels

KERNELS = Path(coaug.kernels.__file__).resolve().parent
HEADER = Path(__file__).with_name("cuda_on_cpu.h")
# hidden: otherwise two libraries would share the static variables, shared memory among them, of inline functions
FLAGS = (
    *("-x", "c++", "-std=c++17", "-O2", "-fPIC", "-shared", "-w"),
    *("-ffp-contract=off", "-fno-strict-aliasing", "-fvisibility=hidden", "-U_FORTIFY_SOURCE"),
)
KERNEL = re.compile(r'extern\s+"C"\s+__global__\s+void\s+(?:__launch_bounds__\s*\([^)]*\)\s*)?(\w+)\s*\(')
STATIC = re.compile(r"(?<=[ \t{;])__shared__\s[^;=\n]*;")  # in a function, on one line
DYNAMIC = re.compile(
    r"extern\s+__shared__\s+(?:(?:__align__|alignas)\s*\(\d+\)\s*)?([\w\s]+?)\s+(\w+)\s*\[\s*\]"
)

Order = Literal["forward", "reverse"]


class NoCompiler(RuntimeError):
    """There is no C++ compiler on this machine."""


class KernelError(RuntimeError):
    """A kernel broke a rule that cuda_on_cpu.h watches."""


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
    library = _library(_path(name), tuple(sorted(defines.items())))
    _check(function, _kinds(library, function), args)
    values = [_value(x) for x in args]
    pointers = (ctypes.c_void_p * len(values))(*(ctypes.addressof(x) for x in values))
    sizes = [(ctypes.c_uint * 3)(*_three(size)) for size in (grid, block)]
    with _lock:  # the launch's state is global, and ctypes releases the interpreter
        launch = getattr(library, f"launch_{function}")
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


@cache
def compiler() -> tuple[str, ...]:
    """$CXX, g++, clang++ or zig from the `ziglang` package, whichever is there first."""
    if os.environ.get("CXX"):
        return tuple(shlex.split(os.environ["CXX"]))
    for name in ("g++", "clang++"):
        if path := shutil.which(name):
            return (path,)
    if find_spec("ziglang"):
        return (sys.executable, "-m", "ziglang", "c++")
    raise NoCompiler("no C++ compiler: install g++ or clang++, or `pip install ziglang`, or set CXX")


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


@cache
def _library(path: Path, defines: tuple[tuple[str, int | str], ...]) -> ctypes.CDLL:
    """The file compiled under `defines`, from the cache if it is there."""
    files = {path.name: _rewritten(path) + _launchers(path)}
    for folder in dict.fromkeys((KERNELS, path.parent)):
        files |= {header.name: _rewritten(header) for header in folder.glob("*.cuh")}
    files |= dict.fromkeys(("cuda_fp16.h", "cuda_bf16.h", "mma.h"), "")  # cuda_on_cpu.h stands for them
    files[HEADER.name] = HEADER.read_text(encoding="utf-8")
    command = [*compiler(), *FLAGS, *(f"-D{key}={value}" for key, value in defines)]
    digest = hashlib.sha256(repr((command, sorted(files.items()))).encode()).hexdigest()[:24]
    library = _cache_folder() / f"{path.stem}-{digest}.so"
    if not library.exists():
        _compile(command, files, path.name, library)
    return ctypes.CDLL(str(library))


def _compile(command: list[str], files: dict[str, str], main: str, library: Path) -> None:
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        for name, text in files.items():
            (Path(folder) / name).write_text(text, encoding="utf-8")
        full = [*command, "-I.", "-include", HEADER.name, main, "-o", "out.so"]
        done = subprocess.run(full, cwd=folder, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{main} does not compile with cuda_on_cpu.h:\n{done.stderr[-8000:]}")
        os.replace(Path(folder) / "out.so", library)  # at once: other test processes look for it too


def _cache_folder() -> Path:
    folder = Path(tempfile.gettempdir()) / f"coaug-cuda-on-cpu-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _rewritten(path: Path) -> str:
    """The text with what macros cannot say about shared memory, line for line.

    `extern __shared__ T name[]` becomes a pointer; after `__shared__ T name[4];` the array is filled with NaN
    when a block's first thread comes by.
    """
    text = path.read_text(encoding="utf-8")
    text = DYNAMIC.sub(r"\1* \2 = reinterpret_cast<\1*>(cuda_on_cpu::shared_memory)", text)
    return STATIC.sub(lambda found: found[0] + _fresh(found[0]), text)


def _fresh(declaration: str) -> str:
    """Statements that spoil the declared variables; their names are what stands last between commas."""
    bare = re.sub(r"<[^>]*>|\[[^\]]*\]|\([^)]*\)", "", declaration.rstrip(";"))
    names = [part.split()[-1] for part in bare.split(",")]
    return "".join(f" cuda_on_cpu::fresh(&{name}, sizeof {name});" for name in names)


LAUNCHER = """
CUDA_ON_CPU_EXPORT const char* launch_{0}(unsigned* grid, unsigned* block, size_t shared, void** args, int reverse) {{
    return cuda_on_cpu::launch({0}, grid, block, shared, args, reverse);
}}
CUDA_ON_CPU_EXPORT const char* kinds_{0}() {{
    static const std::string text = cuda_on_cpu::kinds({0});
    return text.c_str();
}}
"""


def _launchers(path: Path) -> str:
    """C functions to launch each kernel and to ask for its parameters' types."""
    functions = KERNEL.findall(path.read_text(encoding="utf-8"))
    return "".join(LAUNCHER.format(name) for name in functions)


def _kinds(library: ctypes.CDLL, function: str) -> list[str]:
    try:
        kinds = getattr(library, f"kinds_{function}")
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
