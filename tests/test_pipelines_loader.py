"""The loader's promises: the same global batches for any number of processes and workers, exact resuming, order."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields, replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from catalogs import repeated, write
from media import Clip, write_clip

from coaug.pipelines.batch import Batch
from coaug.pipelines.catalog import Catalog
from coaug.pipelines.config import AudioConfig, DataConfig, VideoConfig, ViewConfig
from coaug.pipelines.loader import AVLoader, LoaderError

CONFIG = DataConfig(
    video=VideoConfig(frames=4, fps=8.0, size=32, brightness=0.4, hue=0.1),
    audio=AudioConfig(rate=16000, seconds=0.5, mels=16),
    views=(ViewConfig("speed(1, 2) | reverse(0.5)", "unaligned"), ViewConfig("speed(1, 2, 4)")),
)
SILENT = DataConfig(video=CONFIG.video, views=CONFIG.views, modalities=("video",))
ROWS, BATCH = 26, 12


@pytest.fixture(scope="session")
def mixed(media_dir: Path, mp4: Clip, webm: Clip, avi: Clip, late: Clip) -> Catalog:
    """26 recordings on five files: H.264, VP9, MPEG-4, VP8, one that starts late."""
    vp8 = write_clip(media_dir / "vp8.webm", codec="libvpx", frames=75)
    paths = [clip.path for clip in (mp4, webm, avi, late, vp8)]
    return write(media_dir / "mixed.parquet", repeated(paths, ROWS))


def steps(catalog: Catalog, count: int, config: DataConfig = CONFIG, **options: Any) -> list[Batch]:
    """The first `count` batches, over as many epochs as that takes."""
    with AVLoader(catalog, config, **{"batch_size": BATCH, "workers": 0, "seed": 5} | options) as loader:
        return list(islice(endless(loader), count))


def endless(loader: AVLoader) -> Iterator[Batch]:
    while True:
        yield from loader


def assert_same(one: Batch, two: Batch) -> None:
    for f in fields(Batch):
        a, b = getattr(one, f.name), getattr(two, f.name)
        if isinstance(a, torch.Tensor):
            assert a.dtype == b.dtype
            assert torch.equal(a, b), f.name
        else:
            assert a == b, f.name


def joined(parts: list[Batch]) -> Batch:
    """The global batch of all ranks' slices."""
    values = {f.name: [getattr(p, f.name) for p in parts] for f in fields(Batch)}
    for name in ("epoch", "step"):
        assert len(set(values[name])) == 1
    return Batch(**{k: torch.cat(v) if isinstance(v[0], torch.Tensor) else v[0] for k, v in values.items()})


@pytest.fixture(scope="session")
def reference(mixed: Catalog) -> list[Batch]:
    return steps(mixed, 5)


def test_shapes_types_and_values(reference: list[Batch]) -> None:
    batch, audio = reference[0], CONFIG.audio
    assert batch.video is not None
    assert batch.audio is not None
    assert batch.video.shape == (BATCH, 2, 3, 4, 32, 32)
    assert batch.audio.shape == (BATCH, 2, 1, *audio.shape)
    assert batch.video_pts.shape == (BATCH, 2, 4)
    assert batch.audio_pts.shape == batch.speed.shape == batch.direction.shape == (BATCH, 2, 2)
    assert {f.name: getattr(batch, f.name).dtype for f in fields(Batch)[2:9]} == {
        "video_pts": torch.float64,
        "audio_pts": torch.float64,
        "speed": torch.float32,
        "direction": torch.float32,
        "sample_id": torch.int64,
        "valid": torch.bool,
        "label": torch.int64,
    }
    assert batch.video.dtype == batch.audio.dtype == torch.float32
    assert batch.video.isfinite().all()
    assert batch.audio.isfinite().all()
    assert batch.valid.all()
    assert (batch.direction.abs() == 1).all()
    assert (batch.speed[:, 1, 0] == batch.speed[:, 1, 1]).all()


