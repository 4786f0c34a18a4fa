"""The composition law, against plain functions of u, and the maps of speed and reversal, against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coaug.pipelines.curves import COLOURS, RAMPS, Curve, constant, normals, segment
from coaug.pipelines.timeline import Factor, Stage, Timeline, TimeMap, compose, instants

numbers = st.floats(-3, 3).map(lambda x: round(x, 3))


@st.composite
def stages(draw: st.DrawFn, hold: bool = True) -> Stage:
    start = sorted(draw(st.lists(numbers, min_size=1, max_size=4, unique=True)))
    values = st.lists(numbers, min_size=len(start), max_size=len(start))
    return Stage(
        tuple(start),
        tuple(draw(values)),
        tuple(draw(values)),
        draw(st.sampled_from([0.0, 0.0, 0.25, 0.1])) if hold else 0.0,
    )


def literal(stage: Stage, u: float) -> float:
    q = stage.hold * (np.floor(u / stage.hold + 1e-9) + 0.5) if stage.hold else u
    i = max([0, *(i for i, a in enumerate(stage.start) if a <= q and i > 0)])
    return stage.source[i] + stage.slope[i] * (q - stage.start[i])


def near_break(stage: Stage, u: float) -> bool:
    return any(abs(u - a) < 1e-6 for a in stage.start)


@given(stages(), st.lists(st.floats(-2, 3), max_size=8))
def test_a_stage_is_its_pieces(stage: Stage, points: list[float]) -> None:
    np.testing.assert_allclose(stage(points), [literal(stage, u) for u in points])


@given(stages(hold=False), stages(), st.lists(st.floats(-0.5, 1.5), max_size=16))
def test_fused_stages_equal_nested_ones(outer: Stage, inner: Stage, points: list[float]) -> None:
    fused = outer.after(inner)
    for u in points:
        if not near_break(outer, literal(inner, u)) and not near_break(inner, u):
            assert fused(u) == pytest.approx(literal(outer, literal(inner, u)), abs=1e-6)


@given(st.lists(stages(), max_size=4), st.lists(st.floats(0, 1), max_size=8))
def test_maps_with_holds_compose(chain: list[Stage], points: list[float]) -> None:
    composed = TimeMap()
    for stage in chain:
        composed = composed.after(TimeMap((stage,)))
    for u in points:
        value, clear = u, True
        for stage in reversed(chain):
            clear &= not near_break(stage, value) and not (
                stage.hold and abs(value / stage.hold - round(value / stage.hold)) < 1e-6
            )
            value = literal(stage, value)
        if clear:
            assert composed(u) == pytest.approx(value, abs=1e-6)


curves = st.one_of(
    st.builds(constant, numbers),
    st.builds(Curve, st.sampled_from(RAMPS), numbers, st.just(3.5), numbers),
    st.builds(lambda a, b: segment(min(a, b), max(a, b)), numbers, numbers),
)
products = st.lists(st.builds(Factor, curves), max_size=2).map(tuple)
affine = st.builds(TimeMap.affine, numbers, numbers)
timelines = st.builds(Timeline, affine, products, st.lists(products, max_size=2).map(tuple))


@given(timelines, timelines, timelines)
def test_the_law_of_composition(one: Timeline, two: Timeline, three: Timeline) -> None:
    """m = m1(m2), g = g1(m2) g2, f = f1(m2) g2 + f2, and it is associative."""
    u = np.linspace(0, 1, 11)
    both = one.then(two)
    m2 = two.time(u)
    np.testing.assert_allclose(both.time(u), one.time(m2), atol=1e-9)
    np.testing.assert_allclose(both.gains(u), one.gains(m2) * two.gains(u), atol=1e-9)
    np.testing.assert_allclose(both.fills(u), one.fills(m2) * two.gains(u) + two.fills(u), atol=1e-9)
    left, right = one.then(two).then(three), one.then(two.then(three))
    np.testing.assert_allclose(left.fills(u), right.fills(u), atol=1e-9)
    np.testing.assert_allclose(left.time(u), right.time(u), atol=1e-9)


@given(timelines, timelines)
def test_playing_twice_is_playing_the_composition(one: Timeline, two: Timeline) -> None:
    def source(t: np.ndarray) -> np.ndarray:
        return np.sin(3 * t)

    def play(timeline: Timeline, x):  # type: ignore[no-untyped-def]
        return lambda u: timeline.gains(u) * x(timeline.time(u)) + timeline.fills(u)

    u = np.linspace(0, 1, 7)
    np.testing.assert_allclose(play(two, play(one, source))(u), play(one.then(two), source)(u), atol=1e-8)


@given(st.floats(0.25, 8), st.integers(1, 40))
def test_speed_and_reversal_are_closed_forms(factor: float, count: int) -> None:
    u = instants(count)
    fast, back = (Timeline(TimeMap.affine(*pair)) for pair in ((0.0, factor), (1.0, -1.0)))
    np.testing.assert_allclose(compose([fast, back]).time(u), (factor * u)[::-1], atol=1e-12)
    np.testing.assert_allclose(compose([back, back]).time(u), u, atol=1e-12)
    assert len(compose([fast, back, fast]).time.stages) == 1
    assert compose([fast, back, fast]).time.steepest == pytest.approx(factor**2)


def test_a_hold_shows_the_middle_of_its_period() -> None:
    """Down from 8 frames to 4 and up again: 0.5 is the middle of frames 0 and 1, 2.5 that of 2 and 3."""
    held = TimeMap((Stage(hold=1 / 4),))
    np.testing.assert_allclose(held(instants(8)) * 8, [1, 1, 3, 3, 5, 5, 7, 7])
    np.testing.assert_allclose(held(instants(3)), [0.125, 0.625, 0.875])  # 1/2 is the beginning of a period


def test_splices_are_left_out_of_what_gains_see() -> None:
    spliced = TimeMap((Stage((0.0, 0.5), (0.1, 0.4), (2.0, 2.0), overlap=0.1),))
    fade = Timeline(gain=(Factor(Curve(RAMPS[0], 0.0, 1.0)),))
    u = instants(10)
    np.testing.assert_allclose(fade.then(Timeline(spliced)).gains(u), u)
    assert len(spliced.after(TimeMap.affine(0.0, 2.0)).stages) == 2  # a splice is not fused
    assert spliced.unspliced() == TimeMap()


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="ascending"):
        Stage((0.0, 0.0), (0.0, 1.0), (1.0, 1.0))


@given(st.integers(0, 2**53), st.integers(1, 300), st.data())
def test_a_part_of_a_noise_is_that_of_the_whole(key: int, count: int, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, count))
    last = data.draw(st.integers(first, count))
    for colour in COLOURS:
        whole = normals(key, count, colour, 0, count)
        np.testing.assert_array_equal(normals(key, count, colour, first, last), whole[first:last])
