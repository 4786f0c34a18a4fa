"""The stand-in for a GPU against NumPy: what the other kernels' tests rest on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cuda_on_cpu import KernelError, Module, needs_compiler, run
from hypothesis import given
from hypothesis import strategies as st

pytestmark = needs_compiler

Write = Callable[[str], Path]
LANES = np.arange(32)


@pytest.fixture(scope="module")
def write(tmp_path_factory: pytest.TempPathFactory) -> Write:
    folder = tmp_path_factory.mktemp("cu")
    counter = iter(range(1000))

    def write(text: str) -> Path:
        path = folder / f"case{next(counter)}.cu"
        path.write_text('#include "common.cuh"\n' + text)
        return path

    return write


def test_indices_in_three_dimensions(write: Write) -> None:
    path = write("""
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
def test_a_sum_through_shared_memory_and_atomics(write: Write, order: Any) -> None:
    x = np.arange(1000, dtype=np.float32)
    out = np.zeros(1, np.float32)
    run(write(SUMS), "sums", 8, 128, [x, out, np.int64(1000)], shared_bytes=512, order=order)
    assert out[0] == 499500


def test_the_stand_in_for_a_module_takes_tensors(write: Write) -> None:
    x, out = torch.ones(100), torch.zeros(1)
    Module(write(SUMS)).launch("sums", 1, 128, [x, out, np.int64(100)], 512)
    assert out.item() == 100


