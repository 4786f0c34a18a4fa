"""Media files read by the lists of their packets, and by nothing else."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from coaug.pipelines.catalog import Catalog
from coaug.pipelines.listed import ListedFile
from coaug.pipelines.listings import SUFFIX, Listings, ListingsFile
from coaug.pipelines.media import Deadline
from coaug.pipelines.packed.index import Sample
from coaug.pipelines.probe import probe_json


def listed(path: Path, database: Path) -> Sample | None:
    """The list that indexing makes of the file at `path`, out of the database."""
    row = probe_json(str(path)).get("packets")
    with ListingsFile(database) as listings:
        listings.add(str(path), path.stat().st_size, row)
    return Listings(database).sample(str(path), path.stat().st_size)


def list_files(catalog: Catalog) -> Catalog:
    """The same catalog, with the lists of its files beside it."""
    with ListingsFile(catalog.path.with_suffix(SUFFIX)) as listings:
        for path in {recording.path for recording in catalog}:
            listings.add(path, Path(path).stat().st_size, probe_json(path).get("packets"))
    return catalog


@contextmanager
def reading(path: Path, sample: Sample) -> Iterator[ListedFile]:
    """The file; whatever would be read through its container fails the test."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield ListedFile(sample, descriptor, Deadline(10.0), _no_container)
    finally:
        os.close(descriptor)


def _no_container() -> Any:
    pytest.fail("the container was opened")
