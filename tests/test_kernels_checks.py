"""What the checks let through, and what they say of the rest."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from coaug.kernels import checks


def test_a_matrix_is_let_through() -> None:
    for dtype in checks.FLOATS:
        checks.matrix("query", torch.zeros(3, 5, dtype=dtype), width=5)
    checks.matrix("query", torch.zeros(0, 5))
    checks.matrix("query", torch.zeros(2, 5, device="meta"))


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        ([[1.0]], TypeError, "query must be a torch.Tensor, got list"),
        (torch.zeros(3), ValueError, r"query must be a matrix .*, got float32 of shape \(3,\) on cpu"),
        (torch.zeros(3, 0), ValueError, r"query must be a matrix .* \(3, 0\)"),
        (torch.zeros(3, 4), ValueError, r"query must have 5 columns, got float32 of shape \(3, 4\)"),
        (torch.zeros(5, 3).T, ValueError, r"contiguous, .* strides \(1, 3\): pass query.contiguous\(\)"),
        (
            torch.zeros(3, 5, dtype=torch.int32),
            TypeError,
            "one of float16, bfloat16, float32, float64, got int32",
        ),
    ],
)
def test_what_is_no_matrix_is_named(x: Tensor, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        checks.matrix("query", x, width=5)


def test_dtypes_can_be_fewer() -> None:
    with pytest.raises(TypeError, match=r"bank must be one of float16, float32, got float64 .* on meta"):
        checks.matrix(
            "bank",
            torch.zeros(2, 2, dtype=torch.float64, device="meta"),
            dtypes=(torch.float16, torch.float32),
        )


def test_devices_are_compared() -> None:
    x, y = torch.zeros(2), torch.zeros(2, device="meta")
    checks.same_device(video=x, audio=x)
    with pytest.raises(ValueError, match="on one device, got video on cpu, audio on meta"):
        checks.same_device(video=x, audio=y)


def test_indices_lie_in_their_range() -> None:
    checks.indices("ids", torch.tensor([0, 6, 3]), 7)
    checks.indices("ids", torch.zeros(0, dtype=torch.int64), 0)
    for wrong in (-1, 7, 2**40):
        with pytest.raises(ValueError, match=f"ids must lie in 0 … 6, got {wrong} among int64 of shape"):
            checks.indices("ids", torch.tensor([0, wrong, 3]), 7)
    with pytest.raises(TypeError, match="ids must be an int64 tensor, got int32"):
        checks.indices("ids", torch.zeros(3, dtype=torch.int32), 7)
    with pytest.raises(TypeError, match="ids must be an int64 tensor, got list"):
        checks.indices("ids", [1, 2], 7)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="ids must be contiguous"):
        checks.indices("ids", torch.zeros(6, dtype=torch.int64)[::2], 7)


@given(
    st.sampled_from(checks.FLOATS),
    st.integers(1, 6),
    st.integers(1, 6),
    st.sampled_from(["nan", "inf", "-inf"]),
)
def test_one_number_that_is_none_is_found(dtype: torch.dtype, rows: int, columns: int, wrong: str) -> None:
    x = torch.full((rows, columns), torch.finfo(dtype).max, dtype=dtype)
    checks.finite("query", x)
    x[rows // 2, columns - 1] = float(wrong)
    kind = "NaN" if wrong == "nan" else "infinity"
    with pytest.raises(ValueError, match=f"query holds {kind} among {str(dtype).removeprefix('torch.')}"):
        checks.finite("query", x)


def test_nothing_is_finite() -> None:
    checks.finite("query", torch.zeros(0, 4))


@pytest.mark.parametrize(
    "check",
    [lambda x: checks.finite("query", x.float()), lambda x: checks.indices("ids", x, 9)],
    ids=["finite", "indices"],
)
def test_values_are_checked_under_compile_too(check: Callable[[Tensor], None]) -> None:
    def doubled(x: Tensor) -> Tensor:
        check(x)
        return 2 * x

    compiled = torch.compile(doubled, backend="aot_eager", fullgraph=True)
    assert compiled(torch.tensor([3, 4])).tolist() == [6, 8]


@pytest.mark.gpu
def test_good_values_pass_on_a_gpu_without_waiting() -> None:
    x = torch.ones(4, 4, device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        checks.matrix("query", x)
        checks.finite("query", x)
        checks.indices("ids", torch.arange(5, device="cuda"), 5)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.cuda.synchronize()
