"""From media files to batches: catalog -> plan -> source -> graph -> loader.

    from coaug.pipelines import AVLoader, Batch, Catalog, DataConfig

Names are looked up when they are asked for: a process that only probes files loads neither torch nor DALI.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .batch import Batch
    from .catalog import Catalog
    from .config import AudioConfig, DataConfig, VideoConfig, ViewConfig
    from .loader import AVLoader, ErrorBudget, LoaderError
    from .recording import Recording
    from .timeline import Timeline

__all__ = [
    "AVLoader",
    "AudioConfig",
    "Batch",
    "Catalog",
    "DataConfig",
    "ErrorBudget",
    "LoaderError",
    "Recording",
    "Timeline",
    "VideoConfig",
    "ViewConfig",
]
_HOMES = {
    "batch": ("Batch",),
    "catalog": ("Catalog",),
    "config": ("AudioConfig", "DataConfig", "VideoConfig", "ViewConfig"),
    "loader": ("AVLoader", "ErrorBudget", "LoaderError"),
    "recording": ("Recording",),
    "timeline": ("Timeline",),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f".{module}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
