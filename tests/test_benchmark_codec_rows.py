"""Rows of torchcodec and decord: each of their settings shows the frames and plays the sound that were asked for."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import catalogs
import media
import numpy as np
import pytest
import torch
import torchaudio
from numpy.typing import NDArray

from coaug.pipelines.catalog import Catalog

FOLDER = str(Path(__file__).parents[1] / "benchmarks")
SAMPLES = 4  # of two views each
# as 340, no multiple of 32: torchcodec converts those by a filter graph; a width of 96 is one that decord fails on
SIZE = 176, 96
RENDER = """
import sys
import numpy as np
from coaug.pipelines.catalog import Catalog
import rows
from rows.request import CONFIGS, batches
catalog, config, name, out = Catalog.open(sys.argv[1]), CONFIGS["two views"], sys.argv[2], sys.argv[3]
batch = next(batches(catalog, config, len(catalog)))
made = {}
for setting in rows.settings(name):
    clips = rows.maker(name)(catalog, config, len(batch), **setting)(batch)
    text = "/".join(setting.values())
    made |= {f"{text}/{n}": np.stack(each) for n, each in enumerate(zip(*clips))}
np.savez(out, **made)
"""


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(FOLDER)


def picture(index: int, _: float) -> NDArray[np.uint8]:
    """Coloured squares of its own for every frame."""
    small = np.random.default_rng(index).integers(0, 256, (12, 22, 3), np.uint8)
    return np.ascontiguousarray(small.repeat(8, 0).repeat(8, 1))


def sound(t: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rising harmonics in every band, swelling at one pace and another."""
    tones = sum(np.sin(2 * np.pi * 150 * k * t * (1 + 0.03 * t)) / k for k in range(1, 60))
    return np.asarray(0.15 * tones * (1 + 0.9 * np.sin(2 * np.pi * 5 * t)))


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """Samples of a film of 6 s with B-frames, in a catalog."""
    folder = tmp_path_factory.mktemp("films")
    options: dict[str, Any] = {"size": SIZE, "frames": 180, "gop": 50, "b_frames": 3, "channels": 2}
    film = media.write_clip(folder / "film.mp4", picture=picture, sound=sound, **options)
    return catalogs.write(folder / "films.parquet", catalogs.repeated([film.path], SAMPLES))


def rendered(name: str, catalog: Catalog, folder: Path) -> dict[str, list[torch.Tensor]]:
    """Pictures and sounds of one batch by each setting of a row, in a process that finds FFmpeg."""
    from rows.ffmpeg_names import ffmpeg_folder

    out = folder / "out.npz"
    names = ffmpeg_folder(folder / "ffmpeg")
    env = os.environ | {"LD_LIBRARY_PATH": str(names), "PYTHONPATH": FOLDER, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", RENDER, str(catalog.path), name, str(out)]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with np.load(out) as made:
        settings = {key.rpartition("/")[0] for key in made}
        return {key: [torch.from_numpy(made[f"{key}/{n}"]) for n in range(2)] for key in sorted(settings)}


def expected(catalog: Catalog) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The same clips out of the whole file, by PyAV: the last frame that has begun, the samples from `first`."""
    from rows.finish import Finish
    from rows.request import CONFIGS, batches

    config = CONFIGS["two views"]
    finish, (request, *others) = Finish(config), next(batches(catalog, config, len(catalog)))
    frames, (_, rate, pcm) = media.read_frames(request.path), media.read_audio(request.path)
    pixels = torch.from_numpy(np.stack([shown for _, shown in frames])).permute(0, 3, 1, 2)
    for r in (request, *others):
        for times, crop, (first, last), speed in zip(r.times, r.crop, r.heard, r.speed, strict=True):
            shown = [sum(pts <= time for pts, _ in frames) - 1 for time in times]
            part = torch.from_numpy(pcm[int(first * rate) : int(last * rate)])
            played = torchaudio.functional.resample(part, round(rate * speed), config.audio.rate)
            yield finish.pictures(pixels[shown], crop), finish.sound(played)


@pytest.mark.parametrize("name", ["torchcodec", "decord"])
def test_rows_show_and_play_what_was_asked_for(name: str, films: Catalog, tmp_path: Path) -> None:
    if find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    import rows

    pictures, sounds = (torch.stack(each) for each in zip(*expected(films), strict=True))
    assert (pictures[:, :, 1:] - pictures[:, :, :-1]).abs().mean((1, 3, 4)).min() > 0.5
    assert (sounds[..., 1:] - sounds[..., :-1]).abs().mean((1, 2, 3)).min() > 0.1  # a hop too late is seen
    made = rendered(name, films, tmp_path)
    assert len(made) == len(rows.settings(name)) > 1
    for setting, (shown, played) in made.items():
        assert shown.shape == pictures.shape and played.shape == sounds.shape, setting
        frames_off, clips_off = (
            (shown - pictures).abs().mean((1, 3, 4)),
            (played - sounds).abs().mean((1, 2, 3)),
        )
        assert frames_off.max() < 0.01, setting  # bytes are rounded
        assert clips_off.max() < 0.01, setting  # swresample's low-pass is not torchaudio's


def test_the_folder_names_ffmpeg_as_torchcodec_asks_for_it(tmp_path: Path) -> None:
    import av
    from rows.ffmpeg_names import ffmpeg_folder

    if not list(Path(av.__file__).parents[1].glob("av.libs/*")):
        pytest.skip("PyAV uses the system's FFmpeg")
    for _ in range(2):
        links = {link.name: link.resolve() for link in ffmpeg_folder(tmp_path / "names").iterdir()}
    majors = {f"{name}.so.{version[0]}" for name, version in av.library_versions.items()}
    assert majors <= set(links)
    assert all(file.is_file() for file in links.values())
