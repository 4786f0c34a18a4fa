"""Decoders are lent again when they worked, and only then."""

from __future__ import annotations

from unittest.mock import Mock

import pytest

from coaug.pipelines.packed.decoders import IDLE, Decoders


def test_one_comes_back_flushed_to_who_asks_for_the_same() -> None:
    decoders, made = Decoders(), [Mock(), Mock()]
    making = iter(made)
    for _ in range(3):
        with decoders.borrow("a", lambda: next(making)) as codec:
            assert codec is made[0]
    assert made[0].flush_buffers.call_count == 3
    with decoders.borrow("a", Mock) as one, decoders.borrow("a", lambda: next(making)) as other:
        assert (one, other) == (made[0], made[1])


def test_one_that_failed_is_not_lent_again() -> None:
    decoders = Decoders()
    with pytest.raises(ValueError, match="damaged"), decoders.borrow("a", Mock) as first:
        raise ValueError("damaged")
    with decoders.borrow("a", Mock) as second:
        assert second is not first


def test_those_that_were_used_last_are_kept() -> None:
    decoders, first = Decoders(), {}
    for key in range(IDLE + 1):
        with decoders.borrow(key, Mock) as first[key]:
            pass
    with decoders.borrow(IDLE, Mock) as kept, decoders.borrow(0, Mock) as anew:
        assert kept is first[IDLE]
        assert anew is not first[0]
