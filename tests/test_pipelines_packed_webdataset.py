"""Shards are WebDataset's: who knows nothing of this project reads them with `webdataset`, FFmpeg and libsndfile."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
import webdataset
from catalogs import recording
from media import read_number, write_clip
from packs import LABELS, write
from torch.utils.data import DataLoader

from coaug.pipelines.catalog import Catalog
from coaug.pipelines.packed.settings import Packing
from coaug.pipelines.recording import Recording, sample_id


def dataset(urls: str | Path) -> Any:
    return webdataset.WebDataset(str(urls), shardshuffle=False).decode()


def frames(content: bytes) -> list[Any]:
    with av.open(io.BytesIO(content)) as container:
        return list(container.decode(video=0))


@pytest.fixture(scope="module")
def samples(pack_folder: Path) -> list[dict[str, Any]]:
    return list(dataset(pack_folder / "{00000..00004}.tar"))


def test_every_recording_is_a_sample(samples: list[dict[str, Any]], packable: list[Recording]) -> None:
    assert len(samples) == len(packable)
    assert {int(sample["__key__"]) for sample in samples} == {row.id for row in packable}
    known = {row.id: row for row in packable}
    for sample in samples:
        said = sample["json"]
        row = known[int(sample["__key__"])]
        assert (said["id"], said["key"], said["split"]) == (row.id, row.key, row.split)
        assert (said["start"], said["end"], said["label"]) == (row.start, row.end, row.label)
        assert said["label_name"] == (LABELS[row.label] if row.label >= 0 else "")
        assert sample_id(said["key"]) == row.id
        assert {name for name in sample if name[0] != "_"} == {"json"} | {
            side["member"] for side in (said.get("video"), said.get("audio")) if side
        }
        assert ("video" in said, "audio" in said) == (row.video is not None, row.audio is not None)


def test_pictures_are_files_with_their_times_beside_them(samples: list[dict[str, Any]]) -> None:
    seen = 0
    for sample in samples:
        if (told := sample["json"].get("video")) is None:
            continue
        decoded = frames(sample["h264"])
        assert len(decoded) == len(told["pts"])
        assert {(frame.width, frame.height) for frame in decoded} == {(told["width"], told["height"])}
        numbers = [read_number(frame.to_ndarray(format="gray")) for frame in decoded]
        assert numbers == [round(pts * 30) for pts in told["pts"]]  # frame n was burnt in at n / 30 s
        assert sample["json"]["start"] <= told["pts"][0] + 1 / 30
        seen += len(decoded)
    assert seen == 6 * 12 + 6  # five films, a silent one and a part of 0.2 s


def test_sound_is_a_file_whose_start_is_told(samples: list[dict[str, Any]]) -> None:
    """A tone of 440 Hz: at t seconds of presentation time its phase is 440 t."""
    heard = 0
    for sample in samples:
        if (told := sample["json"].get("audio")) is None:
            continue
        pcm, rate = soundfile.read(io.BytesIO(sample[told["member"]]))
        assert (rate, pcm.ndim) == (told["rate"], 1)
        t = told["start"] + np.arange(len(pcm)) / rate
        inside = (t > sample["json"]["start"] + 0.05) & (t < sample["json"]["end"] - 0.05)
        phase = np.angle(np.sum(pcm[inside] * np.exp(-2j * np.pi * 440 * t[inside])))
        assert abs(phase + np.pi / 2) < 0.1  # of a sine; a tenth of a radian is 36 microseconds
        heard += 1
    assert heard == 7


KINDS: dict[str, tuple[dict[str, Any], Packing, set[str]]] = {
    "layered": ({}, Packing("layered", 48, audio="pcm"), {"json", "h264", "wav"}),
    "mjpeg": ({}, Packing("mjpeg", 48), {"json", "mjpeg", "flac"}),
    "h264.mp4": ({"b_frames": 2}, Packing("copy"), {"json", "h264", "flac"}),
    "vp9.webm": ({}, Packing("copy"), {"json", "ivf", "flac"}),
    "mpeg4.avi": ({"fps": 25}, Packing("copy"), {"json", "m4v", "flac"}),
    "hevc.mp4": (
        {"codec": "libx265", "options": {"x265-params": "log-level=none"}},
        Packing("copy"),
        {"json", "hevc", "flac"},
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_setting_is_readable(tmp_path: Path, kind: str) -> None:
    how, packing, names = KINDS[kind]
    clip = write_clip(tmp_path / (kind if "." in kind else "x.mp4"), size=(80, 64), frames=12, **how)
    shard = write(tmp_path / "00000.tar", [recording(clip.path)], packing)
    (sample,) = DataLoader(dataset(shard), batch_size=None)
    assert {name for name in sample if name[0] != "_"} == names
    told = sample["json"]
    numbers = [
        read_number(frame.to_ndarray(format="gray")) for frame in frames(sample[told["video"]["member"]])
    ]
    assert numbers == list(range(12))
    assert soundfile.info(io.BytesIO(sample[told["audio"]["member"]])).samplerate == told["audio"]["rate"]


def test_the_catalog_names_the_samples_that_webdataset_reads(
    samples: list[dict[str, Any]], pack_folder: Path
) -> None:
    for row in Catalog.open(pack_folder / "catalog.parquet"):
        (one,) = (sample for sample in samples if int(sample["__key__"]) == row.id)
        assert one["__url__"] == row.path
