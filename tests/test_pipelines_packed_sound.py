"""Sound out of a shard is, bit for bit, a full decode of the shard's own .flac or .wav member by libsndfile, and the
source's but for rounding to 16 bits."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from catalogs import recording
from media import write_sound
from packs import members, opened, told, write
from test_pipelines_exact_audio import expected
from test_pipelines_exact_audio import whole as whole_sound

from coaug.pipelines.media import Deadline
from coaug.pipelines.packed import extract
from coaug.pipelines.packed.sample import packed
from coaug.pipelines.packed.settings import Packing

WINDOWS = 24
PART = (0.61, 1.37)  # seconds: within a track
SOUNDS: dict[str, tuple[str, str, int, str, dict[str, Any]]] = {  # encoder, sample format, rate, layout, how
    "aac.mp4": ("aac", "fltp", 44100, "stereo", {}),
    "aac-late.mkv": ("aac", "fltp", 22050, "mono", {"start": 1.2345}),
    "opus.webm": ("libopus", "flt", 48000, "mono", {}),
    "flac.flac": ("flac", "s16", 44100, "mono", {}),
    "pcm-u8.wav": ("pcm_u8", "u8", 8000, "mono", {}),
    "pcm-f32.wav": ("pcm_f32le", "flt", 32000, "5.1", {}),
}
MEMBER = {"flac": "flac", "pcm": "wav"}


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("sounds")
    for name, (*form, how) in SOUNDS.items():
        write_sound(folder / name, *form, **({"seconds": 2.5} | how))
    return {name: folder / name for name in SOUNDS}


def spans(rate: int, first: int, length: int) -> list[tuple[int, int]]:
    """Of all lengths up to a second: anywhere, across both ends, outside, a single sample."""
    rng = np.random.default_rng(0)
    begins = first + rng.integers(-rate // 3, length, WINDOWS)
    asked = [(int(a), int(a + n)) for a, n in zip(begins, rng.integers(1, rate, WINDOWS), strict=True)]
    return [
        *asked,
        (first, first + 1),
        (first - 2 * rate, first - rate),
        (first + length, first + length + 9),
    ]


@pytest.mark.parametrize("part", [None, PART], ids=["whole", "part"])
@pytest.mark.parametrize("how", MEMBER)
@pytest.mark.parametrize("name", SOUNDS)
def test_sound_is_that_of_a_full_decode(
    sounds: dict[str, Path], tmp_path: Path, name: str, how: str, part: Any
) -> None:
    """Of the member bit for bit, of the source but for rounding to 16 bits, half a second beyond the ends as well."""
    source = recording(sounds[name])
    if part is not None:
        source = replace(source, start=source.start + part[0], end=source.start + part[1])
    shard = write(tmp_path / "00000.tar", [source], Packing(audio=how))
    ((_, sample),) = members(shard).items()
    pcm, rate = soundfile.read(io.BytesIO(sample[MEMBER[how]]), dtype="float32")
    first = round(told(sample)["audio"]["start"] * rate)
    media, reference = opened(shard), whole_sound(sounds[name])
    assert (rate, media.rate) == (reference[0], reference[0])
    for low, high in spans(rate, first, len(pcm)):
        heard = media.sound(low, high)
        assert np.array_equal(heard, expected((rate, first, pcm), low, high)), (low, high)
    low, high = (round(rate * seconds) for seconds in (source.start - 0.5, source.end + 0.5))
    error = np.abs(media.sound(low, high) - expected(reference, low, high))
    assert error.max() <= 0.5 / 32768 + 1e-6
    assert np.abs(pcm).max() > 0.05


@pytest.mark.parametrize("name", ["aac.mp4", "opus.webm", "pcm-f32.wav"])
def test_sound_in_many_pieces_is_that_of_one(
    sounds: dict[str, Path], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    whole_sound = packed(recording(sounds[name]), "", Packing(), Deadline(60.0))
    monkeypatch.setattr(extract, "PIECE", 0.43)
    assert packed(recording(sounds[name]), "", Packing(), Deadline(60.0)) == whole_sound


def test_what_is_too_loud_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "loud.wav"
    soundfile.write(path, np.linspace(-2, 2, 20000, dtype=np.float32), 16000, subtype="FLOAT")
    heard = opened(write(tmp_path / "00000.tar", [recording(path)], Packing())).sound(0, 20000)
    np.testing.assert_allclose(heard, np.clip(np.linspace(-2, 2, 20000), -1, 1), atol=1 / 32768)
