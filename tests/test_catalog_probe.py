"""One file -> what it really holds, or the reason why not."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from media import CODECS, read_audio, silence, tone, write_clip, write_sound

from coaug.pipelines.probe import Probe, Reject, from_json, probe, probe_json

NAMES = {"libx264": "h264", "libvpx-vp9": "vp9", "libmp3lame": "mp3", "libopus": "opus"}
AUDIO_ONLY = [suffix for suffix, codecs in CODECS.items() if codecs[0] is None]


def found(path):
    result = probe(str(path))
    assert isinstance(result, Probe), result
    return result


def test_no_noise_is_printed(tmp_path, capfd):
    bad = tmp_path / "noise.mp4"
    bad.write_bytes(b"\x00\x00\x00\x20ftypisom" + bytes(range(256)) * 20)
    probe(str(bad))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("suffix", [suffix for suffix in CODECS if suffix not in AUDIO_ONLY])
def test_streams_are_described(suffix, tmp_path):
    clip = write_clip(tmp_path / f"x{suffix}", size=(112, 64), fps=25, frames=50, channels=2)
    result = found(clip.path)
    video, audio = (NAMES.get(name, name) for name in CODECS[suffix])
    assert (result.video.codec, result.audio.codec) == (video, audio)
    assert (result.video.width, result.video.height, result.video.rotation) == (112, 64, 0)
    assert (result.video.fps, result.video.vfr, result.video.start) == (25.0, False, 0.0)
    assert result.video.duration == pytest.approx(2.0, abs=0.002)
    assert (result.audio.channels, result.audio.rate) == (2, 48000 if audio == "opus" else 44100)
    assert result.audio.duration == pytest.approx(2.0, abs=0.06)
    assert from_json(probe_json(str(clip.path))) == result


@pytest.mark.parametrize("suffix", AUDIO_ONLY)
def test_sound_alone(suffix, tmp_path):
    clip = write_clip(tmp_path / f"x{suffix}", sound=tone(440, 0.1), frames=60)
    result = found(clip.path)
    start, rate, pcm = read_audio(clip.path)
    assert (result.video, result.no_video) == (None, "no picture")
    assert result.audio.level_db == pytest.approx(20 * np.log10(0.1 / np.sqrt(2)), abs=1.0)
    assert (result.audio.start, result.audio.duration) == pytest.approx((start, len(pcm) / rate), abs=1e-6)


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_rotation_is_the_clockwise_turn_for_display(rotation, tmp_path):
    video = found(write_clip(tmp_path / "x.mov", rotation=rotation, frames=12).path).video
    assert (video.width, video.height, video.rotation) == (96, 64, rotation)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
@pytest.mark.parametrize("fps", [10, 24, Fraction(30000, 1001), 60])
@pytest.mark.parametrize("vfr", [False, True])
def test_irregular_frames_are_told_from_rounded_times(suffix, fps, vfr, tmp_path):
    clip = write_clip(tmp_path / f"x{suffix}", fps=fps, vfr=vfr, frames=40, audio_codec=None)
    video = found(clip.path).video
    assert video.vfr is vfr
    mean = 39 / float(clip.pts[-1] - clip.pts[0])
    assert video.fps == pytest.approx(mean if vfr else float(fps), rel=1e-9)


def test_a_single_dropped_frame_makes_a_file_irregular(tmp_path):
    path = tmp_path / "x.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for index in set(range(60)) - {33}:
            frame = av.VideoFrame(96, 64, "yuv420p")
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert found(path).video.vfr


@pytest.mark.parametrize("b_frames", [0, 2])
def test_each_stream_has_its_own_start(b_frames, tmp_path):
    clip = write_clip(tmp_path / "x.mkv", start=1.5, audio_start=2.5, frames=60, b_frames=b_frames)
    result = found(clip.path)
    assert (result.video.start, result.video.duration) == pytest.approx((1.5, 2.0), abs=0.002)
    assert result.audio.start == pytest.approx(2.5, abs=0.03)
    assert result.audio.start == pytest.approx(read_audio(clip.path)[0], abs=1e-6)


def test_silence_is_heard_not_read(tmp_path):
    assert found(write_clip(tmp_path / "a.mp4", sound=silence, frames=30).path).no_audio == "silent"
    assert found(write_clip(tmp_path / "b.mp4", sound=tone(300, 2e-4), frames=30).path).no_audio == "silent"
    assert found(write_clip(tmp_path / "c.mp4", sound=tone(300, 5e-3), frames=30).path).audio.level_db > -60
    assert found(write_clip(tmp_path / "d.mp4", audio_codec=None, frames=30).path).no_audio == "no sound"


def test_opposite_channels_cancel(tmp_path):
    path = tmp_path / "x.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="stereo")
        wave = np.sin(np.arange(8000) / 3).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(np.stack([wave, -wave]), format="fltp", layout="stereo")
        frame.sample_rate, frame.pts = 8000, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert probe(str(path)).reason == "silent"


def test_a_single_sound_in_a_long_file_is_found(tmp_path):
    clip = write_clip(
        tmp_path / "x.mp4", frames=5, audio_seconds=90, audio_rate=16000,
        sound=lambda t: 0.5 * np.sin(2000 * t) * ((t > 71.3) & (t < 71.6)),
    )  # fmt: skip
    audio = found(clip.path).audio
    assert audio.level_db == pytest.approx(-9, abs=0.5)
    assert audio.duration == pytest.approx(90, abs=0.1)


@pytest.mark.parametrize("suffix", [".avi", ".mkv", ".webm"])
def test_cut_off_files_are_as_long_as_what_is_left(suffix, tmp_path):
    clip = write_clip(tmp_path / f"x{suffix}", frames=300)
    whole = found(clip.path)
    data = clip.path.read_bytes()
    clip.path.write_bytes(data[: len(data) // 2])
    cut = found(clip.path)
    with av.open(str(clip.path)) as container:
        try:
            last = max(float(frame.time) for frame in container.decode(video=0))
        except av.FFmpegError:
            pytest.fail("the reference cannot read the cut file")
    assert 3.0 < cut.video.duration < 7.5 < whole.video.duration
    assert cut.video.start + cut.video.duration == pytest.approx(last + 1 / 30, abs=0.07)
    assert 3.0 < cut.audio.duration < 7.5


def test_a_cut_off_mp4_with_its_index_in_front(tmp_path):
    clip = write_clip(tmp_path / "slow.mp4", frames=300)
    with (
        av.open(str(clip.path)) as source,
        av.open(str(tmp_path / "x.mp4"), "w", options={"movflags": "faststart"}) as target,
    ):
        streams = {s.index: target.add_stream_from_template(s) for s in source.streams}
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream_index]
                target.mux(packet)
    data = (tmp_path / "x.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    (tmp_path / "x.mp4").write_bytes(data[: len(data) * 6 // 10])
    cut = found(tmp_path / "x.mp4")
    assert 3.0 < cut.video.duration < 7.5
    assert 3.0 < cut.audio.duration < 7.5


def bad_files(folder):
    """Name -> (file, reason) of everything that is not a recording."""
    folder.mkdir(exist_ok=True)
    whole = write_clip(folder / "whole.mp4", frames=30).path
    data = whole.read_bytes()
    whole.unlink()
    middle = data.index(b"mdat") + 4
    end = data.index(b"moov") - 4
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("this is no video\n" * 50)
    (folder / "noise.webm").write_bytes(np.random.default_rng(0).bytes(4000))
    (folder / "cut.mp4").write_bytes(data[: len(data) // 2])
    (folder / "zeros.mp4").write_bytes(data[:middle] + bytes(end - middle) + data[end:])
    (folder / "dangling.mp4").symlink_to(folder / "nowhere.mp4")
    return {
        "empty.mp4": "empty file",
        "text.mp4": "not a media file, or cut off before its index",
        "noise.webm": "not a media file, or cut off before its index",
        "cut.mp4": "not a media file, or cut off before its index",
        "zeros.mp4": "picture cannot be decoded and sound cannot be decoded",
        "dangling.mp4": "cannot be read",
    }


def test_bad_files_have_a_reason(tmp_path):
    reasons = bad_files(tmp_path / "bad")
    assert {name: probe(str(tmp_path / "bad" / name)).reason for name in reasons} == reasons


def test_folders_pipes_and_forbidden_files_have_a_reason(tmp_path, monkeypatch):
    import os

    os.mkfifo(tmp_path / "pipe.mp4")
    assert probe(str(tmp_path)) == Reject(str(tmp_path), "not a regular file", "a folder")
    assert probe(str(tmp_path / "pipe.mp4")).reason == "not a regular file"
    (tmp_path / "x.mp4").write_bytes(b"x")

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("coaug.pipelines.probe.open", refuse, raising=False)  # the tests may run as root
    assert probe(str(tmp_path / "x.mp4")).reason == "cannot be read"


def test_a_cover_picture_is_no_video(tmp_path):
    path = tmp_path / "x.mp3"
    with av.open(str(path), "w") as container:
        sound = container.add_stream("libmp3lame", rate=44100, layout="mono")
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 64, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        container.mux(cover.encode(av.VideoFrame(64, 64, "yuvj420p")))
        container.mux(cover.encode(None))
        for start in range(0, 44100, 1152):
            wave = np.sin(np.arange(start, start + 1152) / 9).astype(np.float32)[None]
            frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 44100, start
            container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    with av.open(str(path)) as container:
        assert len(container.streams.video) == 1
    result = found(path)
    assert (result.video, result.no_video) == (None, "no picture")
    assert result.audio is not None


@pytest.mark.parametrize(("codec", "form", "suffix"), [("aac", "fltp", ".mp4"), ("libopus", "flt", ".mkv")])
def test_eight_channels_are_heard(tmp_path: Path, codec: str, form: str, suffix: str) -> None:
    """Their mean; PyAV's own arrays of eight planes read a ninth, and crash."""
    found = probe(str(write_sound(tmp_path / f"eight{suffix}", codec, form, 48000, "7.1", seconds=2.0)))
    assert isinstance(found, Probe)
    assert found.audio is not None
    assert found.audio.channels == 8
    assert -40 < found.audio.level_db < -10
