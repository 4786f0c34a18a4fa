"""Recall and chance against loops over explicit rankings, all orders of ties, and closed forms."""

from __future__ import annotations

from itertools import pairwise, permutations
from math import comb

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from coaug.eval.metrics import chance, miss_probability, recall, share_found

KS = (1, 2, 3, 5, 20)


def scores_as_features(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Unit features whose cosines are `scores` (in 0..0.5): gallery entry j is axis j, the rest is padding."""
    q, g = scores.shape
    gallery = torch.eye(g, g + q)
    rest = torch.diag((1 - scores.double().square().sum(1)).sqrt())
    return torch.cat([scores.double(), rest], 1).float(), gallery


def brute(scores: Tensor, qk: list[int], gk: list[int], k: int, share: bool) -> float:
    """Mean over every order of the gallery that ties allow."""
    total = 0.0
    for row, key in zip(scores.tolist(), qk, strict=True):
        orders = [o for o in permutations(range(len(gk))) if all(row[a] >= row[b] for a, b in pairwise(o))]
        found = [sum(gk[j] == key for j in order[:k]) for order in orders]
        size = max(gk.count(key), 1)
        total += sum(n / size if share else n > 0 for n in found) / len(orders)
    return total / len(qk)


@st.composite
def rankings(draw: st.DrawFn) -> tuple[Tensor, list[int], list[int]]:
    q, g = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    levels = st.sampled_from([0.0, 0.1, 0.2, 0.4])  # few levels: many ties
    scores = draw(st.lists(st.lists(levels, min_size=g, max_size=g), min_size=q, max_size=q))
    keys = st.integers(0, 2)
    return (
        torch.tensor(scores),
        draw(st.lists(keys, min_size=q, max_size=q)),
        draw(st.lists(keys, min_size=g, max_size=g)),
    )


@given(rankings(), st.integers(1, 12))
def test_recall_is_the_mean_over_all_orders_of_ties(
    case: tuple[Tensor, list[int], list[int]], block: int
) -> None:
    scores, qk, gk = case
    queries, gallery = scores_as_features(scores)
    got = recall(queries, gallery, torch.tensor(qk), torch.tensor(gk), KS, block=block)
    found = share_found(queries, gallery, torch.tensor(qk), torch.tensor(gk), KS, block=block)
    for k in KS:
        assert got[k] == pytest.approx(brute(scores, qk, gk, k, share=False), abs=1e-9)
        assert found[k] == pytest.approx(brute(scores, qk, gk, k, share=True), abs=1e-9)


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=5), st.lists(st.integers(0, 3), min_size=1, max_size=6)
)
def test_chance_is_the_mean_over_all_rankings(qk: list[int], gk: list[int]) -> None:
    got = chance(torch.tensor(qk), torch.tensor(gk), KS)
    for k in KS:
        assert got[k] == pytest.approx(
            brute(torch.zeros(len(qk), len(gk)), qk, gk, k, share=False), abs=1e-12
        )


@given(st.lists(st.integers(0, 6), min_size=1, max_size=40), st.booleans())
def test_constant_features_score_at_chance(keys: list[int], zero: bool) -> None:
    labels = torch.tensor(keys)
    same = torch.zeros(len(keys), 4) if zero else torch.tensor([[0.3, -1.1, 0.7, 0.2]]).repeat(len(keys), 1)
    assert recall(same, same, labels, labels) == pytest.approx(chance(labels, labels), abs=1e-12)


def test_noise_of_rounding_is_a_tie() -> None:
    labels = torch.arange(64)
    noise = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    almost = torch.ones(64, 8) + 1e-4 * noise  # cosines differ by 1e-8
    assert recall(almost, almost, labels, labels)[1] == pytest.approx(1 / 64)


@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 200))
def test_blocks_equal_the_full_matrix(q: int, g: int, block: int) -> None:
    draw = torch.Generator().manual_seed(100 * q + g)
    queries, gallery = torch.randn(q, 3, generator=draw), torch.randn(g, 3, generator=draw)
    qk, gk = torch.randint(5, (q,), generator=draw), torch.randint(5, (g,), generator=draw)
    full = torch.nn.functional.normalize(queries) @ torch.nn.functional.normalize(gallery).T
    order = full.argsort(1, descending=True)
    literal = {k: (gk[order[:, :k]] == qk[:, None]).any(1).double().mean().item() for k in KS}
    assert recall(queries, gallery, qk, gk, KS, block=block) == pytest.approx(literal)


def test_chance_of_an_instance_is_k_of_g() -> None:
    ids = torch.randperm(50) * 7919
    assert chance(ids, ids, (1, 5, 10, 20, 80)) == pytest.approx({1: 0.02, 5: 0.1, 10: 0.2, 20: 0.4, 80: 1.0})


def test_chance_of_a_class_in_closed_form() -> None:
    labels = torch.tensor([0] * 10 + [1] * 30)
    for k, value in chance(labels, labels, (1, 5, 10)).items():
        rare, common = (1 - comb(40 - n, k) / comb(40, k) for n in (10, 30))
        assert value == pytest.approx((10 * rare + 30 * common) / 40)


def test_chance_agrees_with_random_rankings() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 9, 60)
    trials = [(labels[rng.permuted(np.tile(np.arange(60), (60, 1)), axis=1)[:, :5]] == labels[:, None]).any(1).mean()
              for _ in range(400)]  # fmt: skip
    error = np.std(trials) / np.sqrt(len(trials))
    keys = torch.from_numpy(labels)
    assert chance(keys, keys, (5,))[5] == pytest.approx(np.mean(trials), abs=5 * error)


def test_published_chance_of_30_classes() -> None:
    """The figures of the spec for K-Sounds' 30 equal classes, in the limit of a large gallery."""
    labels = torch.arange(30).repeat_interleave(1000)
    got = chance(labels, labels)
    assert [round(100 * v, 1) for v in got.values()] == pytest.approx([3.3, 15.6, 28.8, 49.2], abs=0.06)


def test_a_key_that_the_gallery_lacks_is_a_miss() -> None:
    features = torch.eye(3)
    assert recall(features, features, torch.tensor([7, 8, 9]), torch.arange(3), (1, 5)) == {1: 0.0, 5: 0.0}
    assert chance(torch.tensor([7, 8, 9]), torch.arange(3), (1, 5)) == {1: 0.0, 5: 0.0}


def test_nothing_to_rank() -> None:
    none, keys = torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64)
    assert recall(none, none, keys, keys, (1,)) == {1: 0.0}
    assert chance(keys, keys, (1,)) == {1: 0.0}
    assert share_found(torch.eye(3), none, torch.arange(3), keys, (1,)) == {1: 0.0}


@given(st.integers(0, 12), st.integers(0, 12), st.integers(-2, 14))
def test_miss_probability_is_hypergeometric(total: int, relevant: int, draws: int) -> None:
    relevant = min(relevant, total)
    taken = min(max(draws, 0), total)
    want = comb(total - relevant, taken) / comb(total, taken)
    got = miss_probability(torch.tensor([total]), torch.tensor([relevant]), torch.tensor([draws]))
    assert got.item() == pytest.approx(want)
