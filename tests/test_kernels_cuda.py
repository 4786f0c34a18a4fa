"""Finding, compiling and launching `.cu` files: what needs no GPU, and one launch on one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from coaug.kernels import cuda

DOUBLED = """
#include "common.cuh"
extern "C" __global__ void doubled(const __half* x, float* out, int n) {
    extern __shared__ float row[];
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    row[threadIdx.x] = i < n ? FACTOR * to_float(x[i]) : 0.0f;
    if (i < n) out[i] = row[threadIdx.x];
}
"""


def test_importing_brings_neither_cupy_nor_dali() -> None:
    code = """
import pkgutil, sys, coaug.kernels
for module in pkgutil.iter_modules(coaug.kernels.__path__):
    __import__(f"coaug.kernels.{module.name}")
print(sorted({"cupy", "nvidia.dali"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]"]


def test_a_machine_without_a_gpu_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert not cuda.available() and "no GPU" in cuda.missing()
    with pytest.raises(RuntimeError, match="torch sees no CUDA device"):
        cuda.module("any").launch("function", 1, 1, [torch.zeros(1)])


@pytest.mark.parametrize(
    ("version", "package"), [("12.8", "cupy-cuda12x"), ("13.0", "cupy-cuda13x"), (None, "cupy-cuda12x")]
)
def test_without_cupy_the_right_package_is_named(
    version: str | None, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.version, "cuda", version)
    monkeypatch.setattr(cuda, "find_spec", lambda name: None)
    cuda._cupy_error.cache_clear()
    assert cuda.missing() == f"CUDA tensors need CuPy, which is not installed: pip install {package}"
    cuda._cupy_error.cache_clear()


def test_a_cupy_that_does_not_load_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise ImportError("libcudart.so.11.0: cannot open shared object file")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(cuda, "import_module", broken)
    cuda._cupy_error.cache_clear()
    assert "does not load (libcudart.so.11.0" in cuda.missing()
    cuda._cupy_error.cache_clear()


def test_arguments_become_what_a_kernel_reads() -> None:
    x = torch.zeros(3)
    packed = cuda.pack([x, 7, 0.5, np.int64(2**40), np.float64(0.1), np.uint8(3)])
    assert [value.dtype.str for value in packed] == ["<u8", "<i4", "<f4", "<i8", "<f8", "|u1"]
    assert packed[0] == x.data_ptr() and packed[1:3] == (7, 0.5)


def test_arguments_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match=r"argument 1 is 2147483648, .* pass numpy.int64\(2147483648\)"):
        cuda.pack([0, 2**31])
    for wrong in (True, None, "x", [1]):
        with pytest.raises(
            TypeError, match=f"argument 0 must be a tensor or a number, got {type(wrong).__name__}"
        ):
            cuda.pack([wrong])  # type: ignore[list-item]


def test_tensors_on_the_cpu_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "missing", lambda: "")
    with pytest.raises(ValueError, match=r"on one GPU, got \['cpu'\]"):
        cuda.module("any").launch("function", 1, 1, [torch.zeros(1)])
    with pytest.raises(ValueError, match=r"on one GPU, got \[\]"):
        cuda.module("any").launch("function", 1, 1, [3])


def test_one_module_for_one_file_and_its_defines() -> None:
    assert cuda.module("a", WIDTH=3, HALF=1) is cuda.module("a", HALF=1, WIDTH=3)
    assert cuda.module("a", WIDTH=4, HALF=1) is not cuda.module("a", HALF=1, WIDTH=3)


def test_architectures_are_one_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 6))
    assert cuda.architecture(torch.device("cuda", 0)) == 86


@pytest.mark.parametrize(
    "layout",
    [  # the wheels for CUDA 12, those for CUDA 13, a toolkit
        (
            "nvidia/cuda_runtime/include/cuda_fp16.h",
            "nvidia/cuda_runtime/include/mma.h",
            "nvidia/cuda_nvcc/include/crt/mma.h",
        ),
        ("nvidia/cu13/include/cuda_fp16.h", "nvidia/cu13/include/mma.h", "nvidia/cu13/include/crt/mma.h"),
        ("toolkit/include/cuda_fp16.h", "toolkit/include/mma.h", "toolkit/include/crt/mma.h"),
    ],
)
def test_headers_are_found_in_every_layout(
    layout: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in layout:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    spec = SimpleNamespace(submodule_search_locations=[str(tmp_path / "nvidia")])
    monkeypatch.setattr(cuda, "find_spec", lambda name: spec)
    monkeypatch.setenv("CUDA_PATH", str(tmp_path / "toolkit"))
    cuda.include_folders.cache_clear()
    found = cuda.include_folders()
    cuda.include_folders.cache_clear()
    for name in ("cuda_fp16.h", "mma.h", "crt/mma.h"):
        assert any((folder / name).is_file() and tmp_path in folder.parents for folder in found)


def test_missing_headers_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "_candidates", lambda: [])
    cuda.include_folders.cache_clear()
    with pytest.raises(RuntimeError, match=r"cuda_fp16.h.*CUDA_PATH"):
        cuda.include_folders()
    cuda.include_folders.cache_clear()


def test_what_does_not_compile_shows_the_compilers_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("cupy")
    (tmp_path / "bad.cu").write_text('extern "C" __global__ void f(float* x) { x[0] = unheard_of; }')
    monkeypatch.setattr(cuda, "HERE", tmp_path)
    with pytest.raises(RuntimeError, match=r'(?s)bad.cu for sm_80, .*"unheard_of" is undefined'):
        cuda.compile_for("bad", 80)


def test_an_edited_header_is_another_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "HERE", tmp_path)
    (tmp_path / "common.cuh").write_text("// one")
    before = cuda.options({"WIDTH": 3})
    (tmp_path / "common.cuh").write_text("// two")
    assert cuda.options({"WIDTH": 3}) != before and "-DWIDTH=3" in before


@pytest.mark.gpu
def test_a_launch_follows_torchs_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "doubled.cu").write_text(DOUBLED)
    (tmp_path / "common.cuh").write_text((cuda.HERE / "common.cuh").read_text())
    monkeypatch.setattr(cuda, "HERE", tmp_path)
    module = cuda.Module("doubled", {"FACTOR": 2})
    x = torch.randn(100_000).half()
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for shared_bytes in (1024, 64 << 10):  # the second needs asking for
            there, out = x.cuda(non_blocking=True), torch.empty(len(x), device="cuda")
            torch.cuda._sleep(20_000_000)  # what is launched on another stream would read too early
            there.add_(1)
            module.launch("doubled", -(-len(x) // 256), 256, [there, out, len(x)], shared_bytes)
            out.add_(0)
            assert torch.equal(out.cpu(), 2 * (x + 1).float())
