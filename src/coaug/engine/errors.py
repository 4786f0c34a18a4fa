"""Why a run ends early, in one line for the person who started it."""

from __future__ import annotations


class TrainError(RuntimeError):
    """A run that cannot start or go on; the message says why and what to do."""


class Stopped(Exception):
    """A run that was asked to stop and has written its checkpoint; `code` is the process's exit status."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code
