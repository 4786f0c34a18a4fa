"""soft_infonce.cu's kernels, run on the CPU, and the code that launches them."""

from __future__ import annotations

import contrastive_reference as reference
import pytest
import torch
from cuda_on_cpu import Module, needs_compiler
from torch import Tensor
from torch.nn.functional import normalize

from coaug.kernels import contrastive_cuda, cuda
from coaug.kernels import contrastive_ops as ops
from coaug.kernels.soft_infonce import infonce, soft_infonce

pytestmark = needs_compiler


@pytest.fixture(autouse=True)
def emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    """The operators take the GPU's way with CPU tensors."""
    monkeypatch.setattr(ops, "_on", lambda x: contrastive_cuda)
    monkeypatch.setattr(cuda, "module", lambda name, **defines: Module(name, **defines))


def embeddings(n: int, v: int, dtype: torch.dtype, length: float = 1.0) -> list[Tensor]:
    draw = torch.Generator().manual_seed(n)
    widths = (20, 20, 36, 36)
    found = [normalize(torch.randn(n, v, d, generator=draw), dim=-1) * length for d in widths]
    return [x.to(dtype).requires_grad_() for x in found]


def compare(inputs: list[Tensor], tolerance: float, anchors: list[tuple[int, int] | None], **options) -> None:
    exact = [x.detach().double().requires_grad_() for x in inputs]
    expected = reference.soft_infonce(*exact, **options)
    found = [soft_infonce(*inputs, **options, anchors=part) for part in anchors]
    for parts, one in zip(zip(*found, strict=True), expected, strict=True):
        assert sum(parts).item() == pytest.approx(one.item(), rel=1e-5)
    wanted = torch.autograd.grad(expected[0], exact)
    got = torch.autograd.grad(sum(part[0] for part in found), inputs)
    largest = max(g.abs().max() for g in wanted)
    for a, b in zip(got, wanted, strict=True):
        assert (a.double() - b).abs().max() <= tolerance * largest


@pytest.mark.parametrize(("n", "v"), [(5, 1), (40, 2), (23, 3)])
@pytest.mark.parametrize("temperature", [0.07, 0.01])
@pytest.mark.parametrize("masked", [False, True])
def test_equals_the_plain_formulation(n, v, temperature, masked):
    valid = torch.arange(n) % 3 != 1 if masked else None
    options = {"temperature": temperature, "affinity_temperature": 0.2, "clamp": (0.7, 1.4), "valid": valid}
    compare(embeddings(n, v, torch.float32), 1e-4, [None], **options)


def test_shares_sum_to_the_whole():
    valid = torch.arange(17) % 5 != 2
    parts = [(0, 4), (4, 10), (14, 3)]
    options = {"temperature": 0.1, "affinity_temperature": 0.2, "valid": valid}
    compare(embeddings(17, 2, torch.float32), 1e-4, parts, **options)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_tensor_cores(dtype):
    inputs = embeddings(35, 2, dtype)
    compare(inputs, 2 * torch.finfo(dtype).eps, [None], temperature=0.1, affinity_temperature=0.5, clamp=None)


def test_long_rows_do_not_overflow():
    z_audio, z_video, *_ = embeddings(9, 2, torch.float32, length=300.0)
    loss = infonce(z_audio, z_video, 0.1)
    exact = reference.infonce(z_audio.double(), z_video.double(), 0.1)
    assert loss.item() == pytest.approx(exact.item(), rel=1e-5)
    assert all(g.isfinite().all() for g in torch.autograd.grad(loss, (z_audio, z_video)))
