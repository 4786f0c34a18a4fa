"""SoftInfoNCE (SvaCLR, Eq. 3), forward and backward; n embeddings of each modality are n / 2 samples in two views."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import Case, Impl, Step, Target

SIZES = {"cpu": (8192,), "cuda": (65_536, 262_144)}
WIDTH, VIEWS, TEMPERATURE, CLAMP = 128, 2, 0.07, (0.1, 2.0)
PRODUCTS = 8  # two forward; backward the same two again, and two of each for the gradients
TILE = 1024


def K(n: int) -> int:
    return n


def inputs(case: Case) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = case.n // VIEWS, VIEWS, WIDTH
    given = (F.normalize(torch.randn(shape, generator=generator), dim=-1) for _ in range(4))
    return [x.to(case.device).requires_grad_() for x in given]


def stepped(loss: Any, given: list[Tensor]) -> Step:
    """The loss with its gradients."""

    def run() -> tuple[Tensor, ...]:
        value = loss(*given)
        return (value.detach(), *torch.autograd.grad(value, given))

    return run


def ours(given: list[Tensor], case: Case) -> Step:
    from coaug.kernels.soft_infonce import soft_infonce

    return stepped(lambda *x: soft_infonce(*x, temperature=TEMPERATURE, clamp=CLAMP)[0], given)


def eager(given: list[Tensor], case: Case) -> Step:
    return stepped(full, given)


def compiled(given: list[Tensor], case: Case) -> Step:
    return stepped(torch.compile(full), given)


def full(z_audio: Tensor, z_video: Tensor, y_audio: Tensor, y_video: Tensor) -> Tensor:
    """This project's own formulation before it had a kernel: whole matrices, (N, V, N, V)."""
    weights, others = weights_of(y_audio, y_video)
    logits = similarities(z_audio, z_video) / TEMPERATURE
    own = own_pairs(logits)
    of_audio, of_video = negatives(logits), negatives(logits.permute(2, 3, 0, 1))
    losses = -F.logsigmoid(own - of_audio[:, :, None]) - F.logsigmoid(own - of_video[:, None])
    return (weights * losses / 2).mean() + 0 * others


def weights_of(y_audio: Tensor, y_video: Tensor) -> tuple[Tensor, Tensor]:
    """lambda of own pairs, and its mean over other pairs, which is logged."""
    products = similarities(y_audio, y_video)
    log_affinity = products.flatten(2).log_softmax(-1).view_as(products)
    log_weights = log_affinity - log_affinity[:, 0, :, 0].diagonal()[:, None, None, None]
    weights = log_weights.clamp(math.log(CLAMP[0]), math.log(CLAMP[1])).exp()
    same = torch.eye(len(weights), dtype=torch.bool, device=weights.device)
    pairs = weights.detach().mean((1, 3))
    return own_pairs(weights), pairs.masked_fill(same, 0).sum() / (~same).sum().clamp(min=1)


def similarities(audio: Tensor, video: Tensor) -> Tensor:
    n, v, _ = audio.shape
    return (audio.flatten(0, 1) @ video.flatten(0, 1).T).view(n, v, n, v)


def own_pairs(matrix: Tensor) -> Tensor:
    return matrix.diagonal(dim1=0, dim2=2).permute(2, 0, 1)


def negatives(rows: Tensor) -> Tensor:
    same = torch.eye(len(rows), dtype=torch.bool, device=rows.device)
    lowest = torch.finfo(rows.dtype).min / 2
    return rows.masked_fill(same[:, None, :, None], lowest).flatten(2).logsumexp(-1)


def inf_cl(given: list[Tensor], case: Case) -> Step:
    from inf_cl import cal_inf_loss

    scale = torch.tensor(1 / TEMPERATURE, device=case.device)
    half = [x.flatten(0, 1).half() for x in given[:2]]
    return stepped(lambda *z: cal_inf_loss(*z, scale=scale), [x.detach().requires_grad_() for x in half])


def products(given: list[Tensor], case: Case) -> Step:
    x, y = (t.detach().flatten(0, 1) for t in given[:2])
    out = torch.empty(TILE, case.n, device=case.device)

    def run() -> None:
        for _ in range(PRODUCTS):
            for start in range(0, case.n, TILE):
                some = x[start : start + TILE]
                torch.mm(some, y.T, out=out[: len(some)])

    return run


IMPLS = {
    "coaug": Impl(ours, "soft_infonce, diagonal pairs"),
    "torch": Impl(eager, "whole matrices: this project's own formulation before it had a kernel"),
    "torch.compile": Impl(compiled, "the same, compiled"),
    "Inf-CL": Impl(inf_cl, "plain InfoNCE in half precision, no weights", exact=False),
    "GEMM": Impl(products, f"{PRODUCTS} products of all pairs, nothing else", exact=False),
}
TARGETS = (
    Target("torch", 50, figure="peak_mb"),
    Target("torch", 1),
    Target("torch", 4, "cuda", (65_536,)),
    Target("torch.compile", 2, "cuda", (65_536,)),
    Target("", 21, "cuda", (65_536,)),
)
