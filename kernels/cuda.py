"""The `.cu` files beside this one: compiled on first use with CuPy, launched on torch's stream.

CuPy is imported when a kernel is wanted, not before: `coaug.kernels` works without it on CPU tensors.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

SUPPORTED = (70, 75, 80, 86, 89, 90)  # what the tests compile for; newer GPUs run the general path

HERE = Path(__file__).resolve().parent

Argument = Tensor | int | float | np.generic


class Module:
    """One `.cu` file with one set of defines. Nothing is compiled before the first launch."""

    def __init__(self, name: str, defines: dict[str, int | str]) -> None:
        self.name, self.defines = name, defines
        self._raw: Any = None

    def launch(
        self,
        function: str,
        grid: int | tuple[int, ...],
        block: int | tuple[int, ...],
        args: Sequence[Argument],
        shared_bytes: int = 0,
    ) -> None:
        """Put one launch of `function` on torch's current stream of the tensors' device.

        Args:
            function: an `extern "C" __global__` function of the file.
            grid, block: sizes in blocks and in threads, one to three dimensions.
            args: in the kernel's order. Tensors are passed as pointers, int as int32, float as float32;
                anything else as a NumPy scalar of its type.
            shared_bytes: dynamic shared memory of a block, also beyond the 48 KiB that need no asking.

        Raises:
            RuntimeError: there is no CuPy or no GPU.
            ValueError: the tensors are not on one GPU, or an int does not fit int32.
        """
        if reason := missing():
            raise RuntimeError(reason)
        import cupy

        device = _device(args)
        stream = torch.cuda.current_stream(device).cuda_stream
        with cupy.cuda.Device(device.index), cupy.cuda.ExternalStream(stream, device.index):
            kernel = self._module().get_function(function)
            if shared_bytes:  # beyond 48 KiB, the static part included, a kernel has to ask
                kernel.max_dynamic_shared_size_bytes = shared_bytes
            kernel(dimensions(grid), dimensions(block), pack(args), shared_mem=shared_bytes)

    def _module(self) -> Any:
        if self._raw is None:
            import cupy

            text = source(self.name)
            self._raw = cupy.RawModule(code=text, options=options(self.defines), backend="nvrtc")
        return self._raw


_modules: dict[tuple[str, tuple[tuple[str, int | str], ...]], Module] = {}


def module(name: str, **defines: int | str) -> Module:
    """The file `kernels/<name>.cu` under `defines`, the same object at every call.

    It is compiled once per GPU architecture; CuPy keeps the result on disk (CUPY_CACHE_DIR).
    """
    key = name, tuple(sorted(defines.items()))
    return _modules.setdefault(key, Module(name, defines))


def available() -> bool:
    """Whether kernels can be launched here."""
    return not missing()


def missing() -> str:
    """Why kernels cannot be launched here, and the remedy; empty if they can."""
    if not torch.cuda.is_available():
        return "no GPU: torch sees no CUDA device here (torch.cuda.is_available() is False)"
    return _cupy_error()


@cache
def _cupy_error() -> str:
    package = f"cupy-cuda{(torch.version.cuda or '12').split('.')[0]}x"
    if find_spec("cupy") is None:
        return f"CUDA tensors need CuPy, which is not installed: pip install {package}"
    try:
        import_module("cupy")
    except Exception as error:  # CuPy raises many kinds when its CUDA libraries do not fit
        return f"CUDA tensors need CuPy, which does not load ({error}): pip install {package}"
    return ""


def architecture(device: torch.device | int | None = None) -> int:
    """Compute capability of a GPU as one number, e.g. 90 for 9.0."""
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


def compile_for(name: str, architecture: int, **defines: int | str) -> bytes:
    """The file's machine code for one architecture, made by nvrtc alone: no GPU or driver is needed.

    Raises:
        RuntimeError: it does not compile; the message is the compiler's log.
    """
    from cupy.cuda import nvrtc

    program = nvrtc.createProgram(source(name), f"{name}.cu", (), ())
    try:
        nvrtc.compileProgram(program, (*options(defines), f"-arch=sm_{architecture}"))
        return bytes(nvrtc.getCUBIN(program))
    except nvrtc.NVRTCError as error:
        log = nvrtc.getProgramLog(program)
        raise RuntimeError(f"{name}.cu for sm_{architecture}, {defines}: {error}\n{log}") from error
    finally:
        nvrtc.destroyProgram(program)


def source(name: str) -> str:
    """The text of `kernels/<name>.cu`."""
    return (HERE / f"{name}.cu").read_text(encoding="utf-8")


def options(defines: dict[str, int | str]) -> tuple[str, ...]:
    """nvrtc's options: C++17, this folder's and CUDA's headers, and `defines`."""
    headers = zlib.crc32(b"".join(path.read_bytes() for path in sorted(HERE.glob("*.cuh"))))
    macros = {**defines, "HEADERS": headers}  # CuPy's disk cache does not look into included files
    folders = (HERE, *include_folders())
    return ("-std=c++17", *(f"-I{x}" for x in folders), *(f"-D{k}={v}" for k, v in macros.items()))


