"""The keyed permutation and the keyed uniforms, against what those words mean."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from coaug.pipelines.rng import Permutation, uniforms

seeds = st.integers(-(2**63), 2**63 - 1)
NEAR_POWERS = sorted({max(1, 2**k + d) for k in range(13) for d in (-1, 0, 1)})


@given(st.integers(1, 3000), seeds, st.integers(0, 1000))
def test_every_index_is_reached_once(n: int, seed: int, epoch: int) -> None:
    assert np.array_equal(np.sort(Permutation(n, seed, epoch)(np.arange(n))), np.arange(n))


@pytest.mark.parametrize("n", NEAR_POWERS)
def test_bijection_next_to_powers_of_two(n: int) -> None:
    assert np.array_equal(np.sort(Permutation(n, 1, 2)(np.arange(n))), np.arange(n))


def test_bijection_of_a_large_catalog() -> None:
    n = 1_800_000
    place = Permutation(n, 3, 4)
    sampled = np.random.default_rng(0).choice(n, 200_000, replace=False)
    values = place(sampled)
    assert values.min() >= 0
    assert values.max() < n
    assert len(np.unique(values)) == len(sampled)


@given(st.integers(1, 500), seeds, st.data())
def test_one_element_needs_no_other(n: int, seed: int, data: st.DataObject) -> None:
    place, index = Permutation(n, seed, 0), data.draw(st.integers(0, n - 1))
    assert place(np.array([index]))[0] == place(np.arange(n))[index]
    assert place(np.array([[index]])).shape == (1, 1)


@given(st.integers(1, 500), seeds, st.data())
def test_one_place_is_that_of_the_array(n: int, seed: int, data: st.DataObject) -> None:
    order, index = Permutation(n, seed, 3), data.draw(st.integers(0, n - 1))
    assert order.place(index) == order(np.array([index]))[0]
    for outside in (-1, n):
        with pytest.raises(IndexError, match=str(n)):
            order.place(outside)


@given(seeds, st.integers(0, 10**6), seeds, st.integers(0, 9), st.integers(1, 40), st.integers(0, 3))
def test_uniforms_are_philox_s(
    seed: int, epoch: int, sample: int, view: int, count: int, purpose: int
) -> None:
    """Whatever was drawn before: NumPy's own generator, made anew for the key."""
    key, counter = (
        np.array([seed % 2**64, sample % 2**64], np.uint64),
        np.array([0, view, epoch, purpose], np.uint64),
    )
    expected = np.random.Generator(np.random.Philox(key=key, counter=counter)).random(count)
    uniforms(1, 2, 3, 4, 5)
    np.testing.assert_array_equal(uniforms(seed, epoch, sample, view, count, purpose=purpose), expected)


@pytest.mark.filterwarnings("error")
def test_a_single_number_is_a_shape_too() -> None:
    assert int(Permutation(50, 1, 2)(np.int64(7))) == Permutation(50, 1, 2)(np.arange(50))[7]


def test_an_index_outside_is_refused() -> None:
    for index in (-1, 10):
        with pytest.raises(IndexError, match="10"):
            Permutation(10, 0, 0)(np.array([index]))
    with pytest.raises(ValueError, match="n = 0"):
        Permutation(0, 0, 0)


@pytest.mark.parametrize("n", [2, 3, 5, 17, 40])
@pytest.mark.parametrize("what", ["seed", "epoch"])
def test_first_elements_are_uniform_over_keys(n: int, what: str) -> None:
    draws = 30 * n
    keys = ((k, 0) if what == "seed" else (0, k) for k in range(draws))
    first = np.array([Permutation(n, *key)(np.array([0, n - 1])) for key in keys])
    for column in first.T:
        assert stats.chisquare(np.bincount(column, minlength=n)).pvalue > 1e-4


def test_neighbours_do_not_stay_neighbours() -> None:
    """Distances of consecutive elements are spread as in a random order (mean n/3)."""
    n = 10_000
    order = Permutation(n, 0, 0)(np.arange(n))
    assert np.abs(np.diff(order)).mean() == pytest.approx(n / 3, rel=0.03)
    assert abs(stats.spearmanr(order, np.arange(n)).statistic) < 0.04


keys = st.tuples(seeds, st.integers(0, 10**6), st.integers(0, 2**63 - 1), st.integers(0, 63))


@given(keys, keys)
def test_keys_decide_the_stream(one: tuple[int, ...], two: tuple[int, ...]) -> None:
    a, b = uniforms(*one, 8), uniforms(*two, 8)
    assert np.array_equal(a, b) == (one == two)
    assert np.array_equal(a, uniforms(*one, 8))
    assert ((a >= 0) & (a < 1)).all()


@given(keys, st.integers(1, 40), st.integers(1, 40))
def test_a_longer_draw_begins_with_the_shorter(key: tuple[int, ...], a: int, b: int) -> None:
    assert np.array_equal(uniforms(*key, a)[: min(a, b)], uniforms(*key, b)[: min(a, b)])


def test_purpose_is_part_of_the_key() -> None:
    assert not np.array_equal(uniforms(0, 0, 0, 0, 4), uniforms(0, 0, 0, 0, 4, purpose=1))


def test_neighbouring_keys_do_not_overlap() -> None:
    """No draw of one key turns up in the stream of the next one along any axis of the key."""
    base = (5, 5, 5, 5)
    stream = uniforms(*base, 200)
    for axis in range(4):
        other = uniforms(*(k + (i == axis) for i, k in enumerate(base)), 200)
        assert not np.intersect1d(stream, other).size


def test_draws_are_uniform_and_independent_across_samples() -> None:
    draws = np.array([uniforms(0, 0, sample, 0, 4) for sample in range(4000)])
    for column in draws.T:
        assert stats.kstest(column, "uniform").pvalue > 1e-4
    assert np.abs(np.corrcoef(draws.T) - np.eye(4)).max() < 0.07
    assert abs(np.corrcoef(draws[:-1, 0], draws[1:, 0])[0, 1]) < 0.07
