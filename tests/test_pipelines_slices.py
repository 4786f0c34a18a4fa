"""A slice costs what it shows. (That it shows the right pictures: test_pipelines_exact_video.)"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from media import write_clip

from coaug.pipelines.media import Deadline, MediaError, open_media
from coaug.pipelines.slices import Slice, cut

KINDS = {"vp9.webm": "libvpx-vp9", "vp8.webm": "libvpx", "mjpeg.mkv": "mjpeg"}


@pytest.fixture(scope="module")
def sliced(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("slices")
    for name, codec in KINDS.items():
        write_clip(folder / name, frames=70, audio_codec=None, codec=codec)
    return {name: folder / name for name in KINDS}


def sliced_at(path: Path, instants: np.ndarray) -> Slice:
    with open_media(path, Deadline(10.0)) as container:
        return cut(container, instants, Deadline(10.0))


@pytest.mark.parametrize("name", KINDS)
def test_a_slice_costs_what_it_shows(sliced: dict[str, Path], name: str) -> None:
    part = sliced_at(sliced[name], np.array([62 / 30]))
    assert len(part.data) < sliced[name].stat().st_size / 3
    assert part.index.tolist() == [0]


def test_two_moments_cost_two_groups(sliced: dict[str, Path]) -> None:
    """Key frames at 0, 12, 24 ...: frames 14 and 62 need 12-14 and 60-62, shown as the third and sixth."""
    part = sliced_at(sliced["vp9.webm"], np.array([14, 62, 14]) / 30 + 0.01)
    assert part.decoded == 6
    assert part.wanted.tolist() == [2, 5]
    assert part.index.tolist() == [0, 1, 0]


def test_a_deadline_ends_the_cutting(sliced: dict[str, Path]) -> None:
    deadline = Deadline(10.0)
    with open_media(sliced["vp9.webm"], deadline) as container:
        deadline.end = 0.0
        with pytest.raises(MediaError, match="deadline"):
            cut(container, np.array([1.0]), deadline)
