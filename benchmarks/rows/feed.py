"""Several workers behind a row: threads of this process, or processes of torch's DataLoader, whichever is faster."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any

from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from . import Way
from .request import Request

FEEDS = ("threads", "processes")
AHEAD = 2  # batches that each worker prepares in advance; DataLoader's default
Made = Callable[[], Way]
Asked = Callable[[], Iterator[list[Request]]]


class Fed:
    """The next batch, whichever was asked for: workers go on with what comes after it.

    Args:
        make: makes the row, for each worker its own.
        asked: the batches from the first one on.
    """

    def __init__(self, make: Made, asked: Asked, feed: str, workers: int) -> None:
        self.ready = iter(
            threads(make, asked(), workers) if feed == "threads" else processes(make, asked, workers)
        )

    def __call__(self, batch: list[Request]) -> Any:
        return next(self.ready)


def threads(make: Made, asked: Iterator[list[Request]], workers: int) -> Iterator[Any]:
    """For rows whose libraries let go of the interpreter's lock."""
    pools = [(ThreadPoolExecutor(1), make()) for _ in range(workers)]
    waiting: deque[Future[Any]] = deque()
    for n, batch in enumerate(asked):
        pool, way = pools[n % workers]
        waiting.append(pool.submit(way, batch))
        if len(waiting) > AHEAD * workers:
            yield waiting.popleft().result()


def processes(make: Made, asked: Asked, workers: int) -> DataLoader[Any]:
    """Tensors come through shared memory."""
    return DataLoader(_Batches(make, asked), batch_size=None, num_workers=workers, prefetch_factor=AHEAD)


class _Batches(IterableDataset[Any]):
    def __init__(self, make: Made, asked: Asked) -> None:
        self.make, self.asked = make, asked

    def __iter__(self) -> Iterator[Any]:
        info, way = get_worker_info(), self.make()
        assert info is not None
        return map(way, islice(self.asked(), info.id, None, info.num_workers))
