"""The loader takes a packed catalog as it takes the raw one: the same samples at the same moments, from other bytes."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from catalogs import recording, repeated, write
from media import write_clip
from packs import in_this_process, pack
from test_pipelines_alignment import FINE, HERTZ, LOUD, WIDTH, aligned_at, apart, swell, tolerance

from coaug.pipelines.batch import Batch
from coaug.pipelines.catalog import Catalog
from coaug.pipelines.config import AudioConfig, DataConfig, VideoConfig, ViewConfig
from coaug.pipelines.loader import AVLoader
from coaug.pipelines.packed.settings import Packing
from coaug.pipelines.plan import plan

CONFIG = DataConfig(
    video=VideoConfig(frames=4, fps=8.0, size=32, brightness=0.4),
    audio=AudioConfig(rate=16000, seconds=0.5, mels=16, waveform=True),
    views=(ViewConfig("speed(1, 2) | reverse(0.5)", "unaligned"), ViewConfig("speed(1, 2, 4)")),
)
ROWS, BATCH, SHARD = 14, 6, 4
TOLD = ("sample_id", "video_pts", "audio_pts", "speed", "direction", "label", "valid")
Pack = Callable[[Catalog, Packing], Catalog]


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """14 recordings of 2.2 s on three files with 16-bit sound."""
    folder = tmp_path_factory.mktemp("raw")
    how: dict[str, dict[str, Any]] = {
        "flac.mkv": {"audio_codec": "flac", "b_frames": 2},
        "stereo.mkv": {"audio_codec": "pcm_s16le", "channels": 2, "vfr": True, "start": 0.4},
        "pcm.avi": {"audio_codec": "pcm_s16le", "fps": 25},
    }
    paths = [write_clip(folder / name, size=(64, 48), frames=66, **each).path for name, each in how.items()]
    return write(folder / "raw.parquet", repeated(paths, ROWS))


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    def made(catalog: Catalog, packing: Packing) -> Catalog:
        with in_this_process():
            out = tmp_path_factory.mktemp("pack")
            return Catalog.open(pack.pack(catalog.path, out, packing, workers=1, progress=False).path)

    return made


@pytest.fixture(scope="module")
def shards(raw: Catalog, packed: Pack) -> Catalog:
    return packed(raw, Packing("h264", 48, samples=SHARD))


def loader(catalog: Catalog, **options: Any) -> AVLoader:
    return AVLoader(catalog, CONFIG, **{"batch_size": BATCH, "workers": 0, "seed": 5} | options)


def endless(loader: AVLoader) -> Iterator[Batch]:
    while True:
        yield from loader


def batches(catalog: Catalog, count: int, **options: Any) -> list[Batch]:
    with loader(catalog, **options) as one:
        return list(islice(endless(one), count))


def assert_told_alike(one: Batch, two: Batch) -> None:
    for name in TOLD:
        assert torch.equal(getattr(one, name), getattr(two, name)), name


@pytest.fixture(scope="module")
def reference(raw: Catalog) -> list[Batch]:
    return batches(raw, 5)


@pytest.mark.parametrize("how", ["h264", "layered", "mjpeg", "copy"])
def test_samples_and_moments_are_those_of_the_files(
    raw: Catalog, packed: Pack, reference: list[Batch], how: str
) -> None:
    audio = "pcm" if how == "mjpeg" else "flac"
    mono = raw.ids[[n % 3 != 1 for n in range(ROWS)]]
    for one, two in zip(reference, batches(packed(raw, Packing(how, 48, audio=audio)), 5), strict=True):
        assert_told_alike(one, two)
        assert one.waveform is not None and two.waveform is not None and one.audio is not None
        exact = np.isin(one.sample_id.numpy(), mono)
        assert torch.equal(one.waveform[exact], two.waveform[exact])  # 16 bits were enough
        assert torch.equal(one.audio[exact], two.audio[exact])
        assert (one.waveform - two.waveform).abs().max() < 3 * 0.5 / 32768  # filters may add what was rounded
        assert one.video is not None and two.video is not None
        assert (one.video - two.video).abs().mean() < (1e-6 if how == "copy" else 0.5)  # of its deviation


def test_a_state_of_the_files_goes_on_in_the_shards_and_back(
    raw: Catalog, shards: Catalog, reference: list[Batch]
) -> None:
    for before, after in ((raw, shards), (shards, raw)):
        with loader(before) as one:
            list(islice(endless(one), 3))
            state = json.loads(json.dumps(one.state_dict()))
        with loader(after) as two:
            two.load_state_dict(state)
            for expected, batch in zip(reference[3:], endless(two), strict=False):
                assert_told_alike(expected, batch)


def test_worker_processes_change_nothing(shards: Catalog) -> None:
    for one, two in zip(batches(shards, 3), batches(shards, 3, workers=2), strict=True):
        assert_told_alike(one, two)
        for name in ("video", "audio", "waveform"):
            assert torch.equal(getattr(one, name), getattr(two, name)), name


# --- shards that are gone


def lost(catalog: Catalog, batch: Batch, shard: str) -> list[bool]:
    names = {int(row.id): Path(row.path).name for row in catalog}
    return [names[sample] == shard for sample in batch.sample_id.tolist()]


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "deleted": lambda tar: tar.unlink(),
    "emptied": lambda tar: os.truncate(tar, 0),
    "cut": lambda tar: os.truncate(tar, 3000),
    "index deleted": lambda tar: tar.with_suffix(".arrow").unlink(),
    "index cut": lambda tar: os.truncate(tar.with_suffix(".arrow"), 500),
    "index emptied": lambda tar: os.truncate(tar.with_suffix(".arrow"), 0),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_shard_costs_its_samples_not_the_epoch(
    raw: Catalog, packed: Pack, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    catalog = packed(raw, Packing("mjpeg", 48, samples=SHARD))
    tar = catalog.path.parent / "00001.tar"
    with loader(catalog, shuffle=False, batch_size=SHARD, drop_last=False) as one:
        DAMAGE[how](tar)
        with caplog.at_level(logging.WARNING, "coaug.loader"):
            found = list(one)
    assert len(found) == 4
    for batch in found:
        gone = lost(catalog, batch, tar.name)
        assert not batch.valid[gone].any() and batch.valid[np.logical_not(gone)].sum() == min(
            SHARD - sum(gone), ROWS - SHARD * batch.step
        )
        assert batch.video is not None and batch.video.isfinite().all()
    assert sum(sum(lost(catalog, batch, tar.name)) for batch in found) == SHARD
    for row in catalog:
        assert (f"{tar}, {row.key}: " in caplog.text) == (Path(row.path) == tar)


def test_a_shard_that_is_cut_while_it_is_read_costs_its_samples(raw: Catalog, packed: Pack) -> None:
    catalog = packed(raw, Packing("mjpeg", 48, samples=ROWS))
    with loader(catalog, batch_size=1, epochs=1) as one:
        found = list(islice(one, 3))
        os.truncate(catalog.path.parent / "00000.tar", 0)
        found += list(one)
    assert len(found) == ROWS
    assert all(batch.valid.all() for batch in found[:3])
    assert not any(batch.valid.any() for batch in found[6:])  # a few were prepared in advance


# --- flash and beep

SETTINGS = {
    "h264": Packing("h264", 48),
    "layered": Packing("layered", 48),
    "layered, slack": Packing("layered", 48),
    "mjpeg": Packing("mjpeg", 48, audio="pcm"),
    "copy": Packing("copy"),
    "h264, a quarter": Packing("h264", 16, keyint=64, quality=35),
}
RECIPES = ("", "speed(0.5, 2)", "reverse(1)", "shift(1)", "speed(0.5, 2) | shift(1) | reverse(0.5)")
FILMS = 8


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> tuple[Catalog, DataConfig]:
    """Parts of a film with a flash and a beep in the middle of each, as in test_pipelines_alignment."""
    plain, folder, rows = aligned_at("svaclr"), tmp_path_factory.mktemp("events"), FILMS
    video = replace(plain.video, frames=16, fps=32.0)
    config = replace(plain, video=video, audio=CONFIG.audio, views=tuple(map(ViewConfig, RECIPES)))
    period = 2 * config.clip_seconds

    def event(t: np.ndarray) -> np.ndarray:
        return swell(t % period - 0.5 * period, WIDTH / config.video.fps)

    clip = write_clip(
        folder / "events.mp4",
        size=(48, 48),
        fps=FINE,
        frames=round(rows * period * FINE),
        b_frames=2,
        # a frame is on screen from its pts on: it shows the middle of its time
        picture=lambda _, t: np.full((48, 48, 3), np.round(255 * event(np.array(t + 0.5 / FINE))), np.uint8),
        sound=lambda t: LOUD * event(t) * np.sin(2 * np.pi * HERTZ * t),
    )
    parts = (
        replace(row, start=period * n, end=min(period * (n + 1), recording(clip.path).end))
        for n, row in enumerate(repeated([clip.path], rows))
    )
    return write(folder / "events.parquet", parts), config


@pytest.mark.parametrize("how", SETTINGS)
def test_flash_and_beep_stay_together(events: tuple[Catalog, DataConfig], packed: Pack, how: str) -> None:
    """Within half a frame, at every setting, also where frames may be a quarter of one off to save decoding."""
    catalog, config = events
    if "slack" in how:
        config = replace(config, video=replace(config.video, slack=0.25))
    with AVLoader(packed(catalog, SETTINGS[how]), config, batch_size=FILMS, workers=0, shuffle=False) as one:
        batch = next(iter(one))
    assert bool(batch.valid.all()) and batch.video is not None and batch.waveform is not None
    clips, measured = plan(catalog, config, seed=0, epoch=0, rows=np.arange(FILMS)), 0
    for sample, view in np.ndindex(FILMS, len(RECIPES)):
        light = batch.video[sample, view].mean((0, 2, 3)).numpy()
        wave, speed = batch.waveform[sample, view].numpy() / LOUD, float(batch.speed[sample, view, 0])
        off = apart(light, wave, config, speed)
        measured += off is not None
        assert off is None or abs(off) < tolerance(clips, sample, view), (RECIPES[view], off)
    assert measured > FILMS
