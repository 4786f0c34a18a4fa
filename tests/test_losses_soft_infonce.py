import itertools
import math

import pytest
import torch
from contrastive_reference import all_pair_losses, pair_losses, pair_weights
from torch import Tensor
from torch.nn.functional import normalize

from coaug.kernels.cross_affinity import cross_affinity, paired_weights
from coaug.losses.infonce import infonce
from coaug.losses.soft_infonce import SoftInfoNCE

ETA, AFFINITY = 0.3, 0.4
MASKS = [[True] * 4, [True, False, True, True]]


def embeddings(n: int, v: int, d: int = 5, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """z_audio, z_video (unit length), y_audio, y_video."""
    z = torch.randn(4, n, v, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return (*(normalize(x, dim=-1) for x in z[:2]), *z[2:].clone())


def build(**options) -> SoftInfoNCE:
    torch.manual_seed(5)
    return SoftInfoNCE(5, temperature=ETA, affinity_temperature=AFFINITY, **options).double()


def dot(a: Tensor, b: Tensor) -> float:
    return sum(x * y for x, y in zip(a.tolist(), b.tolist(), strict=True))


def reference_mapping(loss: SoftInfoNCE, kind: str, y: Tensor) -> Tensor:
    """l(y / |y|), one vector at a time."""
    out = y.clone()
    for i, p in itertools.product(range(len(y)), range(y.shape[1])):
        x = y[i, p] / math.sqrt(dot(y[i, p], y[i, p]))
        if kind == "linear":
            x = loss.mapping.weight @ x + loss.mapping.bias
        if kind == "mlp":
            first, last = loss.mapping[0], loss.mapping[2]
            x = last.weight @ (first.weight @ x + first.bias).clamp(min=0) + last.bias
        out[i, p] = x
    return out


def reference_affinity(l_audio: Tensor, l_video: Tensor, valid: list[bool], temperature: float) -> dict:
    """Eq. 2: a softmax along each row of the 2N x 2N matrix."""
    n, v, _ = l_audio.shape
    stacked = [(i, p) for i in range(n) if valid[i] for p in range(v)]
    found = {}
    for i, p in stacked:
        row = {(j, q): math.exp(dot(l_audio[i, p], l_video[j, q]) / temperature) for j, q in stacked}
        found |= {(i, p, j, q): value / sum(row.values()) for (j, q), value in row.items()}
    return found


def reference_weights(affinity: dict, clamp: tuple[float, float] | None) -> dict:
    low, high = clamp or (0, math.inf)
    return {
        (i, p, j, q): min(max(a / affinity[i, 0, i, 0], low), high) for (i, p, j, q), a in affinity.items()
    }


def reference_losses(z_audio: Tensor, z_video: Tensor, valid: list[bool]) -> dict:
    """-log probability of every pair, mean of both directions; a pair i = j is Eq. 1."""
    n, v, _ = z_audio.shape
    rows = [i for i in range(n) if valid[i]]

    def e(i: int, p: int, j: int, q: int) -> float:
        return math.exp(dot(z_audio[i, p], z_video[j, q]) / ETA)

    found = {}
    for i, j, p, q in itertools.product(rows, rows, range(v), range(v)):
        to_video = e(i, p, i, q) + sum(e(i, p, k, r) for k in rows if k != i for r in range(v))
        to_audio = e(j, p, j, q) + sum(e(k, r, j, q) for k in rows if k != j for r in range(v))
        found[i, p, j, q] = -(math.log(e(i, p, j, q) / to_video) + math.log(e(i, p, j, q) / to_audio)) / 2
    return found


@pytest.mark.parametrize("pairs", ["diagonal", "all"])
@pytest.mark.parametrize("kind", ["identity", "linear", "mlp"])
@pytest.mark.parametrize("v", [1, 2])
@pytest.mark.parametrize("valid", MASKS)
@pytest.mark.parametrize("clamp", [(0.6, 1.4), None])
def test_equals_eq_3_term_by_term(pairs, kind, v, valid, clamp):
    loss = build(pairs=pairs, mapping=kind, clamp=clamp)
    z_audio, z_video, y_audio, y_video = embeddings(4, v)
    mapped = (reference_mapping(loss, kind, y) for y in (y_audio, y_video))
    weights = reference_weights(reference_affinity(*mapped, valid, AFFINITY), clamp)
    losses = reference_losses(z_audio, z_video, valid)
    terms = [weights[k] * losses[k] for k in losses if pairs == "all" or k[0] == k[2]]
    value, figures = loss(z_audio, z_video, y_audio, y_video, torch.tensor(valid))
    assert value.item() == pytest.approx(sum(terms) / len(terms), rel=1e-12)
    for name, same in (("lambda.true", True), ("lambda.shuffled", False)):
        chosen = [w for (i, _, j, _), w in weights.items() if (i == j) is same]
        assert figures[name].item() == pytest.approx(sum(chosen) / len(chosen), rel=1e-12)


@pytest.mark.parametrize("valid", MASKS)
def test_affinity_is_a_softmax_over_rows(valid):
    *_, y_audio, y_video = embeddings(4, 2)
    affinity = cross_affinity(y_audio, y_video, 2.0, torch.tensor(valid))
    expected = torch.zeros_like(affinity)
    for index, value in reference_affinity(y_audio, y_video, valid, 2.0).items():
        expected[index] = value
    torch.testing.assert_close(affinity, expected)


def test_without_a_mask_every_row_sums_to_one():
    *_, y_audio, y_video = embeddings(4, 2)
    torch.testing.assert_close(cross_affinity(y_audio, y_video).sum((2, 3)), torch.ones(4, 2).double())


def test_weights_use_the_normaliser_of_each_row():
    # one sample, two views: rows (0, .) and (1, .) have different sums, so exp of a difference would be wrong
    audio = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]], dtype=torch.float64)
    video = torch.tensor([[[2.0, 0.0], [0.0, 0.0]]], dtype=torch.float64)
    e = math.exp
    first, second = e(2) / (e(2) + 1), 0.5
    expected = [[1.0, (1 / (e(2) + 1)) / first], [second / first, second / first]]
    torch.testing.assert_close(paired_weights(audio, video)[0], torch.tensor(expected, dtype=torch.float64))


