"""What all tests share. `from media import write_clip` works everywhere below this folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("shared", deadline=None)  # machines here are shared: no test asserts times
settings.load_profile("shared")
for _name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "2")

from media import Clip, flash_and_beep, silence, write_clip  # noqa: E402
from packs import TINY, catalogued, in_this_process, various  # noqa: E402

from coaug.pipelines.packed.pack import pack  # noqa: E402
from coaug.pipelines.recording import Recording  # noqa: E402


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests marked `gpu` run where there is one; asked for with `-m gpu`, they fail where there is none."""
    import torch

    if "gpu" in config.option.markexpr or torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="no GPU on this machine"))


@pytest.fixture(scope="session")
def media_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for the generated files of this run; read it, never write to it."""
    return tmp_path_factory.mktemp("media")


@pytest.fixture(scope="session")
def mp4(media_dir: Path) -> Clip:
    """3 s H.264 + AAC, 30 frames/s, key frame every 12, burnt-in numbers."""
    return write_clip(media_dir / "plain.mp4")


@pytest.fixture(scope="session")
def webm(media_dir: Path) -> Clip:
    """3 s VP9 + Opus, 30 frames/s."""
    return write_clip(media_dir / "plain.webm")


@pytest.fixture(scope="session")
def avi(media_dir: Path) -> Clip:
    """3 s MPEG-4 + MP3, 25 frames/s."""
    return write_clip(media_dir / "plain.avi", fps=25, frames=75)


@pytest.fixture(scope="session")
def ntsc(media_dir: Path) -> Clip:
    """4 s H.264 with B-frames at 29.97 frames/s, stereo."""
    from fractions import Fraction

    return write_clip(
        media_dir / "ntsc.mp4", fps=Fraction(30000, 1001), frames=120, b_frames=2, channels=2, gop=30
    )


@pytest.fixture(scope="session")
def vfr(media_dir: Path) -> Clip:
    """4.5 s Matroska with irregular frame times."""
    return write_clip(media_dir / "vfr.mkv", vfr=True, frames=90)


@pytest.fixture(scope="session")
def late(media_dir: Path) -> Clip:
    """3 s mp4 whose two tracks begin at 1.4 s."""
    return write_clip(media_dir / "late.mp4", start=1.4)


@pytest.fixture(scope="session")
def rotated(media_dir: Path) -> Clip:
    """2 s mp4 stored lying on its side: players turn it by 90 degrees clockwise."""
    return write_clip(media_dir / "rotated.mp4", rotation=90, frames=60)


@pytest.fixture(scope="session")
def silent(media_dir: Path) -> Clip:
    """2 s mp4 whose audio track is digital silence."""
    return write_clip(media_dir / "silent.mp4", sound=silence, frames=60)


@pytest.fixture(scope="session")
def events(media_dir: Path) -> Clip:
    """6 s mp4: a flash and a beep at 0.5, 1.5, ... s."""
    picture, sound = flash_and_beep()
    return write_clip(media_dir / "events.mp4", picture=picture, sound=sound, frames=180)


@pytest.fixture(scope="session")
def packable(tmp_path_factory: pytest.TempPathFactory) -> list[Recording]:
    """What is there to be packed."""
    return various(tmp_path_factory.mktemp("various"))


@pytest.fixture(scope="session")
def packable_catalog(packable: list[Recording], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The catalog of `packable`."""
    return catalogued(tmp_path_factory.mktemp("source") / "c.parquet", packable)


@pytest.fixture(scope="session")
def pack_folder(packable_catalog: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an undisturbed pack of `packable`, by two workers; read it, never write to it."""
    out = tmp_path_factory.mktemp("whole") / "pack"
    pack(packable_catalog, out, TINY, workers=2, progress=False)
    return out


@pytest.fixture
def pack_here() -> Iterator[None]:
    """Packs are made in this process."""
    with in_this_process():
        yield
