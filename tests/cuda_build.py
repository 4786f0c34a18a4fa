"""Compiles a `.cu` file for the CPU, with cuda_headers/ in CUDA's place, into a library that is kept for next time."""

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
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import coaug.kernels

KERNELS = Path(coaug.kernels.__file__).resolve().parent
HEADERS = Path(__file__).with_name("cuda_headers")
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


class NoCompiler(RuntimeError):
    """There is no C++ compiler on this machine."""


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


@cache
def library(path: Path, defines: tuple[tuple[str, int | str], ...]) -> ctypes.CDLL:
    """The file compiled under `defines`, from the cache if it is there: the same text, headers and command."""
    files = {path.name: _rewritten(path) + _launchers(path)}
    for folder in dict.fromkeys((KERNELS, path.parent)):
        files |= {header.name: _rewritten(header) for header in folder.glob("*.cuh")}
    files |= dict.fromkeys(("cuda_fp16.h", "cuda_bf16.h", "mma.h"), "")  # ours stand for them
    files |= {header.name: header.read_text(encoding="utf-8") for header in HEADERS.glob("*.h")}
    command = [*compiler(), *FLAGS, *(f"-D{key}={value}" for key, value in defines)]
    digest = hashlib.sha256(repr((command, sorted(files.items()))).encode()).hexdigest()[:24]
    compiled = _cache_folder() / f"{path.stem}-{digest}.so"
    if not compiled.exists():
        _compile(command, files, path.name, compiled)
    return ctypes.CDLL(str(compiled))


def _compile(command: list[str], files: dict[str, str], main: str, compiled: Path) -> None:
    with tempfile.TemporaryDirectory(dir=compiled.parent) as folder:
        for name, text in files.items():
            (Path(folder) / name).write_text(text, encoding="utf-8")
        full = [*command, "-I.", "-include", "cuda_on_cpu.h", main, "-o", "out.so"]
        done = subprocess.run(full, cwd=folder, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{main} does not compile with cuda_on_cpu.h:\n{done.stderr[-8000:]}")
        os.replace(Path(folder) / "out.so", compiled)  # at once: other test processes look for it too


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
