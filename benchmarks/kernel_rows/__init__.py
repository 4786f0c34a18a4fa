"""Every way to do what a kernel does: one file a kernel, loaded only where it runs, in a process of its own.

A file has what `Kernel` says and, where all of a size would take minutes, `sampled(n, device, impl)`: how many queries.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, NamedTuple, Protocol

OURS = "coaug"
Step = Callable[[], Any]


class Unavailable(Exception):
    """A row does not run here."""


class Case(NamedTuple):
    """What is computed.

    Attributes:
        n: the kernel's size: recordings, embeddings, rows of the bank or of the queue.
        device: "cpu" or "cuda".
        queries: how many of them where only some are computed; times are then multiplied to all of them.
    """

    n: int
    device: str = "cpu"
    queries: int | None = None


class Impl(NamedTuple):
    """One way.

    Attributes:
        make: takes what `inputs` made and the case, and returns a function without arguments: one pass.
        about: for the reader; what differs from ours, if anything does.
        exact: its outputs are ours. Not so for ceilings, and for what computes something less.
    """

    make: Callable[[Any, Case], Step]
    about: str
    exact: bool = True


class Target(NamedTuple):
    """`impl`'s figure over ours is to be `wanted` at least; with no `impl`, ours (ms) is to be `wanted` at most."""

    impl: str
    wanted: float
    device: str = "cpu"
    sizes: Sequence[int] = ()  # none: every
    figure: str = "ms"


class Kernel(Protocol):
    """What a file of this package offers."""

    SIZES: Mapping[str, Sequence[int]]
    K: Callable[[int], int]
    IMPLS: Mapping[str, Impl]
    TARGETS: Sequence[Target]

    def inputs(self, case: Case) -> Any:
        """Tensors that all ways get."""


KERNELS = {
    "agreement_topk": "agreement",
    "soft_infonce": "soft",
    "bank_scores": "scores",
    "nce_loss": "nce",
    "queue_neighbors": "queue_band",
}


def kernel(name: str) -> Kernel:
    """The file of a kernel."""
    found: Any = import_module(f".{KERNELS[name]}", __package__)
    return found  # type: ignore[no-any-return]
