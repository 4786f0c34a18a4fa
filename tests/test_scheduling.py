"""No encoder makes a real-time process of ours, and loaders step back for training."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from catalogs import repeated, write
from media import Clip, write_clip

from coaug.doctor.media import encode
from coaug.pipelines.config import AudioConfig, DataConfig, VideoConfig
from coaug.pipelines.loader import AVLoader
from coaug.pipelines.scheduling import BEHIND, behind, ordinary_scheduling

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


def niceness(threads: set[str]) -> set[int]:
    return {os.getpriority(os.PRIO_PROCESS, int(thread)) for thread in threads}


def test_threads_that_start_inside_step_back() -> None:
    done = threading.Event()
    mine, before = os.getpriority(os.PRIO_PROCESS, 0), set(os.listdir("/proc/self/task"))
    with behind():
        thread = threading.Thread(target=done.wait)
        thread.start()
    assert niceness(set(os.listdir("/proc/self/task")) - before) == {mine + BEHIND}
    assert niceness(before) == {mine}
    done.set()
    thread.join()


def test_a_loader_steps_back_and_its_caller_does_not(tmp_path: Path, mp4: Clip) -> None:
    config = DataConfig(
        video=VideoConfig(frames=2, fps=4.0, size=16), audio=AudioConfig(rate=8000, seconds=0.5)
    )
    mine, before = os.getpriority(os.PRIO_PROCESS, 0), set(os.listdir("/proc/self/task"))
    with AVLoader(
        write(tmp_path / "c.parquet", repeated([mp4.path], 2)), config, batch_size=2, workers=1
    ) as loader:
        next(iter(loader))
        (worker,) = loader._running.processes
        assert os.getpriority(os.PRIO_PROCESS, worker.pid or 0) == mine + BEHIND
        assert mine + BEHIND in niceness(set(os.listdir("/proc/self/task")) - before)
    assert os.getpriority(os.PRIO_PROCESS, 0) == mine
