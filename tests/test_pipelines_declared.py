"""What opens without probing decodes as if it had been probed; what does not is found out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from media import write_clip

from coaug.pipelines.declared import declared
from coaug.pipelines.media import Deadline, audio_rate, open_media, read_audio
from coaug.pipelines.probe import Probe, probe

BOTH, SOUND, NEITHER = {"video", "audio"}, {"audio"}, set[str]()
FILMS: dict[str, tuple[dict[str, Any], set[str]]] = {  # name -> how it is made, what its header declares
    "h264.mp4": ({"b_frames": 3, "gop": 40}, BOTH),
    "late.mp4": ({"b_frames": 2, "gop": 20, "start": 0.5}, BOTH),
    "hevc.mp4": ({"codec": "libx265", "options": {"x265-params": "log-level=none"}}, BOTH),
    "vp9.webm": ({"codec": "libvpx-vp9"}, BOTH),
    "vp8.webm": ({"codec": "libvpx"}, BOTH),
    # the decoder learns from pictures that they are reordered, Matroska's decoding times follow from that
    "mpeg4.mp4": ({"codec": "mpeg4", "b_frames": 2}, SOUND),
    "h264.mkv": ({"codec": "libx264", "b_frames": 3, "gop": 40}, SOUND),
    "xvid.avi": ({}, NEITHER),
    "h264.ts": ({}, NEITHER),
}


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("films")
    return {name: write_clip(folder / name, **how).path for name, (how, _) in FILMS.items()}


@pytest.mark.parametrize("name", FILMS)
def test_what_headers_declare(films: dict[str, Path], name: str) -> None:
    assert declared(str(films[name])) == FILMS[name][1]


@pytest.mark.parametrize("name", FILMS)
def test_the_catalog_knows(films: dict[str, Path], name: str) -> None:
    found = probe(str(films[name]))
    assert isinstance(found, Probe)
    streams = {"video": found.video, "audio": found.audio}
    assert {kind for kind, stream in streams.items() if stream and stream.declared} == FILMS[name][1]
    assert found.video is not None
    assert found.video.pixel_format == "yuv420p"


@pytest.mark.parametrize(
    ("name", "kind"), [(name, kind) for name in FILMS for kind in sorted(FILMS[name][1])]
)
def test_declared_streams_decode_alike(films: dict[str, Path], name: str, kind: str) -> None:
    """Every picture and sample of the file, and when it is due."""
    probed, unprobed = (whole(films[name], kind, probe) for probe in (True, False))
    assert [pts for pts, _ in probed] == [pts for pts, _ in unprobed]
    assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(probed, unprobed, strict=True))


@pytest.mark.parametrize(
    ("codec", "audio_codec"),
    [("libvpx-vp9", "aac"), ("mpeg4", "alac"), ("mjpeg", "pcm_s16le"), ("libx264", "flac")],
)
def test_sound_deep_in_matroska_needs_no_probing(tmp_path: Path, codec: str, audio_codec: str) -> None:
    """Where its packets stand, the file says of pictures only; the rest FFmpeg learns on opening."""
    path = write_clip(tmp_path / "film.mkv", frames=420, codec=codec, audio_codec=audio_codec).path
    assert "audio" in declared(str(path))
    for seconds in (0.0, 3.3, 7.0, 12.9):
        heard = []
        for probed in (True, False):
            with open_media(path, Deadline(30.0), probe=probed) as container:
                first = round(seconds * audio_rate(container))
                heard.append(read_audio(container, first, first + 5000, Deadline(30.0)))
        assert heard[0].any()
        assert np.array_equal(*heard)


def whole(path: Path, kind: str, probe: bool) -> list[tuple[int, np.ndarray]]:
    with open_media(path, Deadline(30.0), probe=probe) as container:
        return [(frame.pts, frame.to_ndarray()) for frame in container.decode(**{kind: 0})]


def test_what_cannot_be_opened_declares_nothing(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no film")
    assert declared(str(tmp_path / "text.mp4")) == NEITHER
    assert declared(str(tmp_path / "absent.mp4")) == NEITHER
