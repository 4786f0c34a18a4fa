"""The ways onto a GPU: driver, device, video engine, and the compilers of our kernels."""

from __future__ import annotations

import ctypes
from typing import Any

from .check import Examination, Missing
from .media import encode, numba_operator, run_graph

ARCHITECTURES = (70, 75, 80, 86, 89, 90)
_NO_DRIVER = "needs a GPU with NVIDIA's driver; without one everything runs on the CPU"
_KERNEL = (
    'extern "C" __global__ void twice(float* x, int n) { int i = threadIdx.x; if (i < n) x[i] *= 2.0f; }'
)


def driver() -> str:
    """Loads and starts the CUDA driver."""
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError:
        raise Missing("no NVIDIA driver (libcuda.so.1)", _NO_DRIVER) from None
    if status := library.cuInit(0):
        raise Missing(
            f"the driver does not start (CUDA error {status})", "nvidia-smi says more; restart the machine"
        )
    version, count = ctypes.c_int(), ctypes.c_int()
    library.cuDriverGetVersion(ctypes.byref(version))
    library.cuDeviceGetCount(ctypes.byref(count))
    if not count.value:
        raise Missing(
            "a driver, but no GPU is visible", "unset CUDA_VISIBLE_DEVICES; containers: docker run --gpus all"
        )
    if version.value < 12000:
        raise Missing(f"driver for CUDA {_version(version.value)}", "install driver 525 or newer (CUDA 12)")
    return f"CUDA {_version(version.value)}, {count.value} GPU(s)"


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def device() -> str:
    """Multiplies two matrices with torch on every GPU."""
    driver()
    import torch

    if not torch.cuda.is_available():
        raise Missing(
            f"torch {torch.__version__} sees no GPU",
            "install the CUDA build: pip install 'torch>=2.10,<2.11'",
        )
    return ", ".join(_describe(torch, i) for i in range(torch.cuda.device_count()))


def _describe(torch: Any, index: int) -> str:
    torch.ones(8, 8, device=f"cuda:{index}").mm(torch.ones(8, 8, device=f"cuda:{index}")).sum().item()
    it = torch.cuda.get_device_properties(index)
    return f"{it.name} (sm_{it.major}{it.minor}, {it.total_memory / 2**30:.0f} GiB)"


def nvdec() -> str:
    """Loads the video decoding library."""
    driver()
    try:
        ctypes.CDLL("libnvcuvid.so.1")
    except OSError:
        raise Missing("the driver came without its video library (libnvcuvid.so.1)") from None
    return "libnvcuvid.so.1 loads"


def dali_gpu(codec: str) -> str:
    """Decodes chosen frames of a clip on the GPU's video engine in a DALI pipeline."""
    nvdec()
    shown = run_graph(encode(codec, "mp4" if codec != "vp9" else "matroska"), "mixed")
    if not shown[0].mean() > shown[1].mean() + 50:
        raise Missing("wrong frames came back")
    return "frames decoded by number on the GPU"


def dali_numba() -> str:
    """Runs DALI's Numba operator on the GPU."""
    driver()
    return numba_operator("gpu")


def cupy() -> str:
    """Compiles and launches a kernel with CuPy."""
    driver()
    import cupy as cp

    x = cp.arange(4, dtype=cp.float32)
    cp.RawModule(code=_KERNEL).get_function("twice")((1,), (4,), (x, 4))
    if x.tolist() != [0.0, 2.0, 4.0, 6.0]:
        raise Missing(f"wrong numbers came back: {x.tolist()}")
    return f"CuPy {cp.__version__} compiled and ran a kernel"


def nvrtc() -> str:
    """Compiles a kernel for every architecture; needs no GPU."""
    from cupy.cuda import nvrtc as compiler

    for sm in ARCHITECTURES:
        program = compiler.createProgram(_KERNEL, "twice.cu", (), ())
        compiler.compileProgram(program, (f"--gpu-architecture=sm_{sm}",))
        compiler.destroyProgram(program)
    major, minor = compiler.getVersion()
    return f"NVRTC {major}.{minor} compiles for sm_{ARCHITECTURES[0]} to sm_{ARCHITECTURES[-1]}"


_VIDEO = "containers: -e NVIDIA_DRIVER_CAPABILITIES=compute,utility,video; else install libnvidia-decode of the driver"
GPU = {
    "CUDA compiler": Examination(nvrtc, "pip install --force-reinstall cupy-cuda12x nvidia-cuda-nvrtc-cu12"),
    "driver": Examination(driver, _NO_DRIVER),
    "torch": Examination(device, _NO_DRIVER),
    "CuPy": Examination(cupy, _NO_DRIVER),
    "NVDEC": Examination(nvdec, _VIDEO),
    "DALI, h264": Examination(dali_gpu, _VIDEO, "h264"),
    "DALI, hevc": Examination(dali_gpu, _VIDEO, "hevc"),
    "DALI, vp9": Examination(dali_gpu, _VIDEO, "vp9"),
    "operator in Numba": Examination(dali_numba, "pip install numba-cuda (Numba's compiler for CUDA)"),
}
