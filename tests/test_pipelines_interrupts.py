"""A Ctrl-C is neither lost in a collection nor acted upon in the middle of one."""

from __future__ import annotations

import gc
import signal
import threading
import weakref
from collections.abc import Iterator

import pytest

from coaug.pipelines.interrupts import interrupts_held, sweep


class Node:
    """Garbage that only a collection frees, whose end interrupts."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def _default() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupting() -> list[weakref.ref[Node]]:
    gc.collect()
    return [weakref.ref(Node(), lambda _: signal.raise_signal(signal.SIGINT))]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_python_loses_an_interrupt_in_a_callback_and_a_sweep_does_not() -> None:
    kept = interrupting()
    gc.collect()  # nothing is raised: what the module is there for
    assert kept[0]() is None
    kept = interrupting()
    with pytest.raises(KeyboardInterrupt):
        sweep()
    assert kept[0]() is None


def test_an_interrupt_waits_for_the_end_and_the_handler_comes_back() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), interrupts_held():
        done += [signal.raise_signal(signal.SIGINT), "after"]
    assert done[1:] == ["after"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_other_threads_have_no_interrupts_to_hold() -> None:
    failed: list[BaseException] = []

    def work() -> None:
        try:
            sweep()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not failed
