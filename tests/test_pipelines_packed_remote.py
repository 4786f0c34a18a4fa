"""Packs behind URLs, by parts or by whole shards in pools, give the batches of local ones."""

from __future__ import annotations

from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
from catalogs import recording, repeated, write
from media import write_clip
from packs import in_this_process, pack

from coaug.cli import _catalog_of
from coaug.pipelines.batch import Batch
from coaug.pipelines.catalog import Catalog
from coaug.pipelines.config import AudioConfig, DataConfig, VideoConfig
from coaug.pipelines.loader import AVLoader, LoaderError
from coaug.pipelines.packed.remote import fetched
from coaug.pipelines.packed.settings import Packing
from coaug.pipelines.table import CatalogError

CONFIG = DataConfig(
    video=VideoConfig(frames=2, fps=8.0, size=16), audio=AudioConfig(rate=16000, seconds=0.25, mels=8)
)
ROWS, SHARD, BATCH, POOL = 12, 2, 4, 2


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """12 recordings in 6 shards."""
    folder = tmp_path_factory.mktemp("remote")
    path = write_clip(folder / "film.mkv", size=(32, 32), frames=24, audio_codec="flac").path
    raw = write(folder / "raw.parquet", repeated([path], ROWS))
    with in_this_process():
        out = folder / "pack"
        packing = Packing(size=32, keyint=4, samples=SHARD)
        return Catalog.open(pack.pack(raw.path, out, packing, workers=1, progress=False).path)


def epoch(catalog: str | Path | Catalog, workers: int = 0, **options: object) -> list[Batch]:
    with AVLoader(catalog, CONFIG, batch_size=BATCH, workers=workers, seed=3, **options) as loader:  # type: ignore[arg-type]
        return list(loader)


def same(ours: list[Batch], theirs: list[Batch]) -> None:
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.valid.all() and torch.equal(mine.sample_id, other.sample_id)
        assert torch.equal(mine.video, other.video) and torch.equal(mine.audio, other.audio)


@pytest.fixture
def url(local: Catalog) -> str:
    return local.path.parent.as_uri()


@pytest.mark.parametrize("workers", [0, 2])
def test_parts_of_remote_shards(
    local: Catalog, url: str, workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    same(epoch(fetched(url, tmp_path), workers), epoch(local))


@pytest.mark.parametrize("workers", [0, 2])
def test_whole_shards_are_fetched_and_kept(local: Catalog, url: str, workers: int, tmp_path: Path) -> None:
    there = epoch(fetched(url, tmp_path), workers, pool=POOL, cache=tmp_path / "cache")
    same(there, epoch(local, pool=POOL))
    copies = [path for path in (tmp_path / "cache" / "shards").iterdir() if "." not in path.name]
    sizes = {path.stat().st_size for path in local.path.parent.glob("*.tar")}
    assert copies and {copy.stat().st_size for copy in copies} <= sizes


def test_a_file_system_in_memory(local: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    memory = fsspec.filesystem("memory")
    memory.put(str(local.path.parent), "/packs/one", recursive=True)
    same(epoch(fetched("memory://packs/one", tmp_path)), epoch(local))


def test_a_pool_shows_every_row_once_and_few_shards_at_a_time(local: Catalog) -> None:
    batches = epoch(local, pool=POOL)
    ids = torch.cat([batch.sample_id for batch in batches]).numpy()
    assert sorted(ids) == sorted(local.ids)
    row = {sample: n for n, sample in enumerate(local.ids.tolist())}
    shards = [
        {int(local.file_numbers[row[i]]) for i in part} for part in np.split(ids, ROWS // (POOL * SHARD))
    ]
    assert all(len(each) == POOL for each in shards)


def test_a_pooled_epoch_goes_on_where_it_was_saved(local: Catalog) -> None:
    whole = epoch(local, pool=POOL)
    loader = AVLoader(local, CONFIG, batch_size=BATCH, workers=0, seed=3, pool=POOL)
    next(iter(loader))
    state = loader.state_dict()
    again = AVLoader(local, CONFIG, batch_size=BATCH, workers=0, seed=3, pool=POOL)
    again.load_state_dict(state)
    same(list(again), whole[1:])


def test_the_command_line_takes_a_pack_by_folder_or_url(
    local: Catalog, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert _catalog_of(local.path.parent) == local.path
    catalog = Catalog.open(_catalog_of(url))
    assert catalog.path.is_relative_to(tmp_path) or not catalog.path.is_absolute()
    assert catalog.fingerprint == local.fingerprint
    assert {name.rpartition("/")[0] for name in catalog.file_names} == {url}


def test_what_is_no_pack_is_refused(local: Catalog, tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="cannot be fetched"):
        fetched((tmp_path / "nothing").as_uri(), tmp_path)
    raw = write(tmp_path / "catalog.parquet", [recording(local.path.parent.parent / "film.mkv")])
    with pytest.raises(CatalogError, match="not the catalog of a pack"):
        fetched(raw.path.as_uri(), tmp_path)


def test_a_cache_needs_a_pool(local: Catalog, tmp_path: Path) -> None:
    with pytest.raises(LoaderError, match="needs a pool"):
        epoch(local, cache=tmp_path)
