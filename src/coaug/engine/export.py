"""Encoders as people take them away: one safetensors file each, with the config that rebuilds them."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import save

from ..config import dump
from ..models.method import Method
from .checkpoint import write_whole
from .run_config import RunConfig


def save_encoders(method: Method, config: RunConfig, folder: Path) -> list[Path]:
    """Writes `folder`/<encoder>.safetensors (weights; metadata: encoder, method, the run's config as YAML)."""
    paths = []
    for name, encoder in method.encoders().items():
        tensors = {key: value.detach().cpu().contiguous() for key, value in encoder.state_dict().items()}
        notes = {"encoder": name, "method": config.method, "config": dump(config)}
        paths.append(folder / f"{name}.safetensors")
        data = save(tensors, metadata=notes)
        write_whole(paths[-1], lambda part, data=data: part.write_bytes(data))  # type: ignore[misc]
    return paths