@pytest.mark.parametrize("world", [2, 3, 4])
def test_global_batches_do_not_depend_on_world_size(
    mixed: Catalog, reference: list[Batch], world: int
) -> None:
    ranks = [steps(mixed, 3, rank=rank, world_size=world) for rank in range(world)]
    for whole, *parts in zip(reference[:3], *ranks, strict=True):
        assert_same(whole, joined(parts))
    lengths = {len(AVLoader(mixed, CONFIG, batch_size=BATCH, rank=r, world_size=world)) for r in range(world)}
    assert lengths == {ROWS // BATCH}


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_do_not_depend_on_workers(mixed: Catalog, reference: list[Batch], workers: int) -> None:
    for one, two in zip(reference[:3], steps(mixed, 3, workers=workers), strict=True):
        assert_same(one, two)


def test_decoding_threads_and_repetition_change_nothing(mixed: Catalog, reference: list[Batch]) -> None:
    for one, two in zip(reference, steps(mixed, 5), strict=True):
        assert_same(one, two)


def test_seeds_differ(mixed: Catalog, reference: list[Batch]) -> None:
    (other,) = steps(mixed, 1, seed=6)
    assert not torch.equal(other.sample_id, reference[0].sample_id)


@pytest.mark.parametrize("taken", [0, 1, 2, 3])
def test_resuming_is_exact_across_epochs(mixed: Catalog, reference: list[Batch], taken: int) -> None:
    """An epoch has two steps: the state is taken at a border, in the middle, and after a border."""
    with AVLoader(mixed, CONFIG, batch_size=BATCH, workers=0, seed=5) as loader:
        for _ in islice(endless(loader), taken):
            pass
        state = json.loads(json.dumps(loader.state_dict()))
    with AVLoader(mixed, CONFIG, batch_size=BATCH, workers=0, seed=5) as resumed:
        resumed.load_state_dict(state)
        assert resumed.epoch == taken // 2
        for one, two in zip(reference[taken : taken + 2], endless(resumed), strict=False):
            assert_same(one, two)


def test_a_loader_can_be_put_back(mixed: Catalog, reference: list[Batch]) -> None:
    """load_state_dict on a loader in use throws away what it had prepared."""
    with AVLoader(mixed, SILENT, batch_size=BATCH, workers=0, seed=5) as loader:
        state = loader.state_dict()
        first = [b.sample_id for b in islice(endless(loader), 3)]
        loader.load_state_dict(state)
        again = [b.sample_id for b in islice(endless(loader), 3)]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert torch.equal(first[0], reference[0].sample_id)


def test_leaving_an_epoch_early_continues_it(mixed: Catalog) -> None:
    with AVLoader(mixed, SILENT, batch_size=4, workers=0) as loader:
        assert len(list(islice(loader, 2))) == 2
        rest = list(loader)
        assert [b.step for b in rest] == list(range(2, 6))
        assert [b.epoch for b in loader] == [1] * 6


def test_an_epoch_is_a_permutation(mixed: Catalog) -> None:
    orders = []
    with AVLoader(mixed, SILENT, batch_size=13, workers=0) as loader:
        for epoch in range(2):
            ids = [b.sample_id for b in loader]
            assert all(len(set(i.tolist())) == 13 for i in ids)
            orders.append(torch.cat(ids).tolist())
            assert sorted(orders[epoch]) == sorted(mixed.ids.tolist())
    assert orders[0] != orders[1]


def test_a_whole_pass_marks_what_it_repeats(mixed: Catalog) -> None:
    with AVLoader(mixed, SILENT, batch_size=12, workers=0, shuffle=False, drop_last=False) as loader:
        batches = list(loader)
    assert [int(b.valid.sum()) for b in batches] == [12, 12, 2]
    ids = torch.cat([b.sample_id[b.valid] for b in batches])
    assert ids.tolist() == mixed.ids.tolist()
    assert all(len(set(b.sample_id.tolist())) == 12 for b in batches)


def test_a_limited_number_of_epochs_ends_quietly(mixed: Catalog) -> None:
    with AVLoader(mixed, SILENT, batch_size=12, workers=0, epochs=2) as loader:
        assert [b.epoch for b in loader] == [0, 0]
        assert [b.epoch for b in loader] == [1, 1]
        assert list(loader) == []


def test_labels_belong_to_their_samples(mixed: Catalog, reference: list[Batch]) -> None:
    labels = dict(zip(mixed.ids.tolist(), mixed.labels.tolist(), strict=True))
    for batch in reference:
        assert batch.label.tolist() == [labels[i] for i in batch.sample_id.tolist()]


def test_absent_modalities_are_none(mixed: Catalog) -> None:
    (silent,) = steps(mixed, 1, SILENT)
    assert silent.audio is None
    (blind,) = steps(mixed, 1, DataConfig(audio=CONFIG.audio, views=CONFIG.views, modalities=("audio",)))
    assert blind.video is None
    assert silent.sample_id.tolist() == blind.sample_id.tolist()


def test_a_path_is_as_good_as_a_catalog(mixed: Catalog, reference: list[Batch]) -> None:
    with AVLoader(mixed.path, SILENT, batch_size=BATCH, workers=0, seed=5) as loader:
        assert torch.equal(next(iter(loader)).sample_id, reference[0].sample_id)


# --- refusals


def refused(catalog: Catalog, config: DataConfig = SILENT, **options: Any) -> str:
    with pytest.raises(LoaderError) as caught:
        AVLoader(catalog, config, **{"batch_size": 2, "workers": 0} | options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_impossible_requests_are_refused_in_a_line(mixed: Catalog) -> None:
    assert "split 'nowhere'" in refused(mixed, split="nowhere")
    assert "26" in refused(mixed, batch_size=27)
    assert "27" in refused(mixed, batch_size=27)
    assert "3" in refused(mixed, batch_size=4, world_size=3, rank=0)
    assert "0" in refused(mixed, batch_size=0)
    assert "rank" in refused(mixed, batch_size=4, world_size=2, rank=2)
    assert "decode" in refused(mixed, decode="gpu")
    long = DataConfig(video=VideoConfig(frames=300, fps=30.0), modalities=("video",))
    assert "shorter than 10 s" in refused(mixed, long)


def test_short_recordings_are_left_out_and_counted(media_dir: Path, mp4: Clip) -> None:
    short = write_clip(media_dir / "short.mp4", frames=10)
    catalog = write(media_dir / "short.parquet", repeated([mp4.path, short.path], 6))
    loader = AVLoader(catalog, SILENT, batch_size=3, workers=0)
    assert len(loader.catalog) == 3
    assert "left out: 3 shorter than 0.5 s" in loader.describe()


def test_states_of_another_run_are_refused(mixed: Catalog, mp4: Clip, media_dir: Path) -> None:
    state = AVLoader(mixed, SILENT, batch_size=2, workers=0).state_dict()
    other = write(media_dir / "other.parquet", repeated([mp4.path], 4))
    for loader, key in (
        (AVLoader(mixed, SILENT, batch_size=2, workers=0, seed=1), "seed"),
        (AVLoader(mixed, SILENT, batch_size=4, workers=0), "batch_size"),
        (AVLoader(other, SILENT, batch_size=2, workers=0), "catalog"),
    ):
        with pytest.raises(LoaderError, match=key):
            loader.load_state_dict(state)


def test_the_route_of_each_codec_is_told(mixed: Catalog) -> None:
    told = AVLoader(mixed, SILENT, batch_size=2, workers=0, decode="graph").describe()
    assert "vp9 (5) in the graph" in told
    assert "mpeg4 (5) on the host" in told
    for decode in ("host", "auto"):
        routes = AVLoader(mixed, SILENT, batch_size=2, workers=0, decode=decode).describe()
        assert "in the graph" not in routes


def test_a_batch_keeps_its_memory(mixed: Catalog) -> None:
    """Batches are DALI's own memory, uncopied: later steps and the loader's end must leave them alone."""
    kept = []
    with AVLoader(mixed, CONFIG, batch_size=BATCH, workers=0) as loader:
        for batch in islice(endless(loader), 8):
            assert batch.video is not None and batch.audio is not None
            kept.append((batch.video, batch.video.clone(), batch.audio, batch.audio.clone()))
    del loader
    for video, video_then, audio, audio_then in kept:
        assert torch.equal(video, video_then) and torch.equal(audio, audio_then)


def test_the_order_of_modalities_does_not_matter(mixed: Catalog) -> None:
    with AVLoader(
        mixed, replace(CONFIG, modalities=("audio", "video")), batch_size=BATCH, workers=0
    ) as loader:
        batch = next(iter(loader))
    assert batch.video is not None and batch.video.ndim == 6
    assert batch.audio is not None and batch.audio.ndim == 5
