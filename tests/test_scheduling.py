"""No encoder makes a real-time process of ours."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from media import write_clip

from coaug.doctor.media import encode
from coaug.pipelines.scheduling import ordinary_scheduling

pytestmark = pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="about a call of Linux")


def policies() -> set[int]:
    return {os.sched_getscheduler(int(thread)) for thread in os.listdir("/proc/self/task")}


def test_an_av1_encoder_leaves_all_threads_as_they_were(tmp_path: Path) -> None:
    before = policies()
    write_clip(tmp_path / "clip.mkv", codec="libsvtav1", frames=8)
    assert policies() <= before
    encode("av1")
    assert policies() <= before


def test_threads_changed_or_begun_inside_are_changed_back_and_others_are_left() -> None:
    """SCHED_BATCH stands in for the real-time policies, which only root may choose."""
    mine = os.sched_getscheduler(0)
    ready, done = threading.Event(), threading.Event()

    def chooses() -> None:
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        ready.set()
        done.wait()

    def begin() -> threading.Thread:
        ready.clear()
        thread = threading.Thread(target=chooses)
        thread.start()
        ready.wait()
        return thread

    early = begin()
    with ordinary_scheduling():
        late = begin()
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    found = [os.sched_getscheduler(thread.native_id or 0) for thread in (early, late)]
    done.set()
    assert (os.sched_getscheduler(0), found) == (mine, [os.SCHED_BATCH, mine])


def test_a_policy_that_children_do_not_inherit_is_restored() -> None:
    before = os.sched_getscheduler(0)
    try:
        os.sched_setscheduler(0, before | os.SCHED_RESET_ON_FORK, os.sched_param(0))
        with ordinary_scheduling():
            os.sched_setscheduler(0, os.SCHED_BATCH | os.SCHED_RESET_ON_FORK, os.sched_param(0))
        assert os.sched_getscheduler(0) == before | os.SCHED_RESET_ON_FORK
    finally:
        with suppress(PermissionError):  # only root may take it back
            os.sched_setscheduler(0, before, os.sched_param(0))
