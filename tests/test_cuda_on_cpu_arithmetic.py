"""The stand-in for a GPU: half, bfloat16, intrinsics and random numbers, against NumPy and torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from cuda_on_cpu import kernel_file, needs_compiler, run
from hypothesis import given
from hypothesis import strategies as st

pytestmark = needs_compiler


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


def test_every_half_survives_and_edges_round_to_even() -> None:
    path = kernel_file(ROUND)
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
def rounding() -> Path:
    return kernel_file(ROUND)


@given(st.lists(st.floats(width=32), min_size=1, max_size=50))
def test_rounding_is_torchs(rounding: Path, values: list[float]) -> None:
    x = np.array(values, np.float32)
    h, b, _ = rounded(rounding, x)
    torch.testing.assert_close(h, torch.from_numpy(x).half(), rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(b, torch.from_numpy(x).bfloat16(), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(("name", "dtype"), [("__half", torch.float16), ("__nv_bfloat16", torch.bfloat16)])
def test_arithmetic_of_small_floats(name: str, dtype: torch.dtype) -> None:
    path = kernel_file(f"""
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


def test_intrinsics() -> None:
    path = kernel_file("""
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


def test_philox_gives_the_published_numbers() -> None:
    """Known answers of Random123, the authors' own library."""
    path = kernel_file("""
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
