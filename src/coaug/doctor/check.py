"""One check, tried in a process of its own: whatever crashes or hangs there is a line of the answer."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass

SECONDS = 120
_CHILD = "import json, sys; from coaug.doctor.check import child; child(*json.loads(sys.argv[1]))"


@dataclass(frozen=True)
class Check:
    """What came of a check. `remedy` is one line on what to do if it is not `ok`."""

    name: str
    ok: bool
    detail: str
    remedy: str
    required: bool = False


@dataclass(frozen=True)
class Examination:
    """How something is tried.

    Attributes:
        attempt: a module-level function that returns a few words on what was found, or raises; `Missing` brings a
            remedy of its own.
        remedy: what to do if it raises.
        argument: passed to `attempt`, if not None.
        required: whether nothing runs without it.
    """

    attempt: Callable[..., str]
    remedy: str
    argument: str | None = None
    required: bool = False


class Missing(Exception):
    """What is not there, and what to do about it in this case."""

    def __init__(self, detail: str, remedy: str | None = None) -> None:
        super().__init__(detail)
        self.remedy = remedy


def examine(item: tuple[str, Examination], seconds: float = SECONDS) -> Check:
    """Tries (name, examination) in a new process and waits at most `seconds`."""
    name, it = item
    order = json.dumps([it.attempt.__module__, it.attempt.__qualname__, it.argument])
    command = [sys.executable, "-c", _CHILD, order]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, errors="replace")
    except subprocess.TimeoutExpired:
        return Check(name, False, f"no answer after {seconds:g} s", it.remedy, it.required)
    answer = done.stdout.strip().splitlines()[-1:]
    if done.returncode != 0 or not answer:
        last = (done.stderr.strip().splitlines() or [""])[-1]
        return Check(name, False, f"crashed, status {done.returncode}: {last}"[:200], it.remedy, it.required)
    found = json.loads(answer[0])
    return Check(name, found["ok"], found["detail"], found["remedy"] or it.remedy, it.required)


def child(module: str, function: str, argument: str | None) -> None:
    """Runs one attempt and prints what came of it as the last line."""
    import importlib

    attempt = getattr(importlib.import_module(module), function)
    try:
        check = Check("", True, attempt() if argument is None else attempt(argument), "")
    except Exception as error:
        text = " ".join(str(error).split()) or "no message"
        detail = text if isinstance(error, Missing) else f"{type(error).__name__}: {text}"
        check = Check("", False, detail[:200], getattr(error, "remedy", None) or "")
    print("\n" + json.dumps(asdict(check)), flush=True)
