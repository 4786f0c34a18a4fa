"""The tiled operators against the plain formulation in float64, whatever the shapes, masks, tiles and shares."""

from __future__ import annotations

import copy
import itertools

import contrastive_reference as reference
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import normalize
from torch.utils._python_dispatch import TorchDispatchMode

from coaug.kernels import contrastive_cpu, soft_infonce_cpu
from coaug.kernels import contrastive_ops as ops
from coaug.kernels.cross_affinity import paired_weights
from coaug.kernels.soft_infonce import infonce, soft_infonce
from coaug.losses.soft_infonce import SoftInfoNCE

PAIRS = ["diagonal", "all"]


def embeddings(n: int, v: int, kind: str = "unit", seed: int = 0, dtype=torch.float64) -> list[Tensor]:
    """z_audio, z_video (width 6), y_audio, y_video (width 4); `kind` makes them awkward."""
    draw = torch.Generator().manual_seed(seed)
    found = [torch.randn(n, v, d, dtype=dtype, generator=draw) for d in (6, 6, 4, 4)]
    if kind != "long":
        found = [normalize(x, dim=-1) for x in found]
    for x in found:
        if kind == "zero":
            x[torch.rand(n, v, generator=draw) < 0.4] = 0
        if kind == "equal":
            x[1:] = x[:1]
        if kind == "long":
            x *= 8
    return found


def mask(n: int, seed: int) -> Tensor:
    return torch.rand(n, generator=torch.Generator().manual_seed(seed)) < 0.7


