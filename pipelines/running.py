"""The graph and its worker processes at work for a loader: started when they are first needed, and anew, without the
culprit, when a file took them down."""

from __future__ import annotations

import logging
import multiprocessing
import time
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from multiprocessing.process import BaseProcess
from typing import Any

import torch

from .graph import build, outputs
from .interrupts import close_at_exit, sweep
from .recording import Recording
from .scheduling import behind
from .source import Source
from .spawn import single_threaded, without_main
from .tally import LoaderError, Tally
from .watch import ended

COMPILED = 0.5  # seconds that starting takes where nothing is compiled, nor processes are started
DEATHS = 5  # times that worker processes may die before a step is ready
PREFETCH = 2  # batches that workers and graph prepare in advance
log = logging.getLogger("coaug.loader")


class Running:
    """Batches of `source` as DALI's outputs.

    Args:
        source: what workers run; `stop` before it is replaced.
        tally: is told of workers that died.
        named: the recording of a sample id, for messages.
        workers: processes; 0 reads in this one.
        device: "cpu", or "cuda" for this process's current device.
    """

    def __init__(
        self, source: Source, tally: Tally, named: Callable[[int], Recording], *, workers: int, device: str
    ) -> None:
        self.source, self.workers, self.device = source, workers, device
        self.processes: list[BaseProcess] = []
        self._tally, self._named = tally, named
        self._pipeline: Any = None
        self._deaths: Counter[int] = Counter()  # of worker processes, by step

    def batch(self, step: int) -> dict[str, Any]:
        """The outputs of global step `step`, the one after the last, by name. Raises LoaderError."""
        while True:
            try:
                self._pipeline = self._pipeline or self._started(step)
                return dict(zip(outputs(self.source.config), self._pipeline.run(), strict=True))
            except RuntimeError as error:
                self._recover(error, step)

    def stop(self) -> None:
        """End the workers; the next batch starts new ones."""
        self._pipeline = None

    def _started(self, step: int) -> Any:
        self.source = replace(self.source, schedule=replace(self.source.schedule, first=step))
        device_id = None if self.device == "cpu" else torch.cuda.current_device()
        pipeline = build(
            self.source,
            device="cpu" if device_id is None else "gpu",
            parallel=self.workers > 0,
            batch_size=self.source.schedule.local,
            num_threads=max(self.workers, 1),
            device_id=device_id,
            prefetch_queue_depth=PREFETCH,
            exec_dynamic=True,  # each output has memory of its own, which a batch may keep
            py_num_workers=max(self.workers, 1),
            py_start_method="spawn",
        )
        others, start = multiprocessing.active_children(), time.perf_counter()
        with without_main(), single_threaded(), behind() if device_id is None else nullcontext():
            pipeline.build()
        if self.workers:
            close_at_exit(pipeline, pipeline._py_pool.close)
        if time.perf_counter() - start > COMPILED:
            sweep()
        self.processes = [child for child in multiprocessing.active_children() if child not in others]
        return pipeline

    def _recover(self, error: RuntimeError, step: int) -> None:
        """Leave out, or decode elsewhere, what broke this step. Raises LoaderError where nothing is left to try."""
        if any(process.exitcode is not None for process in self.processes):
            self._bury(step)
        elif step not in self.source.distrusted:
            # the graph does not say which file it was: on the host, each failure is its own
            log.warning("the graph refused step %d; decoding it on the host", step)
            self.source = replace(self.source, distrusted=self.source.distrusted | {step})
        else:
            words = " ".join(str(error).split())
            raise LoaderError(f"step {step} cannot be prepared: {words[:500]}") from error
        self.stop()

    def _bury(self, step: int) -> None:
        """Leave out the files that took worker processes down."""
        for pid, how in ended(self.processes).items():
            if reading := self.source.watch.at(pid):
                sample, at = reading
                self.source.bans.add(sample, at)
                how = f"{self._named(sample).name}: {how}"
            self._tally.note(how)
        self._deaths[step] += 1
        if self._deaths[step] >= DEATHS:
            raise LoaderError(
                f"worker processes died {DEATHS} times before step {step} was ready; {self._tally.last}"
            )
