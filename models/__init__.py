"""Encoders, heads and methods. A method is one file here and one line in `METHODS`."""

from __future__ import annotations

import difflib
import importlib
from typing import TYPE_CHECKING

from ..config import ConfigError

if TYPE_CHECKING:
    from .method import Method

METHODS = {
    "svaclr": "svaclr:SvaCLR",
    "infonce": "svaclr:InfoNCE",
    "avid": "avid:Avid",
    "cma": "cma:CMA",
}
"""Name -> module and class, imported only when asked for."""


def get_method(name: str) -> type[Method]:
    """The class of a method. Raises ConfigError with the nearest name for one that does not exist."""
    if name not in METHODS:
        near = difflib.get_close_matches(name, METHODS, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(METHODS)}"
        raise ConfigError(f"unknown method {name!r}; {hint}")
    module, _, cls = METHODS[name].partition(":")
    method: type[Method] = getattr(importlib.import_module(f".{module}", __name__), cls)
    return method
