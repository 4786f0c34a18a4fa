import math

import pytest
import torch
from contrastive_reference import pair_losses
from torch import Tensor
from torch.nn.functional import normalize

from coaug.losses.infonce import infonce

ETA = 0.3


def views(n: int, v: int, d: int = 5, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    z = normalize(torch.randn(2, n, v, d, dtype=torch.float64, generator=generator), dim=-1)
    return z[0].clone(), z[1].clone()


def reference(z_audio: Tensor, z_video: Tensor, valid: list[bool]) -> dict[tuple[int, int, int], float]:
    """Eq. 1, term by term, for the pairs of the valid samples."""
    n, v, _ = z_audio.shape

    def e(i: int, p: int, j: int, q: int) -> float:
        return math.exp(
            sum(a * b for a, b in zip(z_audio[i, p].tolist(), z_video[j, q].tolist(), strict=True)) / ETA
        )

    found = {}
    for i in (i for i in range(n) if valid[i]):
        others = [j for j in range(n) if valid[j] and j != i]
        for p in range(v):
            for q in range(v):
                to_video = e(i, p, i, q) + sum(e(i, p, j, r) for j in others for r in range(v))
                to_audio = e(i, p, i, q) + sum(e(j, r, i, q) for j in others for r in range(v))
                found[i, p, q] = (
                    -(math.log(e(i, p, i, q) / to_video) + math.log(e(i, p, i, q) / to_audio)) / 2
                )
    return found


@pytest.mark.parametrize("v", [1, 2, 3])
@pytest.mark.parametrize("valid", [[True] * 5, [True, False, True, True, False]])
def test_equals_eq_1_term_by_term(v, valid):
    z_audio, z_video = views(5, v)
    expected = reference(z_audio, z_video, valid)
    losses = pair_losses(z_audio, z_video, ETA, torch.tensor(valid))
    for (i, p, q), value in expected.items():
        assert losses[i, p, q].item() == pytest.approx(value, rel=1e-12)
    loss = infonce(z_audio, z_video, ETA, torch.tensor(valid))
    assert loss.item() == pytest.approx(sum(expected.values()) / len(expected), rel=1e-12)


def test_identical_embeddings_give_the_logarithm_of_the_candidates():
    z = normalize(torch.ones(8, 2, 4, dtype=torch.float64), dim=-1)
    assert infonce(z, z, 0.07).item() == pytest.approx(math.log(1 + 2 * 7))  # itself and 2(N-1) negatives


def test_orthogonal_samples_with_equal_views():
    z = torch.eye(6, dtype=torch.float64)[:, None].expand(6, 2, 6)
    assert infonce(z, z, 0.5).item() == pytest.approx(math.log(1 + 10 * math.exp(-2)))


def test_an_invalid_sample_might_as_well_not_be_there():
    z_audio, z_video = (z.requires_grad_() for z in views(6, 2))
    keep = torch.tensor([True, True, False, True, False, True])
    infonce(z_audio, z_video, ETA, keep).backward()
    small_audio, small_video = (z.detach()[keep].requires_grad_() for z in (z_audio, z_video))
    infonce(small_audio, small_video, ETA).backward()
    for big, small in ((z_audio, small_audio), (z_video, small_video)):
        torch.testing.assert_close(big.grad[keep], small.grad)
        assert not big.grad[~keep].any()


@pytest.mark.parametrize("valid", [[False] * 4, [False, True, False, False]])
def test_without_negatives_loss_and_gradient_are_exactly_zero(valid):
    z_audio, z_video = (z.float().requires_grad_() for z in views(4, 2))
    loss = infonce(z_audio, z_video, 0.07, torch.tensor(valid))
    loss.backward()
    assert loss.item() == 0
    assert not z_audio.grad.any()
    assert not z_video.grad.any()


def test_one_sample_alone_is_zero():
    assert infonce(*views(1, 2), 0.07).item() == 0


@pytest.mark.parametrize("valid", [None, [True, False, True, True]])
def test_gradient(valid):
    z_audio, z_video = (z.requires_grad_() for z in views(4, 2, 3))
    mask = None if valid is None else torch.tensor(valid)
    assert torch.autograd.gradcheck(lambda a, b: infonce(a, b, ETA, mask), (z_audio, z_video))


def test_order_of_the_samples_does_not_matter():
    z_audio, z_video = views(7, 2)
    order = torch.randperm(7, generator=torch.manual_seed(3))
    torch.testing.assert_close(infonce(z_audio[order], z_video[order], ETA), infonce(z_audio, z_video, ETA))


def test_is_computed_in_float32_under_autocast():
    z_audio, z_video = (z.bfloat16() for z in views(16, 2, 32))
    with torch.autocast("cpu", torch.bfloat16):
        loss = infonce(z_audio, z_video, 0.07)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(
        loss, infonce(z_audio.double(), z_video.double(), 0.07).float(), rtol=1e-5, atol=0
    )


def test_small_temperatures_do_not_overflow():
    z = torch.eye(4)[:, None]
    loss = infonce(z, -z, 1e-3)
    assert loss.item() == pytest.approx(1000 + math.log(3), rel=1e-5)
