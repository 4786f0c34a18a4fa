from fractions import Fraction

import numpy as np
import pytest
from media import burn, flash_and_beep, read_audio, read_frames, read_number, write_clip

FILES = {
    "h264.mp4": {},
    "h264b.mp4": {"b_frames": 2, "gop": 30},
    "ntsc.mp4": {"fps": Fraction(30000, 1001), "b_frames": 2},
    "hevc.mp4": {"codec": "libx265", "options": {"x265-params": "log-level=error"}},
    "mpeg4.avi": {},
    "mjpeg.avi": {"codec": "mjpeg", "audio_codec": "pcm_s16le"},
    "vp9.webm": {},
    "vp8.webm": {"codec": "libvpx"},
    "vfr.mp4": {"vfr": True, "b_frames": 2},
    "vfr.mkv": {"vfr": True},
    "late.mp4": {"start": 1.4, "b_frames": 2},
    "late.mkv": {"start": 2.0, "fps": 25},
    "late.webm": {"start": 1.0},
    "turned.mp4": {"rotation": 90},
    "upside.mov": {"rotation": 180},
    "left.mp4": {"rotation": 270},
    "odd.mp4": {"size": (98, 66), "channels": 2, "audio_rate": 22050},
}


@pytest.mark.parametrize("name", FILES)
def test_numbers_and_times_survive_coding(name, tmp_path):
    clip = write_clip(tmp_path / name, frames=40, **FILES[name])
    frames = read_frames(clip.path)
    assert [read_number(picture) for _, picture in frames] == list(range(40))
    assert [time for time, _ in frames] == list(clip.pts)


@pytest.mark.parametrize(
    "name", ["a.mp4", "a.mkv", "a.webm", "a.avi", "a.wav", "a.flac", "a.mp3", "a.m4a", "a.ogg"]
)
def test_sound_is_where_it_was_put(name, tmp_path):
    clip = write_clip(tmp_path / name, sound=flash_and_beep()[1], frames=60)
    start, rate, pcm = read_audio(clip.path)
    onsets = start + np.flatnonzero((np.abs(pcm) > 0.2) & (np.arange(len(pcm)) / rate + start < 1)) / rate
    assert abs(onsets[0] - 0.5) < 0.06
    assert len(pcm) / rate == pytest.approx(2.0, abs=0.1)


def test_late_sound_starts_late(tmp_path):
    clip = write_clip(tmp_path / "late.mp4", start=1.4, frames=30)
    assert read_audio(clip.path)[0] == pytest.approx(1.4, abs=0.03)


def test_flash_starts_with_the_beep(events):
    bright = [float(time) for time, picture in read_frames(events.path) if picture.mean() > 128]
    start, rate, pcm = read_audio(events.path)
    loud = start + np.flatnonzero(np.abs(pcm) > 0.4) / rate
    for second in np.arange(0.5, 6.0):
        assert min(t for t in bright if t > second - 0.1) == pytest.approx(second)
        assert min(t for t in loud if t > second - 0.1) == pytest.approx(second, abs=0.01)


@pytest.mark.parametrize("number", [0, 1, 77, 2048, 4095])
def test_numbers_survive_scaling_and_normalising_but_not_mirroring(number):
    picture = burn(number, (320, 240))
    assert read_number(picture[::8, ::8]) == number
    assert read_number((picture.transpose(2, 0, 1) / 255.0 - 0.45) / 0.225) == number
    assert read_number(picture[:, ::-1]) is None
    assert read_number(np.zeros((64, 96, 3), np.uint8)) is None


def test_numbers_too_large_are_refused():
    with pytest.raises(ValueError, match="4096"):
        burn(4096)