@cache
def include_folders() -> tuple[Path, ...]:
    """Folders with CUDA's own headers (cuda_fp16.h, mma.h and what it includes), first found first.

    Raises:
        RuntimeError: no installed package or toolkit brings them.
    """
    folders = [folder for folder in _candidates() if folder.is_dir()]
    found = [next((x for x in folders if (x / name).is_file()), None) for name in ("cuda_fp16.h", "mma.h")]
    crt = next((x for x in folders if (x / "crt" / "mma.h").is_file()), None)
    if None in found:
        raise RuntimeError(
            "CUDA's headers (cuda_fp16.h, mma.h) were not found: "
            "pip install 'cuda-toolkit[cudart]', or set CUDA_PATH to a toolkit's folder"
        )
    return tuple(dict.fromkeys(x for x in (*found, crt) if x is not None))


def _candidates() -> list[Path]:
    """Where the headers lie in the wheels for CUDA 12 and 13, and in an installed toolkit."""
    import os

    spec = find_spec("nvidia")
    roots = [Path(root) for root in (spec.submodule_search_locations if spec else None) or ()]
    parts = ("cuda_runtime", "cuda_nvcc", "cuda_cccl", "cu13", "cu12")
    toolkits = [Path(os.environ[x]) for x in ("CUDA_PATH", "CUDA_HOME") if os.environ.get(x)]
    return [
        *(root / part / "include" for root in roots for part in parts),
        *(path / "include" for path in (*toolkits, Path("/usr/local/cuda"))),
    ]


def dimensions(size: int | tuple[int, ...]) -> tuple[int, ...]:
    """A grid or block size as a tuple."""
    return size if isinstance(size, tuple) else (size,)


def pack(args: Sequence[Argument]) -> tuple[np.generic, ...]:
    """Kernel arguments as NumPy scalars: tensors become pointers, int int32, float float32."""
    return tuple(_pack(position, x) for position, x in enumerate(args))


def _pack(position: int, x: Argument) -> np.generic:
    if isinstance(x, Tensor):
        return np.uint64(x.data_ptr())
    if isinstance(x, np.generic):
        return x
    if isinstance(x, bool) or not isinstance(x, int | float):
        raise TypeError(f"kernel argument {position} must be a tensor or a number, got {type(x).__name__}")
    if isinstance(x, float):
        return np.float32(x)
    if not -(2**31) <= x < 2**31:
        raise ValueError(f"kernel argument {position} is {x}, which is no int32: pass numpy.int64({x})")
    return np.int32(x)


def _device(args: Sequence[Argument]) -> torch.device:
    devices = {x.device for x in args if isinstance(x, Tensor)}
    if len(devices) != 1 or next(iter(devices)).type != "cuda":
        raise ValueError(f"a kernel's tensors must be on one GPU, got {sorted(map(str, devices))}")
    return devices.pop()
