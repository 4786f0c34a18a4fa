"""The stand-in for a GPU, which other kernels' tests rest on: blocks, threads, shared memory, arguments."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from cuda_on_cpu import KernelError, Module, kernel_file, needs_compiler, run

pytestmark = needs_compiler


def test_indices_in_three_dimensions() -> None:
    path = kernel_file("""
        extern "C" __global__ void where(int* out) {
            int block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
            int thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
            out[block * blockDim.x * blockDim.y * blockDim.z + thread] += block * 1000 + thread;
        }""")
    for order in ("forward", "reverse"):
        out = np.zeros((2 * 3 * 4, 5 * 2 * 3), np.int32)
        run(path, "where", (2, 3, 4), (5, 2, 3), [out], order=order)
        assert (out == 1000 * np.arange(24)[:, None] + np.arange(30)).all()


SUMS = """
extern "C" __global__ void __launch_bounds__(256) sums(const float* __restrict__ x, float* out, long long n) {
    extern __shared__ float tile[];
    __shared__ float total;
    long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    tile[threadIdx.x] = i < n ? x[i] : 0.0f;
    __syncthreads();
    for (int half = blockDim.x / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) tile[threadIdx.x] += tile[threadIdx.x + half];
        __syncthreads();
    }
    if (threadIdx.x == 0) total = tile[0];
    __syncthreads();
    if (threadIdx.x == blockDim.x - 1) atomicAdd(out, total);
}"""


@pytest.mark.parametrize("order", ["forward", "reverse"])
def test_a_sum_through_shared_memory_and_atomics(order: Any) -> None:
    x = np.arange(1000, dtype=np.float32)
    out = np.zeros(1, np.float32)
    run(kernel_file(SUMS), "sums", 8, 128, [x, out, np.int64(1000)], shared_bytes=512, order=order)
    assert out[0] == 499500


def test_the_stand_in_for_a_module_takes_tensors() -> None:
    x, out = torch.ones(100), torch.zeros(1)
    Module(kernel_file(SUMS)).launch("sums", 1, 128, [x, out, np.int64(100)], 512)
    assert out.item() == 100


def test_atomics() -> None:
    path = kernel_file("""
        extern "C" __global__ void atomics(int* i, unsigned* u, unsigned long long* l, float* f, double* d) {
            int x = blockIdx.x * blockDim.x + threadIdx.x;
            atomicAdd(i, x); atomicMax(i + 1, x); atomicMin(i + 2, -x); atomicOr(u, 1u << (x % 32));
            atomicAdd(u + 1, 1u); atomicAdd(l, (unsigned long long)x << 32); atomicMax(l + 1, (uint64)x * x);
            atomicAdd(f, 0.5f); atomicAdd(d, 0.25); atomicExch(i + 3, 7);
            int old = *i, seen;  // multiply by compare and swap
            old = i[4];
            do { seen = old; old = atomicCAS(i + 4, seen, seen + 3); } while (old != seen);
        }""")
    i, u, wide = np.zeros(5, np.int32), np.zeros(2, np.uint32), np.zeros(2, np.uint64)
    f, d = np.zeros(1, np.float32), np.zeros(1, np.float64)
    run(path, "atomics", 4, 50, [i, u, wide, f, d])
    assert i.tolist() == [19900, 199, -199, 7, 600] and u.tolist() == [2**32 - 1, 200]
    assert wide.tolist() == [19900 << 32, 199 * 199] and f[0] == 100 and d[0] == 50


def test_shared_memory_that_nobody_wrote_is_nan() -> None:
    path = kernel_file("""
        template <int N> __device__ float in_a_function() { __shared__ float x[N]; float y = x[0]; x[0] = 1; return y; }
        extern "C" __global__ void unwritten(float* out) {
            extern __shared__ __align__(16) float dynamic[];
            __shared__ float one, several[4]; __shared__ __align__(16) __half small[2][3];
            float* mine = out + 5 * blockIdx.x;
            mine[0] = dynamic[0], mine[1] = one, mine[2] = several[3], mine[3] = small[1][2];
            mine[4] = in_a_function<3>();
            dynamic[0] = one = several[3] = 1.0f, small[1][2] = 1.0f;
        }""")
    out = np.zeros(10, np.float32)
    run(path, "unwritten", 2, 1, [out], shared_bytes=16)
    assert np.isnan(out).all()


def test_arguments_are_held_against_the_parameters() -> None:
    path = kernel_file(
        'extern "C" __global__ void takes(const __half* x, long long n, float scale, const void* any) {}'
    )
    x = np.zeros(4, np.float16)
    run(path, "takes", 1, 1, [x, np.int64(4), 1.0, np.zeros(1)])
    for position, wrong in ((0, np.zeros(4, np.float32)), (0, 3), (1, 4), (2, 1), (3, 0.5)):
        args: list[Any] = [x, np.int64(4), 1.0, x]
        args[position] = wrong
        with pytest.raises(TypeError, match=f"takes: argument {position} is"):
            run(path, "takes", 1, 1, args)
    with pytest.raises(TypeError, match="takes 4 arguments, got 1"):
        run(path, "takes", 1, 1, [x])
    with pytest.raises(ValueError, match="no function other"):
        run(path, "other", 1, 1, [])
    with pytest.raises(KernelError, match="1024 threads"):
        run(path, "takes", 1, 2048, [x, np.int64(4), 1.0, x])


def test_defines_and_compile_errors() -> None:
    path = kernel_file('extern "C" __global__ void defined(int* out) { out[0] = WIDTH; }')
    out = np.zeros(1, np.int32)
    for width in (3, 4):
        run(path, "defined", 1, 1, [out], WIDTH=width)
        assert out[0] == width
    with pytest.raises(RuntimeError, match=r"(?s)does not compile.*WIDTH"):
        run(path, "defined", 1, 1, [out])