def test_the_recorded_pair_has_weight_one():
    *_, y_audio, y_video = embeddings(6, 2)
    weights = paired_weights(y_audio, y_video, 0.1, clamp=(0.1, 2.0))
    assert torch.equal(weights[:, 0, 0], torch.ones(6).double())


def test_extreme_affinities_keep_finite_gradients():
    y_audio, y_video = (y.float().requires_grad_() for y in embeddings(6, 2)[2:])
    weights = paired_weights(y_audio, y_video, 1e-4, clamp=(0.1, 2.0))
    weights.sum().backward()
    assert weights.min() >= 0.0999
    assert weights.max() <= 2.0001
    assert y_audio.grad.isfinite().all()
    assert y_video.grad.isfinite().all()


@pytest.mark.parametrize("pairs", ["diagonal", "all"])
@pytest.mark.parametrize("valid", MASKS)
@pytest.mark.parametrize("kind", ["identity", "linear", "mlp"])
def test_gradient(pairs, valid, kind):
    loss = build(pairs=pairs, mapping=kind, clamp=(0.6, 1.4))
    parameters = tuple(loss.parameters())
    inputs = tuple(x.requires_grad_() for x in embeddings(4, 2))
    assert torch.autograd.gradcheck(lambda *x: loss(*x[:4], torch.tensor(valid))[0], (*inputs, *parameters))


@pytest.mark.parametrize("kind", ["identity", "mlp"])
def test_detached_weights_spare_the_encoders_and_nothing_else(kind):
    free, detached = build(mapping=kind), build(mapping=kind, detach=True)
    inputs = [x.requires_grad_() for x in embeddings(4, 2)]
    for loss, reaches in ((free, True), (detached, False)):
        grads = torch.autograd.grad(loss(*inputs)[0], [*inputs, *loss.parameters()], allow_unused=True)
        assert all((g is not None and bool(g.any())) is reaches for g in grads[2:4])
        assert all(g is not None and g.any() for g in (*grads[:2], *grads[4:]))
    torch.testing.assert_close(free(*inputs)[0], detached(*inputs)[0])


@pytest.mark.parametrize("pairs", ["diagonal", "all"])
def test_an_invalid_sample_might_as_well_not_be_there(pairs):
    loss = build(pairs=pairs)
    keep = torch.tensor([True, True, False, True, False])
    big = [x.requires_grad_() for x in embeddings(5, 2)]
    small = [x.detach()[keep].requires_grad_() for x in big]
    value, figures = loss(*big, keep)
    expected, expected_figures = loss(*small)
    torch.testing.assert_close((value, figures), (expected, expected_figures))
    value.backward()
    expected.backward()
    for a, b in zip(big, small, strict=True):
        torch.testing.assert_close(a.grad[keep], b.grad)
        assert not a.grad[~keep].any()


@pytest.mark.parametrize("pairs", ["diagonal", "all"])
@pytest.mark.parametrize("valid", [[False] * 3, [False, True, False]])
def test_without_negatives_loss_and_gradient_are_exactly_zero(pairs, valid):
    inputs = [x.float().requires_grad_() for x in embeddings(3, 2)]
    value, figures = build(pairs=pairs).float()(*inputs, torch.tensor(valid))
    value.backward()
    assert value.item() == 0
    assert not any(x.grad.any() for x in inputs)
    assert all(x.isfinite() for x in figures.values())


def test_without_co_augmentation_it_is_infonce():
    z_audio, z_video, y_audio, y_video = embeddings(6, 1)
    torch.testing.assert_close(build()(z_audio, z_video, y_audio, y_video)[0], infonce(z_audio, z_video, ETA))


def test_own_pairs_of_the_full_reading_are_infonce():
    z_audio, z_video, *_ = embeddings(6, 3)
    own = all_pair_losses(z_audio, z_video, ETA)[range(6), :, range(6), :]
    torch.testing.assert_close(own, pair_losses(z_audio, z_video, ETA))


def test_own_weights_are_those_of_the_whole_matrix():
    *_, y_audio, y_video = embeddings(6, 2)
    whole = pair_weights(y_audio, y_video, 0.3, clamp=(0.2, 3.0))[range(6), :, range(6), :]
    torch.testing.assert_close(paired_weights(y_audio, y_video, 0.3, clamp=(0.2, 3.0)), whole)


@pytest.mark.parametrize("pairs", ["diagonal", "all"])
def test_is_computed_in_float32_under_autocast(pairs):
    loss = build(pairs=pairs, mapping="linear").float()
    inputs = [x.bfloat16() for x in embeddings(8, 2)]
    with torch.autocast("cpu", torch.bfloat16):
        value, _ = loss(*inputs)
    expected, _ = loss.double()(*(x.double() for x in inputs))
    torch.testing.assert_close(value, expected.float(), rtol=1e-5, atol=0)
