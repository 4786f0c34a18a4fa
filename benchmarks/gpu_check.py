"""Everything that only a GPU can tell, in one command and one JSON file: `make gpu-check`.

Is NVDEC exposed? Do the tests marked `gpu` pass? How many clips a second does the loader deliver there, and others, and
decoding alone (`x NVDEC` is to be 0.7, `x PyNvVideoCodec` and `x torchcodec, CUDA` 3)? What does the augmentation cost
against torch? How much faster are packed JPEGs decoded by nvJPEG than on the host? What do the
kernels cost against torch and AVID-CMA?
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from itertools import product
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
OUT = Path("gpu-check.json")
COPIES = 16  # of every film, so that a batch has as many files as a real one
PEERS = ("coaug, GPU", "torchcodec, CUDA", "PyNvVideoCodec", "NVDEC", "DALI", "torchcodec")


def main() -> int:
    if not torch.cuda.is_available():
        print("gpu-check: torch sees no GPU on this machine; nothing was checked", file=sys.stderr)
        return 2
    report: dict[str, Any] = {"machine": machine(), "driver_libraries": driver_libraries(), "tests": tests()}
    report["loader"] = demo_rates()
    report["loader_packed_mjpeg"] = packed_rates()
    report["sustained"] = sustained_rates()
    workers = str(min(len(os.sched_getaffinity(0)), 8))
    report["peers"] = rows_of("loader.py", "--no-packs", "--workers", workers, "--rows", *PEERS)
    report["augment"] = rows_of("augment.py", "--device", "cuda", "--batch", "16")
    report["kernels"] = rows_of("kernels.py", "--device", "cuda")
    report["headspace"] = rows_of("headspace.py", "--packed")
    OUT.write_text(json.dumps(report, indent=1))
    print(json.dumps(report, indent=1))
    failed = [name for name, outcome in report["tests"].items() if outcome != "passed"]
    return 1 if failed or not report["tests"] else 0


def machine() -> dict[str, str]:
    """What this was measured on."""
    driver = subprocess.run(
        ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"],
        capture_output=True,
        text=True,
        check=False,
    )
    return {"gpu": driver.stdout.strip(), "torch": torch.__version__, "platform": platform.platform()}


def driver_libraries() -> list[str]:
    """The decoding and encoding libraries that the driver brings, as the linker sees them."""
    known = subprocess.run(["ldconfig", "-p"], capture_output=True, text=True, check=False).stdout
    return [line.strip() for line in known.splitlines() if "nvcuvid" in line or "nvidia-encode" in line]


def tests() -> dict[str, str]:
    """Outcome of every test marked `gpu`."""
    with tempfile.TemporaryDirectory() as folder:
        junit = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-m", "gpu", f"--junitxml={junit}", "tests"]
        subprocess.run(command, cwd=ROOT, check=False)
        cases = ET.parse(junit).iter("testcase") if junit.exists() else []
        return {f"{c.get('classname')}::{c.get('name')}": _outcome(c) for c in cases}


def _outcome(case: ET.Element) -> str:
    children = {child.tag: child.get("message", "") for child in case}
    for bad in ("failure", "error", "skipped"):
        if bad in children:
            return f"{bad}: {(children[bad] or '').splitlines()[0][:300] if children[bad] else ''}"
    return "passed"


def demo_rates() -> dict[str, float]:
    """Of the demo set, as it was written: H.264."""
    from coaug.cli import _catalog_of

    return loader_rates(_catalog_of(None))


def packed_rates() -> dict[str, float]:
    """Of the demo set packed as MJPEG: on the GPU, "auto" is nvJPEG."""
    from coaug.cli import _catalog_of
    from coaug.pipelines.packed.pack import pack
    from coaug.pipelines.packed.settings import Packing

    with tempfile.TemporaryDirectory() as folder:
        return loader_rates(pack(_catalog_of(None), folder, Packing(video="mjpeg"), progress=False).path)


def loader_rates(catalog: Path) -> dict[str, float]:
    """Clips a second through the loader, by decoding route and device (medians of five passes)."""
    from coaug.pipelines.config import DataConfig, ViewConfig
    from coaug.pipelines.loader import AVLoader

    sped = ViewConfig("speed(1, 2, 3, 4)", "unaligned")
    config = DataConfig(views=(ViewConfig(), sped))
    rates: dict[str, float] = {}
    for device, decode in (("cpu", "auto"), ("cuda", "host"), ("cuda", "auto")):
        with AVLoader(catalog, config, batch_size=32, device=device, decode=decode) as loader:
            batches = (batch for _ in iter(int, 1) for batch in loader)
            [next(batches) for _ in range(3)]
            passes = []
            for _ in range(5):
                start = time.perf_counter()
                [next(batches) for _ in range(4)]
                torch.cuda.synchronize()
                passes.append(4 * 32 * 2 / (time.perf_counter() - start))
            rates[f"{device}.{decode}"] = sorted(passes)[2]
    return rates


def sustained_rates(seconds: float = 60.0) -> dict[str, float]:
    """Clips a second for a minute, pictures and sound: films as downloaded, and packed; targets are 1,000 and 3,000."""
    from films import made

    from coaug.pipelines.index import index
    from coaug.pipelines.packed.pack import pack
    from coaug.pipelines.packed.settings import Packing

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for film, n in product(made("h264.mp4", ROOT / "data" / "films"), range(COPIES)):
            (folder / f"{film.stem}-{n}.mp4").symlink_to(film.resolve())
        paths = {"files": index([folder], folder / "films.parquet", progress=False).path}
        for video in ("h264", "layered", "mjpeg"):
            packing = Packing(video, audio="pcm")
            paths[f"packed {video}"] = pack(paths["files"], folder / video, packing, progress=False).path
        return {name: _sustained(path, seconds) for name, path in paths.items()}


def _sustained(catalog: Path, seconds: float) -> float:
    from rows.request import CONFIGS

    from coaug.pipelines.loader import AVLoader

    with AVLoader(catalog, CONFIGS["two views"], batch_size=64, device="cuda") as loader:
        batches = (batch for _ in iter(int, 1) for batch in loader)
        [next(batches) for _ in range(5)]
        start, clips = time.perf_counter(), 0
        while time.perf_counter() - start < seconds:
            clips += 2 * len(next(batches))
        torch.cuda.synchronize()
        return clips / (time.perf_counter() - start)


def rows_of(script: str, *options: str) -> list[dict[str, Any]]:
    """What another benchmark writes as JSON."""
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.json"
        command = [sys.executable, f"benchmarks/{script}", *options, "--json", str(rows)]
        subprocess.run(command, cwd=ROOT, check=False)
        found: list[dict[str, Any]] = json.loads(rows.read_text()) if rows.exists() else []
        return found


if __name__ == "__main__":
    sys.exit(main())
