"""The stand-in for a GPU: what threads do together, against NumPy, and the errors of threads that do not meet."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from cuda_on_cpu import KernelError, kernel_file, needs_compiler, run

pytestmark = needs_compiler

LANES = np.arange(32)


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
def test_what_the_lanes_of_a_warp_tell_each_other(name: str, dtype: str) -> None:
    path = kernel_file(SHUFFLES.replace("T mine", f"{name} mine").replace("T* ", f"{name}* "))
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


def test_barriers_that_count() -> None:
    path = kernel_file("""
        extern "C" __global__ void counted(int* out) {
            out[threadIdx.x] = __syncthreads_count(threadIdx.x % 5 == 0);
            out[70 + threadIdx.x] = 2 * __syncthreads_or(threadIdx.x == 69) + __syncthreads_and(threadIdx.x < 69);
        }""")
    out = np.zeros((2, 70), np.int32)
    run(path, "counted", 1, 70, [out])
    assert (out[0] == 14).all() and (out[1] == 2).all()


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
def test_tensor_core_products(name: str, dtype: torch.dtype, layouts: tuple[str, str]) -> None:
    by_rows = [layout == "row" for layout in layouts]
    text = MATMUL.replace("T*", f"{name}*").replace(", T,", f", {name},")
    text = text.replace("LAYOUT_A", f"{layouts[0]}_major").replace("LAYOUT_B", f"{layouts[1]}_major")
    text = text.replace("A_BY_ROWS", str(int(by_rows[0]))).replace("B_BY_ROWS", str(int(by_rows[1])))
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(size, generator=generator).to(dtype) for size in ((16, 48), (48, 32)))
    out = torch.zeros(1024)
    stored = [(x if rows else x.T).contiguous() for x, rows in zip((a, b), by_rows, strict=True)]
    run(kernel_file(text), "matmul", 1, 64, [*stored, out, 48])
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
def broken() -> Path:
    bodies = [*BROKEN.values(), "__syncthreads(); out[threadIdx.x] = warp_sum(1);"]
    return kernel_file(
        "\n".join(f'extern "C" __global__ void broken{i}(int* out) {{{x}}}' for i, x in enumerate(bodies))
    )


@pytest.mark.parametrize("number", range(len(BROKEN)))
def test_what_is_wrong_is_named(broken: Path, number: int) -> None:
    out = np.zeros(64, np.int32)
    with pytest.raises(KernelError, match=f"broken{number}: .*{list(BROKEN)[number]}"):
        run(broken, f"broken{number}", 1, 64, [out], shared_bytes=256)
    run(broken, f"broken{len(BROKEN)}", 1, 64, [out])  # an error leaves nothing behind
    assert (out == 32).all()
