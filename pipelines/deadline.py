"""How long one sample may take, and where its time went."""

from __future__ import annotations

import time

STAGES = ("plan", "open", "demux", "video", "convert", "audio", "thin")
"""Drawing clips and compiling what the device plays; opening and closing; seeking and reading packets; decoding
pictures; cutting these out; decoding sound; thinning what is played fast."""
clock = time.perf_counter


class MediaError(Exception):
    """A file that cannot give what was asked; the message is the reason, without the path."""


class Deadline:
    """A budget of wall-clock seconds for one sample, checked wherever time can go, and `spent`, seconds by stage."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.spent = dict.fromkeys(STAGES, 0.0)
        self._stage, self._since = STAGES[0], clock()
        self.end = self._since + seconds

    def at(self, stage: str) -> None:
        """From now on time goes into this one of STAGES. Raises MediaError when it is used up."""
        now = clock()
        self.spent[self._stage] += now - self._since
        self._stage, self._since = stage, now
        if now > self.end:
            raise MediaError(f"took longer than the deadline of {self.seconds:g} s")

    def check(self) -> None:
        """Raises MediaError when the time is used up."""
        self.at(self._stage)
