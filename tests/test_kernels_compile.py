"""Every kernel compiles for every architecture, in every variant that its first line lists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import coaug.kernels
from coaug.kernels import cuda

nvrtc = pytest.importorskip("cupy").cuda.nvrtc

FILES = sorted(Path(coaug.kernels.__file__).parent.glob("*.cu"))
KNOWN = set(nvrtc.getSupportedArchs())  # CUDA 13 has left Volta behind

Defines = dict[str, int | str]


def variants(text: str) -> list[Defines]:
    """`// variants: WIDTH=128,HALF=1; WIDTH=64` as dictionaries; one empty one where there is no such line."""
    found = re.match(r"//\s*variants:(.*)", text)
    sets = found[1].split(";") if found else [""]
    return [dict(pair.strip().split("=", 1) for pair in one.split(",") if pair.strip()) for one in sets]


def cases() -> list[tuple[str, Defines]]:
    return [(path.stem, defines) for path in FILES for defines in variants(path.read_text(encoding="utf-8"))]


def label(case: object) -> str:
    return ",".join(f"{k}={v}" for k, v in case.items()) or "plain" if isinstance(case, dict) else str(case)


def test_variants_are_read() -> None:
    assert variants("// variants: WIDTH=128,HALF=1; T=__half\n") == [
        {"WIDTH": "128", "HALF": "1"},
        {"T": "__half"},
    ]
    assert variants("// another comment\n") == [{}]


@pytest.mark.parametrize("architecture", cuda.SUPPORTED)
@pytest.mark.parametrize(("name", "defines"), cases(), ids=label)
def test_it_compiles(name: str, defines: Defines, architecture: int) -> None:
    if architecture not in KNOWN:
        pytest.skip(f"this nvrtc {nvrtc.getVersion()} compiles for {sorted(KNOWN)}")
    assert cuda.compile_for(name, architecture, **defines)[1:4] == b"ELF"


@pytest.mark.parametrize("name", [path.stem for path in FILES])
def test_its_functions_can_be_found_by_name(name: str) -> None:
    text = cuda.source(name)
    assert text.count("__global__") == len(re.findall(r'extern\s+"C"\s+__global__', text)), "one is mangled"
