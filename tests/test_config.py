"""Typed configs: what is accepted, and what a person reads who mistyped a key."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coaug.config import STRICT, ConfigError, build, dump, presets, read
from coaug.pipelines.config import DataConfig


@dataclass(frozen=True)
class Inner:
    __pydantic_config__ = STRICT
    rate: float = 0.1
    sizes: tuple[int, ...] = (1, 2)


@dataclass(frozen=True)
class Outer:
    __pydantic_config__ = STRICT
    name: str = "x"
    inner: Inner = field(default_factory=Inner)


def yaml_file(folder: Path, text: str) -> Path:
    path = folder / "c.yaml"
    path.write_text(text)
    return path


def test_overrides_are_yaml_values_laid_over_the_file(tmp_path: Path) -> None:
    path = yaml_file(tmp_path, "name: a\ninner: {rate: 1e-4}\n")
    config = build(Outer, read(path, ["inner.sizes=[3, 4]", "name=b"]))
    assert config == Outer("b", Inner(1e-4, (3, 4)))  # 1e-4 is a number, whatever YAML 1.1 says


def test_a_base_is_refined_key_by_key(tmp_path: Path) -> None:
    base = tmp_path / "base.yaml"
    base.write_text("name: a\ninner: {rate: 0.5, sizes: [9]}\n")
    tree = read(yaml_file(tmp_path, f"base: {base}\ninner: {{rate: 0.25}}\n"))
    assert build(Outer, tree) == Outer("a", Inner(0.25, (9,)))


@given(
    st.builds(
        Outer, st.text("abc"), st.builds(Inner, st.floats(-9, 9), st.lists(st.integers(0, 9)).map(tuple))
    )
)
def test_dump_and_read_are_inverse(config: Outer) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        assert build(Outer, read(yaml_file(Path(folder), dump(config)))) == config


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["nam=1"], ["unknown key 'nam'", "did you mean 'name'"]),
        (["inner.raet=1"], ["unknown key 'inner.raet'", "did you mean 'rate'"]),
        (["inner.rate=fast"], ["inner.rate", "valid number", "'fast'"]),
        (["name=3"], ["name", "valid string", "3"]),
        (["inner.sizes=[1, x]"], ["inner.sizes.1", "valid integer"]),
        (["name.first=3"], ["'name' is a value, not a section"]),
        (["name"], ["key=value"]),
    ],
)
def test_wrong_keys_and_types_are_named(tmp_path: Path, overrides: list[str], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        build(Outer, read(yaml_file(tmp_path, "name: a\n"), overrides))
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert "\n" not in str(caught.value)


def test_keys_of_list_entries_are_named_too() -> None:
    with pytest.raises(ConfigError, match=r"data\.views\.0\.tempral.*did you mean 'temporal'"):
        build(DataConfig, {"views": [{"tempral": "speed(2)"}]}, "data.")


@pytest.mark.parametrize("text", ["- 1\n- 2\n", "a: [1\n"])
def test_files_that_are_no_config(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"c\.yaml"):
        read(yaml_file(tmp_path, text))


def test_an_unknown_preset_names_those_there_are() -> None:
    with pytest.raises(ConfigError, match="svaclr"):
        read("svaclrr")
    assert all(path.is_file() for path in presets().values())
