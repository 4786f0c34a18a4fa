"""Reading a file: sound in its place, smaller pictures, failures that say why. (Exactness: test_pipelines_exact_*.)"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from media import Clip, write_clip

from coaug.pipelines.media import Deadline, MediaError, audio_rate, open_media, read_audio, read_frames
from coaug.pipelines.planes import Cutter


def window(path: Path, first: int, last: int) -> np.ndarray:
    deadline = Deadline(10.0)
    with open_media(path, deadline) as container:
        return read_audio(container, first, last, deadline)


def test_sound_that_starts_late_is_in_its_place(media_dir: Path) -> None:
    """A click at 2 s of presentation time is found at 2 s whatever the track's start time."""
    for suffix in (".mp4", ".mkv", ".webm", ".mov"):
        clip = write_clip(
            media_dir / f"late-sound{suffix}",
            frames=90,
            audio_start=0.7,
            audio_seconds=2.0,
            sound=lambda t: 0.9 * np.sin(2 * np.pi * 2000 * t) * (t >= 2.0),
        )
        with open_media(clip.path, Deadline(10.0)) as container:
            rate = audio_rate(container)
        heard = np.flatnonzero(np.abs(window(clip.path, 0, 3 * rate)) > 0.3)[0] / rate
        assert heard == pytest.approx(2.0, abs=0.003), suffix


# --- pictures


def test_frames_can_be_made_smaller(mp4: Clip) -> None:
    with open_media(mp4.path, Deadline(10.0)) as container:
        found = read_frames(container, np.array([1.0]), Deadline(10.0), Cutter(size=(48, 32)))
    assert found.pixels.shape == (1, 48, 48)


# --- failures


def test_what_cannot_be_opened_says_why(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("nothing to see")
    for name in ("missing.mp4", "empty.mp4", "text.mp4", "."):
        with pytest.raises(MediaError) as caught:
            open_media(tmp_path / name, Deadline(5.0))
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) > 5


def test_a_named_pipe_is_refused(tmp_path: Path) -> None:
    """Opening one would wait for a writer for ever, and FFmpeg's time limit does not reach into the system call."""
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(MediaError, match="regular file"):
        open_media(tmp_path / "pipe.mp4", Deadline(1.0))


def test_the_deadline_ends_reading(mp4: Clip) -> None:
    deadline = Deadline(10.0)
    with open_media(mp4.path, deadline) as container:
        deadline.end = 0.0  # long past
        with pytest.raises(MediaError, match="deadline of 10 s"):
            read_frames(container, np.array([1.0]), deadline)
        with pytest.raises(MediaError, match="deadline of 10 s"):
            read_audio(container, 0, 1000, deadline)


def test_a_truncated_file_gives_what_it_has_or_says_so(webm: Clip, tmp_path: Path) -> None:
    """Every prefix either yields pictures of the right time or raises MediaError; nothing else comes out."""
    data = webm.path.read_bytes()
    pts = np.array([float(t) for t in webm.pts])
    for share in (0.02, 0.1, 0.3, 0.6, 0.9):
        (tmp_path / "cut.webm").write_bytes(data[: int(len(data) * share)])
        try:
            with open_media(tmp_path / "cut.webm", Deadline(5.0)) as container:
                found = read_frames(container, np.array([0.5, 2.5]), Deadline(5.0))
        except MediaError:
            continue
        assert np.isin(found.pts.round(3), pts.round(3)).all()
