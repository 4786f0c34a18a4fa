"""Several hundred short films whose sound comes from what is seen, for a first run without any data."""

from __future__ import annotations

from .write import write_demo

__all__ = ["write_demo"]