SHUFFLES = """
extern "C" __global__ void shuffles(const T* x, T* out, unsigned* votes) {
    int lane = threadIdx.x;
    T mine = x[lane];
    out[lane] = __shfl_sync(FULL_WARP, mine, 5);
    out[32 + lane] = __shfl_up_sync(FULL_WARP, mine, 3);
    out[64 + lane] = __shfl_down_sync(FULL_WARP, mine, 3);
    out[96 + lane] = __shfl_xor_sync(FULL_WARP, mine, 9);
    out[128 + lane] = __shfl_down_sync(FULL_WARP, mine, 2, 8);
    out[160 + lane] = __shfl_sync(FULL_WARP, mine, 1, 16);
    out[192 + lane] = warp_sum(mine);
    out[224 + lane] = warp_max(mine);
    out[256 + lane] = warp_min(mine);
    votes[lane] = __ballot_sync(FULL_WARP, lane % 3 == 0);
    votes[32 + lane] = __any_sync(FULL_WARP, lane == 7) + 2 * __all_sync(FULL_WARP, lane < 31);
    votes[64 + lane] = __match_any_sync(FULL_WARP, lane % 4);
    votes[96 + lane] = __reduce_add_sync(FULL_WARP, (unsigned)lane) + __reduce_max_sync(FULL_WARP, lane);
    unsigned low = lane < 16 ? 0xffffu : 0xffff0000u;
    votes[128 + lane] = lane < 16 ? __ballot_sync(low, lane % 2) : __ballot_sync(low, lane % 2 == 0);
}"""


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("float", "f4"), ("int", "i4"), ("double", "f8"), ("long long", "i8"), ("__half", "f2")],
)
def test_what_the_lanes_of_a_warp_tell_each_other(write: Write, name: str, dtype: str) -> None:
    path = write(SHUFFLES.replace("T mine", f"{name} mine").replace("T* ", f"{name}* "))
    x = np.random.default_rng(0).integers(-9, 9, 32).astype(dtype)
    out, votes = np.zeros((9, 32), dtype), np.zeros((5, 32), np.uint32)
    run(path, "shuffles", 1, 32, [x, out, votes])
    assert (out[0] == x[5]).all() and (out[1] == x[np.where(LANES < 3, LANES, LANES - 3)]).all()
    assert (out[2] == x[np.where(LANES > 28, LANES, LANES + 3)]).all() and (out[3] == x[LANES ^ 9]).all()
    assert (out[4] == x[np.where(LANES % 8 > 5, LANES, LANES + 2)]).all()
    assert (out[5] == x[LANES // 16 * 16 + 1]).all()
    assert (out[6] == x.sum()).all() and (out[7] == x.max()).all() and (out[8] == x.min()).all()
    assert (votes[0] == sum(1 << lane for lane in range(0, 32, 3))).all()
    assert (votes[1] == 1).all() and (votes[3] == 496 + 31).all()
    assert (votes[2] == 0x11111111 << (LANES % 4)).all()
    assert (votes[4, :16] == 0xAAAA).all() and (votes[4, 16:] == 0x55550000).all()


def test_barriers_that_count(write: Write) -> None:
    path = write("""
        extern "C" __global__ void counted(int* out) {
            out[threadIdx.x] = __syncthreads_count(threadIdx.x % 5 == 0);
            out[70 + threadIdx.x] = 2 * __syncthreads_or(threadIdx.x == 69) + __syncthreads_and(threadIdx.x < 69);
        }""")
    out = np.zeros((2, 70), np.int32)
    run(path, "counted", 1, 70, [out])
    assert (out[0] == 14).all() and (out[1] == 2).all()


def test_atomics(write: Write) -> None:
    path = write("""
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


ROUND = """
extern "C" __global__ void rounded(const float* x, __half* h, __nv_bfloat16* b, float* back, int n) {
    for (int i = 0; i < n; i++) {
        h[i] = __float2half(x[i]), b[i] = __float2bfloat16(x[i]);
        back[i] = to_float(h[i]), back[n + i] = to_float(b[i]);
    }
}"""


def rounded(path: Path, x: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    h, b = torch.zeros(len(x), dtype=torch.float16), torch.zeros(len(x), dtype=torch.bfloat16)
    back = np.zeros((2, len(x)), np.float32)
    run(path, "rounded", 1, 1, [x, h, b, back, len(x)])
    return h, b, back


def test_every_half_survives_and_edges_round_to_even(write: Write) -> None:
    path = write(ROUND)
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float32)
    edges = np.array(
        [65519.996, 65520, 2**-25, 2**-25 * 1.001, -(2**-24) * 1.5, 1 + 2**-11, 1 + 3 * 2**-11, 1e-40]
    )
    x = np.concatenate([halves, edges.astype(np.float32)])
    h, b, back = rounded(path, x)
    np.testing.assert_array_equal(h.numpy(), torch.from_numpy(x).half().numpy())
    np.testing.assert_array_equal(back[0], torch.from_numpy(x).half().float().numpy())
    np.testing.assert_array_equal(b.float().numpy(), torch.from_numpy(x).bfloat16().float().numpy())
    np.testing.assert_array_equal(back[1], b.float().numpy())


@pytest.fixture(scope="module")
def rounding(write: Write) -> Path:
    return write(ROUND)


@given(st.lists(st.floats(width=32), min_size=1, max_size=50))
def test_rounding_is_torchs(rounding: Path, values: list[float]) -> None:
    x = np.array(values, np.float32)
    h, b, _ = rounded(rounding, x)
    torch.testing.assert_close(h, torch.from_numpy(x).half(), rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(b, torch.from_numpy(x).bfloat16(), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(("name", "dtype"), [("__half", torch.float16), ("__nv_bfloat16", torch.bfloat16)])
def test_arithmetic_of_small_floats(write: Write, name: str, dtype: torch.dtype) -> None:
    path = write(f"""
        extern "C" __global__ void small(const {name}* x, const {name}* y, {name}* out) {{
            int i = threadIdx.x;
            out[i] = x[i] + y[i], out[64 + i] = x[i] - y[i], out[128 + i] = x[i] * y[i];
            out[192 + i] = __hmax(x[i], y[i]), out[256 + i] = x[i] < y[i] ? -x[i] : y[i];
            {name}2 pair = reinterpret_cast<const {name}2*>(x)[i / 2];
            out[320 + i] = i % 2 ? pair.y : pair.x;
        }}""")
    x, y = torch.randn(2, 64, generator=torch.Generator().manual_seed(0)).to(dtype)
    out = torch.zeros(6, 64, dtype=dtype)
    run(path, "small", 1, 64, [x, y, out])
    wanted = [x + y, x - y, x * y, torch.maximum(x, y), torch.where(x < y, -x, y), x]
    assert torch.equal(out, torch.stack(wanted))


def test_intrinsics(write: Write) -> None:
    path = write("""
        extern "C" __global__ void many(const float* x, double* out, int n) {
            int i = threadIdx.x;
            float v = __ldg(x + i);
            out[i] = __expf(v), out[n + i] = __logf(v), out[2 * n + i] = rsqrtf(v);
            out[3 * n + i] = __fmaf_rn(v, v, -1.0f), out[4 * n + i] = min(v, 2.0f) + max(i, 3);
            out[5 * n + i] = __popc(i) + __clz(i) + __ffs(i), out[6 * n + i] = __umulhi(0x80000000u, i);
            out[7 * n + i] = __int_as_float(__float_as_int(v)), out[8 * n + i] = __brev(i);
        }""")
    x = np.random.default_rng(1).uniform(0.1, 4, 20).astype(np.float32)
    out = np.zeros((9, 20))
    run(path, "many", 1, 20, [x, out, 20])
    wide, i = x.astype(np.float64), np.arange(20)
    wanted = [np.exp(wide), np.log(wide), wide**-0.5, wide * wide - 1, np.minimum(x, 2) + np.maximum(i, 3)]
    np.testing.assert_allclose(out[:5], wanted, rtol=3e-7, atol=3e-7)
    bits = [k.bit_count() + 32 - k.bit_length() + (k & -k).bit_length() for k in range(20)]
    assert out[5].tolist() == bits and out[6].tolist() == (i // 2).tolist() and (out[7] == x).all()
    assert out[8].tolist() == [int(f"{k:032b}"[::-1], 2) for k in range(20)]


def test_philox_gives_the_published_numbers(write: Write) -> None:
    """Known answers of Random123, the authors' own library."""
    path = write("""
        extern "C" __global__ void draw(const unsigned* x, unsigned* out) {
            uint4 r = philox(make_uint4(x[0], x[1], x[2], x[3]), make_uint2(x[4], x[5]));
            out[0] = r.x, out[1] = r.y, out[2] = r.z, out[3] = r.w;
        }""")
    pi = "243f6a88 85a308d3 13198a2e 03707344 a4093822 299f31d0"
    answers = {
        "0 0 0 0 0 0": "6627e8d5 e169c58d bc57ac4c 9b00dbd8",
        "ffffffff " * 6: "408f276d 41c83b0e a20bc7c6 6d5451fd",
        pi: "d16cfe09 94fdcceb 5001e420 24126ea1",
    }
    for asked, answer in answers.items():
        out = np.zeros(4, np.uint32)
        run(path, "draw", 1, 1, [np.array([int(x, 16) for x in asked.split()], np.uint32), out])
        assert [f"{x:08x}" for x in out] == answer.split()


MATMUL = """
#include <mma.h>
using namespace nvcuda;
extern "C" __global__ void matmul(const T* a, const T* b, float* c, int k) {
    wmma::fragment<wmma::matrix_a, 16, 16, 16, T, wmma::LAYOUT_A> left;
    wmma::fragment<wmma::matrix_b, 16, 16, 16, T, wmma::LAYOUT_B> right;
    wmma::fragment<wmma::accumulator, 16, 16, 16, float> sum;
    int tile = threadIdx.x / 32;  // one warp a tile of 16 columns
    wmma::fill_fragment(sum, 1.0f);
    for (int i = 0; i < k; i += 16) {
        wmma::load_matrix_sync(left, a + (A_BY_ROWS ? i : i * 16), A_BY_ROWS ? k : 16);
        const T* corner = B_BY_ROWS ? b + i * 32 + tile * 16 : b + tile * 16 * k + i;
        wmma::load_matrix_sync(right, corner, B_BY_ROWS ? 32 : k);
        wmma::mma_sync(sum, left, right, sum);
    }
    for (int i = 0; i < sum.num_elements; i++) sum.x[i] = -sum.x[i];
    wmma::store_matrix_sync(c + tile * 16, sum, 32, wmma::mem_row_major);
    __syncwarp();
    wmma::load_matrix_sync(sum, c + tile * 16, 32, wmma::mem_row_major);
    wmma::store_matrix_sync(c + 512 + tile * 256, sum, 16, wmma::mem_col_major);
}"""


@pytest.mark.parametrize(("name", "dtype"), [("__half", torch.float16), ("__nv_bfloat16", torch.bfloat16)])
@pytest.mark.parametrize("layouts", [("row", "col"), ("col", "row")])
def test_tensor_core_products(write: Write, name: str, dtype: torch.dtype, layouts: tuple[str, str]) -> None:
    by_rows = [layout == "row" for layout in layouts]
    text = MATMUL.replace("T*", f"{name}*").replace(", T,", f", {name},")
    text = text.replace("LAYOUT_A", f"{layouts[0]}_major").replace("LAYOUT_B", f"{layouts[1]}_major")
    text = text.replace("A_BY_ROWS", str(int(by_rows[0]))).replace("B_BY_ROWS", str(int(by_rows[1])))
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(size, generator=generator).to(dtype) for size in ((16, 48), (48, 32)))
    out = torch.zeros(1024)
    stored = [(x if rows else x.T).contiguous() for x, rows in zip((a, b), by_rows, strict=True)]
    run(write(text), "matmul", 1, 64, [*stored, out, 48])
    wanted = -(a.double() @ b.double() + 1)
    torch.testing.assert_close(out[:512].view(16, 32).double(), wanted, rtol=1e-5, atol=1e-5)
    assert torch.equal(out[512:].view(2, 16, 16), out[:512].view(16, 2, 16).permute(1, 2, 0))


BROKEN = {  # what is said of it, and the body of a kernel of 64 threads
    r"thread \(0, 0, 0\) .* has left .* thread \(32, 0, 0\) .* at the barrier in line \d+ of case": """
        if (threadIdx.x < 32) return;
        __syncthreads();""",
    r"thread \(0, .* waits at the barrier in line .* thread \(40, .* waits at the barrier in line": """
        if (threadIdx.x < 40) __syncthreads();
        else __syncthreads();""",
    r"do not meet: thread \(0, .* waits for its warp in line \d+ of (\./)?common.cuh, thread \(3, .* has left": """
        if (threadIdx.x == 3) return;
        out[0] = warp_sum(1);""",
    r"do not meet: thread \(1, .* waits for its warp .* thread \(0, .* at the barrier": """
        if (threadIdx.x % 2) __syncwarp(); else __syncthreads();""",
    "do not meet: .* another mask": "__syncwarp(threadIdx.x < 16 ? FULL_WARP : FULL_WARP - (threadIdx.x == 31));",
    "reads a lane outside its mask": "if (threadIdx.x < 16) __shfl_sync(0xffffu, 1, 20);",
    "is not in its own mask": "__syncwarp(1);",
    "past the dynamic shared memory": "extern __shared__ int memory[]; memory[64 + threadIdx.x % 8] = 3;",
    r"thread \(5, 0, 0\) of block \(0, 0, 0\) trapped in line": "assert(threadIdx.x != 5);",
}


@pytest.fixture(scope="module")
def broken(write: Write) -> Path:
    bodies = [*BROKEN.values(), "__syncthreads(); out[threadIdx.x] = warp_sum(1);"]
    return write(
        "\n".join(f'extern "C" __global__ void broken{i}(int* out) {{{x}}}' for i, x in enumerate(bodies))
    )


@pytest.mark.parametrize("number", range(len(BROKEN)))
def test_what_is_wrong_is_named(broken: Path, number: int) -> None:
    out = np.zeros(64, np.int32)
    with pytest.raises(KernelError, match=f"broken{number}: .*{list(BROKEN)[number]}"):
        run(broken, f"broken{number}", 1, 64, [out], shared_bytes=256)
    run(broken, f"broken{len(BROKEN)}", 1, 64, [out])  # an error leaves nothing behind
    assert (out == 32).all()


def test_shared_memory_that_nobody_wrote_is_nan(write: Write) -> None:
    path = write("""
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


def test_arguments_are_held_against_the_parameters(write: Write) -> None:
    path = write(
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


def test_defines_and_compile_errors(write: Write) -> None:
    path = write('extern "C" __global__ void defined(int* out) { out[0] = WIDTH; }')
    out = np.zeros(1, np.int32)
    for width in (3, 4):
        run(path, "defined", 1, 1, [out], WIDTH=width)
        assert out[0] == width
    with pytest.raises(RuntimeError, match=r"(?s)does not compile.*WIDTH"):
        run(path, "defined", 1, 1, [out])
