"""Time goes to one stage at a time, and no more of it than there is."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coaug.pipelines import deadline
from coaug.pipelines.deadline import STAGES, Deadline, MediaError


@given(st.lists(st.tuples(st.sampled_from(STAGES), st.floats(0, 10)), max_size=20))
def test_every_second_is_spent_in_the_stage_that_was_entered(steps: Sequence[tuple[str, float]]) -> None:
    now, expected = 100.0, dict.fromkeys(STAGES, 0.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deadline, "clock", lambda: now)
        watched, current = Deadline(1000.0), STAGES[0]
        for stage, seconds in steps:
            now += seconds
            expected[current] += seconds
            watched.at(stage)
            current = stage
    assert watched.spent == pytest.approx(expected)


def test_beyond_the_deadline_everything_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(deadline, "clock", lambda: now)
    watched = Deadline(2.0)
    now = 2.0
    watched.check()
    now = 2.001
    for refused in (watched.check, lambda: watched.at("video")):
        with pytest.raises(MediaError, match="longer than the deadline of 2 s"):
            refused()
