"""Typed configs: YAML file + `key=value` overrides -> frozen dataclasses, with errors for the person who typed them."""

from __future__ import annotations

import dataclasses
import difflib
import importlib.resources
import json
import re
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

T = TypeVar("T")
STRICT = ConfigDict(extra="forbid", strict=True)  # every config dataclass sets `__pydantic_config__ = STRICT`


class ConfigError(ValueError):
    """A config that cannot be used; the message names the key and what to do."""


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads `1e-4` as a string; people mean a number."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def presets() -> dict[str, Path]:
    """Name -> file of every preset in `configs/`, installed or in a checkout."""
    folder = Path(str(importlib.resources.files("coaug") / "configs"))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def read(source: str | Path, overrides: Iterable[str] = ()) -> dict[str, Any]:
    """The mapping of a preset's name or a YAML file, with `a.b=value` overrides laid over it (values are YAML)."""
    path = presets().get(str(source), Path(source))
    if not path.is_file():
        raise ConfigError(f"no preset or file {str(source)!r}; presets: {', '.join(presets())}")
    try:
        tree = yaml.load(path.read_text(), Loader=_Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected a mapping of keys, found {type(tree).__name__}")
    if base := tree.pop("base", None):  # a preset may refine another one
        tree = _merge(read(base), tree)
    for item in overrides:
        _override(tree, item)
    return dict(tree)


def build(cls: type[T], tree: Mapping[str, Any], prefix: str = "") -> T:
    """`tree` as a `cls`. Raises ConfigError naming every unknown or ill-typed key and the nearest valid name."""
    try:
        return TypeAdapter(cls).validate_json(json.dumps(tree))
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(cls, item, prefix) for item in error.errors())) from None


def dump(config: Any) -> str:
    """A config dataclass as YAML that `read` and `build` turn back into it."""
    return yaml.safe_dump(json.loads(TypeAdapter(type(config)).dump_json(config)), sort_keys=False)


def _merge(base: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    for key, value in over.items():
        nested = isinstance(value, Mapping) and isinstance(base.get(key), dict)
        base[key] = _merge(base[key], value) if nested else value
    return base


def _override(tree: dict[str, Any], item: str) -> None:
    path, equals, text = item.partition("=")
    if not equals:
        raise ConfigError(f"override {item!r}: write it as key=value, such as optim.lr=0.1")
    *parents, leaf = path.strip().split(".")
    for name in parents:
        child = tree.setdefault(name, {})
        if not isinstance(child, dict):
            raise ConfigError(f"override {item!r}: {name!r} is a value, not a section")
        tree = child
    try:
        tree[leaf] = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError:
        raise ConfigError(f"override {item!r}: the value is not valid YAML") from None


def _explain(cls: type, item: Any, prefix: str) -> str:
    location = [str(part) for part in item["loc"]]
    key = prefix + ".".join(location)
    if item["type"] in ("unexpected_keyword_argument", "extra_forbidden", "unexpected_property"):
        near = difflib.get_close_matches(location[-1], _keys(cls, location[:-1]), n=1, cutoff=0.4)
        return f"unknown key {key!r}" + (f"; did you mean {near[0]!r}?" if near else "")
    return f"{key}: {item['msg'].removeprefix('Value error, ')} (got {item['input']!r})"


def _keys(cls: Any, path: list[str]) -> list[str]:
    """Field names of the dataclass found at `path` below `cls`."""
    for name in path:
        hints = typing.get_type_hints(cls) if dataclasses.is_dataclass(cls) else {}
        cls = hints.get(name) or next(iter(typing.get_args(cls)), cls)
    options = [cls, *typing.get_args(cls)]
    return [
        f.name for option in options if dataclasses.is_dataclass(option) for f in dataclasses.fields(option)
    ]