def gradients(loss: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    found = torch.autograd.grad(loss, inputs, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(inputs, found, strict=True)]


def assert_near(found: list[Tensor], expected: list[Tensor], tolerance: float, terms: float = 1e-8) -> None:
    """Within `tolerance` of the largest gradient, or of `terms` that may have cancelled in it."""
    largest = max(g.abs().max().item() for g in expected)
    for a, b in zip(found, expected, strict=True):
        assert (a.double() - b).abs().max().item() <= tolerance * max(largest, terms)


@settings(max_examples=600, deadline=None, derandomize=True)
@given(
    n=st.integers(1, 9),
    v=st.integers(1, 3),
    temperature=st.sampled_from([0.01, 0.03, 0.07, 0.3, 1.0]),
    affinity=st.sampled_from([0.05, 0.3, 1.0]),
    clamp=st.sampled_from([None, (0.1, 2.0), (0.83, 1.21)]),
    pairs=st.sampled_from(PAIRS),
    kind=st.sampled_from(["unit", "unit", "zero", "equal", "long"]),
    masked=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_equals_the_plain_formulation(n, v, temperature, affinity, clamp, pairs, kind, masked, seed):
    if kind == "long":  # weights without bounds would overflow there, and mean nothing
        affinity, clamp = 1.0, clamp or (0.1, 2.0)
    inputs = [x.requires_grad_() for x in embeddings(n, v, kind, seed, torch.float32)]
    exact = [x.detach().double().requires_grad_() for x in inputs]
    options = {"temperature": temperature, "affinity_temperature": affinity, "clamp": clamp, "pairs": pairs}
    options["valid"] = mask(n, seed) if masked else None
    found, expected = soft_infonce(*inputs, **options), reference.soft_infonce(*exact, **options)
    audio, video, y_audio, y_video = (x.detach().flatten(0, 1) for x in exact)
    reach = max(
        (audio @ video.T / temperature).abs().max().item(),
        (y_audio @ y_video.T / affinity).abs().max().item(),
    )
    rounding = 1e-6 * reach  # what float32 makes of a logit, and with it of its exponential
    weight = expected[1].item() + expected[2].item()
    for a, b in zip(found, expected, strict=True):
        assert a.item() == pytest.approx(b.item(), rel=max(1e-5, rounding), abs=1e-7 + rounding * weight)
    cancels = kind in ("equal", "zero") or (
        clamp is None and pairs == "all"
    )  # large weights times small losses
    terms = 0.01 * max(weight, 1) * (1 / temperature + 1 / affinity) if cancels else 1e-8
    assert_near(gradients(found[0], inputs), gradients(expected[0], exact), max(1e-4, 4 * rounding), terms)
    plain = infonce(*inputs[:2], temperature, options["valid"])
    exactly = reference.infonce(*exact[:2], temperature, options["valid"])
    assert plain.item() == pytest.approx(exactly.item(), rel=1e-5, abs=rounding)
    assert_near(gradients(plain, inputs), gradients(exactly, exact), max(1e-4, 4 * rounding), terms)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("pairs", PAIRS)
def test_half_precision_is_accumulated_in_float32(dtype, pairs):
    inputs = [x.to(dtype).requires_grad_() for x in embeddings(9, 2)]
    exact = [x.detach().double().requires_grad_() for x in inputs]
    with torch.autocast("cpu", torch.bfloat16):
        loss, *_ = soft_infonce(*inputs, temperature=0.07, pairs=pairs)
    expected, *_ = reference.soft_infonce(*exact, temperature=0.07, pairs=pairs)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    found = gradients(loss, inputs)
    assert {g.dtype for g in found} == {dtype}
    assert_near(found, gradients(expected, exact), 2 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("temperature", [0.5, 0.02])  # with and without a shift before exp
@pytest.mark.parametrize("clamp", [None, (0.8, 1.3)])
@pytest.mark.parametrize("anchors", [None, (1, 2)])
@pytest.mark.parametrize("pairs", PAIRS)
def test_gradcheck(temperature, clamp, anchors, pairs):
    inputs = tuple(x.requires_grad_() for x in embeddings(4, 2, seed=3))
    valid = torch.tensor([True, False, True, True])
    options = {"temperature": temperature, "affinity_temperature": 0.4, "clamp": clamp, "pairs": pairs}
    torch.autograd.gradcheck(
        lambda *x: soft_infonce(*x, **options, valid=valid, anchors=anchors)[0], inputs, fast_mode=True
    )


@pytest.mark.parametrize("anchors", [None, (2, 3)])
def test_given_weights_multiply_own_pairs(anchors):
    z_audio, z_video, y_audio, y_video = (x.requires_grad_() for x in embeddings(6, 2))
    weights = paired_weights(y_audio, y_video, 0.5, clamp=(0.5, 1.5))
    mine = weights if anchors is None else weights[2:5]
    found = infonce(z_audio, z_video, 0.1, weights=mine, anchors=anchors)
    options = {"temperature": 0.1, "affinity_temperature": 0.5, "clamp": (0.5, 1.5), "anchors": anchors}
    expected, *_ = soft_infonce(z_audio, z_video, y_audio, y_video, **options)
    inputs = [z_audio, z_video, y_audio, y_video]
    torch.testing.assert_close(found, expected)
    assert_near(gradients(found, inputs), gradients(expected, inputs), 1e-10)


@pytest.mark.parametrize("pairs", PAIRS)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("cuts", [[0, 3, 6, 9], [0, 1, 9]])
def test_shares_sum_to_the_whole(pairs, masked, cuts):
    inputs = [x.requires_grad_() for x in embeddings(9, 2)]
    valid = torch.tensor([False] * 2 + [True] * 4 + [False, True, True]) if masked else None
    options = {"temperature": 0.07, "affinity_temperature": 0.3, "pairs": pairs, "valid": valid}
    whole = reference.soft_infonce(*inputs, **options)
    shares = [soft_infonce(*inputs, **options, anchors=(a, b - a)) for a, b in itertools.pairwise(cuts)]
    for one, parts in zip(whole, zip(*shares, strict=True), strict=True):
        torch.testing.assert_close(sum(parts), one)
    parts = [gradients(share[0], inputs) for share in shares]  # what a summing all-gather hands back
    summed = [sum(p) for p in zip(*parts, strict=True)]
    assert_near(summed, gradients(whole[0], inputs), 1e-10)
    plain = sum(infonce(*inputs[:2], 0.07, valid, anchors=(a, b - a)) for a, b in itertools.pairwise(cuts))
    torch.testing.assert_close(plain, reference.infonce(*inputs[:2], 0.07, valid))


@pytest.mark.parametrize("pairs", PAIRS)
@pytest.mark.parametrize("temperature", [0.07, 0.02])
def test_panels_and_threads_do_not_matter(pairs, temperature, monkeypatch):
    inputs = [x.requires_grad_() for x in embeddings(60, 2, dtype=torch.float32)]
    results, threads = [], torch.get_num_threads()
    for panel, rows, count in ((1 << 20, 128, 1), (1 << 20, 128, 2), (1, 1, 1), (1, 7, 2), (120 * 32, 1, 1)):
        monkeypatch.setattr(soft_infonce_cpu, "PANEL", panel)
        monkeypatch.setattr(soft_infonce_cpu, "ROWS", rows)
        torch.set_num_threads(count)
        loss, *_ = soft_infonce(*inputs, temperature=temperature, affinity_temperature=0.3, pairs=pairs)
        results.append((loss.item(), gradients(loss, inputs)))
    torch.set_num_threads(threads)
    for loss, grads in results[1:]:
        assert loss == pytest.approx(results[0][0], rel=1e-6)
        assert_near(grads, [g.double() for g in results[0][1]], 1e-5)


class Largest(TorchDispatchMode):
    """Sees the number of elements of every tensor that is made."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for x in out if isinstance(out, tuple | list) else (out,):
            if isinstance(x, Tensor):
                self.elements = max(self.elements, x.untyped_storage().nbytes() // x.element_size())
        return out


@pytest.mark.parametrize("temperature", [0.07, 0.02])
def test_no_matrix_of_all_pairs_is_ever_made(temperature, monkeypatch):
    monkeypatch.setattr(soft_infonce_cpu, "PANEL", 1 << 12)
    monkeypatch.setattr(soft_infonce_cpu, "ROWS", 8)
    n, v = 256, 2
    z_audio, z_video, y_audio, y_video = embeddings(n, v, dtype=torch.float32)
    with Largest() as seen:
        own, *totals, room = contrastive_cpu.negatives(z_audio, z_video, None, temperature, 0, n)
        contrastive_cpu.negatives_backward(
            z_audio, z_video, None, tuple(totals), room, (own, *totals), temperature, 0, n
        )
        both, bounds = (temperature, temperature), (0.1, 2.0)
        *sums, s, mixed, room = contrastive_cpu.soft_pairs(
            z_audio, z_video, y_audio, y_video, None, both, bounds, 0, n
        )
        contrastive_cpu.soft_pairs_backward(
            z_audio, z_video, y_audio, y_video, None, s, mixed, room, (*sums, s), both, bounds, 0, n
        )
    assert seen.elements <= max(8 * n * v, n * v * 16)  # a panel of 8 rows, or a few numbers a row


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("count", [5, 2])
def test_operators_keep_torchs_rules(masked, count):
    z_audio, z_video, y_audio, y_video = (x.requires_grad_() for x in embeddings(5, 2))
    valid = mask(5, 1) if masked else None
    torch.library.opcheck(ops.negatives, (z_audio, z_video, valid, 0.1, 1 * (count < 5), count))
    torch.library.opcheck(ops.affinity, (y_audio, y_video, valid, 0.3, [0.5, 1.5], 1 * (count < 5), count))
    arguments = (z_audio, z_video, y_audio, y_video, valid, 0.1, 0.3, None, 1 * (count < 5), count)
    torch.library.opcheck(ops.soft_pairs, arguments)


@pytest.mark.parametrize("pairs", PAIRS)
def test_compiles_as_one_graph(pairs):
    inputs = [x.requires_grad_() for x in embeddings(5, 2)]
    valid = mask(5, 1)

    def loss(*x: Tensor) -> Tensor:
        return soft_infonce(*x, temperature=0.1, pairs=pairs, valid=valid, check_finite=False)[0]

    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)(*inputs)
    torch.testing.assert_close(compiled, loss(*inputs))
    assert_near(gradients(compiled, inputs), gradients(loss(*inputs), inputs), 1e-12)


@pytest.mark.parametrize("position", range(4))
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_a_number_is_refused(position, value):
    inputs = embeddings(4, 2)
    inputs[position][1, 0, 2] = value
    name = ("z_audio", "z_video", "y_audio", "y_video")[position]
    with pytest.raises(ValueError, match=f"{name} holds"):
        soft_infonce(*inputs, temperature=0.1)
    if value != value:
        assert soft_infonce(*inputs, temperature=0.1, check_finite=False)[0].isnan()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"z_audio": torch.zeros(4, 12)}, ValueError, r"z_audio must be \(N, V, d\).*\(4, 12\)"),
        ({"z_audio": torch.zeros(4, 2, 5)}, ValueError, "z_audio and z_video must be alike"),
        ({"z_audio": torch.zeros(4, 2, 6, dtype=torch.int64)}, TypeError, "z_audio.*floating.*int64"),
        ({"y_audio": torch.zeros(3, 2, 4), "y_video": torch.zeros(3, 2, 4)}, ValueError, "same samples"),
        ({"valid": torch.ones(4)}, ValueError, r"valid must be bool of shape \(4,\).*float32"),
        ({"temperature": 0.0}, ValueError, "temperatures must be greater than 0, got 0"),
        ({"anchors": (3, 2)}, ValueError, r"anchors.*4 samples.*\(3, 2\)"),
        ({"pairs": "some"}, ValueError, "pairs must be 'diagonal' or 'all', got 'some'"),
        ({"clamp": (2.0, 0.1)}, ValueError, "clamp must be"),
    ],
)
def test_errors_name_the_argument(change, error, message):
    names = ("z_audio", "z_video", "y_audio", "y_video")
    arguments = dict(zip(names, embeddings(4, 2, dtype=torch.float32), strict=True), temperature=0.1)
    with pytest.raises(error, match=message):
        soft_infonce(**(arguments | change))


def test_weights_of_another_shape_are_refused():
    z_audio, z_video, *_ = embeddings(4, 2)
    with pytest.raises(ValueError, match=r"weights must be \(4, 2, 2\).*\(4, 2\)"):
        infonce(z_audio, z_video, 0.1, weights=torch.ones(4, 2))


@pytest.mark.parametrize("pairs", PAIRS)
def test_training_follows_the_same_curve(pairs):
    torch.manual_seed(0)
    audio, video = torch.randn(2, 8, 16, 2, 10)  # steps, samples, views, width
    encoders = torch.nn.ModuleList([torch.nn.Linear(10, 12), torch.nn.Linear(10, 12)])
    objective = SoftInfoNCE(12, temperature=0.1, pairs=pairs, mapping="linear")

    def plain(z_audio: Tensor, z_video: Tensor, y_audio: Tensor, y_video: Tensor) -> Tensor:
        mapped = [parts[1].mapping(normalize(y, dim=-1)) for y in (y_audio, y_video)]
        return reference.soft_infonce(z_audio, z_video, *mapped, temperature=0.1, pairs=pairs)[0]

    curves = []
    for ours in (True, False):
        parts = copy.deepcopy(torch.nn.ModuleList([encoders, objective]))
        optimizer, curve = torch.optim.SGD(parts.parameters(), lr=0.1, momentum=0.5), []
        for step in range(40):
            y = [encode(x[step % 8]) for encode, x in zip(parts[0], (audio, video), strict=True)]
            z = [normalize(x, dim=-1) for x in y]
            loss = parts[1](*z, *y)[0] if ours else plain(*z, *y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            curve.append(loss.item())
        curves.append(curve)
    assert curves[0] == pytest.approx(curves[1], rel=1e-4)
    assert curves[0][-1] < curves[0][0] - 0.5
