"""What a batch shows and sounds like, read back from its tensors: frame numbers, events, spectra, crops."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchaudio
from catalogs import recording, write
from media import Clip, burn, flash_and_beep, read_audio, read_number, tone, write_clip

from coaug.pipelines.batch import Batch
from coaug.pipelines.catalog import Catalog
from coaug.pipelines.config import AudioConfig, DataConfig, VideoConfig, ViewConfig
from coaug.pipelines.loader import AVLoader
from coaug.pipelines.plan import plan

SPEEDS = (1.0, 2.0, 3.0, 4.0)
EACH_WAY = tuple(ViewConfig(f"speed({speed}) | reverse({back})") for back in (0.0, 1.0) for speed in SPEEDS)
WHOLE: dict[str, Any] = {"crop": "resized(1, 1, 0.1, 10)", "flip": 0.0}
PLAIN: dict[str, Any] = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
SHORT = VideoConfig(frames=6, fps=7.5, size=64, **WHOLE, **PLAIN)  # 0.8 s: 3.2 s at speed 4


def batches(catalog: Catalog, config: DataConfig, steps: int = 1, **options: Any) -> list[Batch]:
    options = {"batch_size": len(catalog), "workers": 0, "shuffle": False} | options
    with AVLoader(catalog, config, **options) as loader:
        return [next(iter(loader)) for _ in range(steps)]


FILES: dict[str, dict[str, Any]] = {
    "h264-b.mp4": {"b_frames": 3, "gop": 30},
    "h264-25.mp4": {"fps": 25, "b_frames": 2},
    "h264-ntsc.mp4": {"fps": Fraction(30000, 1001), "b_frames": 2, "gop": 50},
    "h264-vfr.mkv": {"vfr": True, "frames": 80, "b_frames": 2},
    "h264-late.mp4": {"start": 1.4, "b_frames": 3},
    "mpeg4.avi": {"fps": 25},
    "mpeg4-b.mp4": {"codec": "mpeg4", "b_frames": 2, "gop": 40},
    "vp9.webm": {},
    "vp9-vfr.webm": {"vfr": True, "frames": 80},
    "vp9-late.webm": {"start": 1.5},
    "vp9-2997.mkv": {"codec": "libvpx-vp9", "fps": Fraction(2997, 100), "gop": 40},
    "vp8.webm": {"codec": "libvpx", "fps": 25},
    "vp8-vfr.mkv": {"codec": "libvpx", "vfr": True, "frames": 80, "start": 0.7},
    "mjpeg.mkv": {"codec": "mjpeg"},
    "mjpeg-25.avi": {"codec": "mjpeg", "fps": 25},
}


@pytest.fixture(scope="session")
def numbered(media_dir: Path) -> dict[str, Clip]:
    folder = media_dir / "numbered"
    folder.mkdir()
    return {
        name: write_clip(folder / name, audio_codec=None, **({"frames": 120} | options))
        for name, options in FILES.items()
    }


@pytest.fixture(scope="session")
def numbered_catalog(numbered: dict[str, Clip]) -> Catalog:
    folder = next(iter(numbered.values())).path.parent
    return write(folder / "catalog.parquet", (recording(clip.path) for clip in numbered.values()))


@pytest.fixture(scope="session")
def numbered_batches(numbered_catalog: Catalog) -> list[Batch]:
    """Two epochs of all files, every speed in both directions, a moment for each view."""
    config = DataConfig(video=SHORT, views=EACH_WAY, moments="independent", modalities=("video",))
    return batches(numbered_catalog, config, steps=2, decode="graph")


def on_screen(pts: Sequence[Fraction], start: float, speed: float, video: VideoConfig) -> np.ndarray:
    """Numbers of the frames shown at the centres of T equal parts of [start, start + speed · T / fps)."""
    times = np.array([float(t) for t in pts])
    length = speed * video.frames / video.fps
    moments = [start + length * (i + 0.5) / video.frames for i in range(video.frames)]
    return np.array([max(int((times <= moment + 1e-6).sum()) - 1, 0) for moment in moments])


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("epoch", [0, 1])
def test_burnt_in_numbers_at_every_speed_and_direction(
    name: str,
    epoch: int,
    numbered: dict[str, Clip],
    numbered_catalog: Catalog,
    numbered_batches: list[Batch],
) -> None:
    row, clip, batch = list(FILES).index(name), numbered[name], numbered_batches[epoch]
    config = DataConfig(video=SHORT, views=EACH_WAY, moments="independent", modalities=("video",))
    starts = plan(numbered_catalog, config, seed=0, epoch=epoch, rows=np.array([row])).start[0]
    assert bool(batch.valid[row])
    assert batch.video is not None
    for view, (start, speed) in enumerate(zip(starts, SPEEDS * 2, strict=True)):
        expected = on_screen(clip.pts, start, speed, SHORT)[:: 1 if view < 4 else -1]
        shown = [read_number(batch.video[row, view, :, i]) for i in range(SHORT.frames)]
        assert shown == expected.tolist(), (start, speed)
        pts = [float(clip.pts[n]) for n in expected]
        np.testing.assert_allclose(batch.video_pts[row, view], pts, atol=1e-6)
        assert batch.speed[row, view, 0] == speed
        assert batch.direction[row, view, 0] == (1 if view < 4 else -1)


def test_host_and_graph_show_the_same(numbered_catalog: Catalog, numbered_batches: list[Batch]) -> None:
    """Other decoders, conversions and resizes: the pictures differ by rounding and how chroma is interpolated."""
    config = DataConfig(video=SHORT, views=EACH_WAY, moments="independent", modalities=("video",))
    (host,) = batches(numbered_catalog, config, decode="host")
    graph = numbered_batches[0]
    assert torch.equal(host.video_pts, graph.video_pts)
    assert host.video is not None
    assert graph.video is not None
    difference = (host.video - graph.video).abs().flatten(1).amax(1) * 255
    assert difference.max() <= 4, dict(zip(FILES, difference.tolist(), strict=True))


# --- two streams, one clock

EVENTS = DataConfig(
    video=VideoConfig(frames=30, fps=30.0, size=16, **WHOLE, **PLAIN),
    audio=AudioConfig(rate=24000, seconds=1.0, window=0.004, hop=0.001, n_fft=128, mels=12),
    views=EACH_WAY,
    moments="independent",
)
ON, OFF, PERIOD = 0.5, 0.8, 1.0  # seconds of each flash and beep


@pytest.fixture(scope="session")
def event_batches(media_dir: Path) -> list[Batch]:
    folder = media_dir / "events"
    folder.mkdir()
    picture, sound = flash_and_beep(PERIOD, ON, OFF - ON)
    kinds = {
        "a.mp4": {"b_frames": 2},
        "b.webm": {},
        "c.avi": {},
        "d.mkv": {"codec": "mjpeg"},
        "e.mp4": {"start": 1.5},
        "f.webm": {"codec": "libvpx", "start": 2.0},
        "g.mp4": {"fps": 60, "frames": 330, "gop": 100},
    }
    clips = [
        write_clip(folder / name, picture=picture, sound=sound, **({"frames": 165} | kind))
        for name, kind in kinds.items()
    ]
    return batches(write(folder / "catalog.parquet", (recording(c.path) for c in clips)), EVENTS, steps=2)


def edges(on: np.ndarray) -> list[tuple[int, bool]]:
    """(index of the first one after a change, what it changed to)."""
    return [(int(i) + 1, bool(on[i + 1])) for i in np.flatnonzero(np.diff(on.astype(int)))]


def picture_edges(batch: Batch, row: int, view: int) -> list[tuple[float, bool]]:
    """Clip times of changes in brightness: a change is seen between two instants, half a frame to either side."""
    assert batch.video is not None
    frames = EVENTS.video.frames
    return [(i / frames, to) for i, to in edges(batch.video[row, view].mean((0, 2, 3)).numpy() > 0.5)]


def sound_edges(batch: Batch, row: int, view: int) -> list[tuple[float, bool]]:
    """Clip times of changes in energy, from windows' centres."""
    assert batch.audio is not None
    audio = EVENTS.audio
    level = (batch.audio[row, view, 0] * audio.std + audio.mean).numpy().max(axis=0)
    return [(i * audio.hop + audio.window / 2, to) for i, to in edges(level > level.max() - 12)]


@pytest.mark.parametrize("view", range(8))
def test_flash_and_beep_coincide_within_half_a_frame(event_batches: list[Batch], view: int) -> None:
    half, blur = 0.5 / EVENTS.video.fps, EVENTS.audio.window
    seen = 0
    for batch in event_batches:
        for row in range(len(batch)):
            heard = sound_edges(batch, row, view)
            for moment, to in picture_edges(batch, row, view):
                near = min(abs(moment - at) for at, kind in heard if kind == to)
                assert near <= half + blur, (row, moment, to, heard)
                seen += 1
    assert seen >= len(event_batches) * len(event_batches[0])


@pytest.mark.parametrize("view", range(8))
def test_pts_say_when_the_event_was(event_batches: list[Batch], view: int) -> None:
    """Both clocks, read at an edge, give the moment at which the file's event begins or ends."""
    speed, back = SPEEDS[view % 4], view >= 4
    for batch in event_batches:
        for row in range(len(batch)):
            for moment, to in picture_edges(batch, row, view):
                shown = batch.video_pts[row, view, round(moment * EVENTS.video.frames) - 1 :][:2]
                event = ON if to != back else OFF
                early, late = sorted(((float(t) - event + 0.5) % PERIOD - 0.5) for t in shown)
                assert early < 1e-3
                assert late > -1e-3
            first, last = batch.audio_pts[row, view].tolist()
            assert (last - first) == pytest.approx((-speed if back else speed) * (1 - 1 / 24000), abs=1e-9)
            for moment, to in sound_edges(batch, row, view):
                event = ON if to != back else OFF
                at = first + (last - first) * moment
                assert abs((at - event + 0.5) % PERIOD - 0.5) < 0.006 * speed, (row, at)


# --- sound


@pytest.fixture(scope="session")
def sounds(media_dir: Path) -> dict[str, Clip]:
    folder = media_dir / "sounds"
    folder.mkdir()
    noise = np.random.default_rng(0).standard_normal(48000 * 8)

    def rustle(t: np.ndarray) -> np.ndarray:
        """Sweep and noise: no two windows and no two bands alike."""
        sweep = 0.3 * np.sin(2 * np.pi * (200 + 400 * t) * t)
        return np.asarray(sweep + 0.05 * np.interp(t, np.arange(len(noise)) / 48000, noise))

    return {
        "tone": write_clip(folder / "tone.wav", frames=150, sound=tone(500.0), audio_rate=24000),
        "rustle": write_clip(folder / "rustle.wav", frames=150, sound=rustle, audio_rate=24000),
        "fine": write_clip(folder / "fine.wav", frames=150, sound=rustle, audio_rate=44100),
    }


DEFAULT = AudioConfig()


def listen(clip: Clip, views: tuple[ViewConfig, ...], audio: AudioConfig = DEFAULT) -> Batch:
    catalog = write(clip.path.with_suffix(".parquet"), [recording(clip.path)])
    (batch,) = batches(catalog, DataConfig(audio=audio, views=views, modalities=("audio",)))
    return batch


def decibels(batch: Batch, view: int, audio: AudioConfig = DEFAULT) -> np.ndarray:
    assert batch.audio is not None
    return np.asarray(batch.audio[0, view, 0].double() * audio.std + audio.mean)


def first_sample(batch: Batch, view: int, rate: int) -> int:
    """Index at `rate` of the sample at which a view's window begins (audio_pts are centres)."""
    start = batch.audio_pts[0, view].min().item() - 0.5 * batch.speed[0, view, 1].item() / rate
    return round(start * rate)


def reference_mel(pcm: np.ndarray, audio: AudioConfig = DEFAULT) -> np.ndarray:
    """log-mel of whole windows: periodic Hann, the power of the unnormalised FFT, Slaney's mel scale and
    normalisation (librosa's defaults, torchaudio's "slaney")."""
    window, hop = round(audio.rate * audio.window), round(audio.rate * audio.hop)
    frames = np.lib.stride_tricks.sliding_window_view(pcm.astype(np.float64), window)[::hop]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    power = np.abs(np.fft.rfft(frames * hann, audio.n_fft)) ** 2
    bank = torchaudio.functional.melscale_fbanks(
        audio.n_fft // 2 + 1, 0.0, audio.rate / 2, audio.mels, audio.rate, norm="slaney", mel_scale="slaney"
    )
    mel = power @ bank.double().numpy()
    return np.asarray(10 * np.log10(np.maximum(mel.T, 10 ** (audio.floor_db / 10))))


def assert_close(ours: np.ndarray, theirs: np.ndarray, within: float, depth: float = 60) -> None:
    """Equal to `within` decibels wherever the reference is no more than `depth` below its peak."""
    assert ours.shape == theirs.shape
    loud = theirs > theirs.max() - depth
    assert loud.mean() > 0.5
    assert np.abs(ours - theirs)[loud].max() < within


def test_log_mel_is_that_of_librosa_and_torchaudio(sounds: dict[str, Clip]) -> None:
    batch = listen(sounds["rustle"], (ViewConfig(),))
    pcm = read_audio(sounds["rustle"].path)[2]
    first = first_sample(batch, 0, 24000)
    assert_close(decibels(batch, 0), reference_mel(pcm[first : first + 24000]), 0.01)


def test_silence_is_the_floor(media_dir: Path) -> None:
    loud_end = write_clip(
        media_dir / "half.wav", frames=120, sound=lambda t: 0.5 * (t > 3.9), audio_rate=24000
    )
    batch = listen(loud_end, (ViewConfig(),), AudioConfig(seconds=3.0))
    assert decibels(batch, 0).min() == pytest.approx(-80.0, abs=1e-4)


def test_reversed_sound_is_the_sound_reversed(sounds: dict[str, Clip]) -> None:
    batch = listen(sounds["rustle"], (ViewConfig(), ViewConfig("reverse(1)")))
    pcm = read_audio(sounds["rustle"].path)[2]
    first = first_sample(batch, 0, 24000)
    assert first == first_sample(batch, 1, 24000)
    assert batch.audio_pts[0, 0].tolist() == pytest.approx(batch.audio_pts[0, 1].tolist()[::-1], abs=1e-9)
    assert_close(decibels(batch, 1), reference_mel(pcm[first : first + 24000][::-1]), 0.01)


PACES = [(s, back) for back in (0, 1) for s in (1.0, 1.5, 2.0, 4.0)]
LIBRARY = tuple(ViewConfig(f"speed({s}) | reverse({back})") for s, back in PACES)


def test_speed_moves_a_tone(sounds: dict[str, Clip]) -> None:
    audio = AudioConfig(window=0.08, hop=0.02, n_fft=2048, mels=128)
    batch = listen(sounds["tone"], LIBRARY, audio)
    centres = [
        reference_mel(0.5 * np.sin(2 * np.pi * 500 * s * np.arange(24000) / 24000), audio)
        for s in (1.0, 1.5, 2.0, 4.0)
    ]
    for view in range(8):
        ours, theirs = decibels(batch, view, audio), centres[view % 4]
        assert (ours.argmax(axis=0) == theirs.argmax(axis=0)).all()
        assert np.abs(ours.max(axis=0) - theirs.max(axis=0)).max() < 0.1  # and as loud as it was


def test_speed_is_resampling(sounds: dict[str, Clip]) -> None:
    """Against torchaudio's windowed sinc, below 10 kHz: the transition bands of the two filters differ."""
    batch = listen(sounds["fine"], LIBRARY)
    pcm = torch.from_numpy(read_audio(sounds["fine"].path)[2])
    for view, (factor, back) in enumerate(PACES):
        played = torchaudio.functional.resample(
            pcm, round(44100 * factor), 24000, lowpass_filter_width=64, rolloff=0.99
        ).numpy()
        start = batch.audio_pts[0, view].min().item() - 0.5 * factor / 24000
        first = round(start / factor * 24000)
        expected = played[first : first + 24000][:: -1 if back else 1]
        assert_close(decibels(batch, view)[:30], reference_mel(expected)[:30], 0.3)


# --- picture space


def see(clip: Clip, video: VideoConfig, **options: Any) -> np.ndarray:
    """The first view's first frame, (size, size, 3) in 0..255."""
    catalog = write(clip.path.with_suffix(".parquet"), [recording(clip.path)])
    (batch,) = batches(catalog, DataConfig(video=video, modalities=("video",)), **options)
    assert batch.video is not None
    assert bool(batch.valid.all())
    return np.asarray(255 * batch.video[0, 0, :, 0].permute(1, 2, 0).numpy())


@pytest.mark.parametrize("turn", [0, 90, 180, 270])
def test_rotated_files_come_out_upright(media_dir: Path, turn: int) -> None:
    clip = write_clip(media_dir / f"turn{turn}.mp4", rotation=turn, frames=40, audio_codec=None)
    assert read_number(see(clip, SHORT)) is not None


@pytest.mark.parametrize("turn", [90, 270])
def test_rotated_graph_codecs_are_upright_too(media_dir: Path, turn: int) -> None:
    clip = write_clip(
        media_dir / f"turn{turn}-mjpeg.mov", codec="mjpeg", rotation=turn, frames=40, audio_codec=None
    )
    assert read_number(see(clip, SHORT, decode="graph")) is not None


ODD = {"vp9.webm": None, "vp8.webm": "libvpx", "mjpeg.mkv": "mjpeg"}


@pytest.mark.parametrize("name", ODD)
def test_odd_sizes(media_dir: Path, name: str) -> None:
    clip = write_clip(
        media_dir / f"odd-{name}", codec=ODD[name] or "auto", size=(101, 67), frames=40, audio_codec=None
    )
    for decode in ("graph", "host"):
        assert read_number(see(clip, SHORT, decode=decode)) is not None


def test_flip_mirrors(mp4: Clip, webm: Clip) -> None:
    flipped = VideoConfig(frames=6, fps=7.5, size=64, **{**WHOLE, "flip": 1.0}, **PLAIN)
    for clip in (mp4, webm):
        mirrored, plain = see(clip, flipped), see(clip, SHORT)
        assert read_number(mirrored) is None
        assert read_number(plain) is not None
        assert np.abs(mirrored[:, ::-1] - plain).max() < 3


def ramps(_: int, __: float) -> np.ndarray:
    """Red grows to the right, green downwards, both linearly: every pixel says where it came from."""
    y, x = np.mgrid[0:128, 0:192]
    return np.stack([20 + x, 20 + 1.5 * y, np.full_like(x, 128)], axis=-1).astype(np.uint8)


@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
@pytest.mark.parametrize("decode", ["graph", "host"])
def test_crops_show_the_planned_part(media_dir: Path, suffix: str, decode: str) -> None:
    """Colour at the crop's corners, by linear interpolation, tells its place to within a pixel or so."""
    path = media_dir / f"ramps{suffix}"
    clip = (
        path
        if path.exists()
        else write_clip(path, size=(192, 128), picture=ramps, frames=40, audio_codec=None).path
    )
    video = VideoConfig(frames=2, fps=7.5, size=48, flip=0.5, **PLAIN)
    config = DataConfig(video=video, views=(ViewConfig(),) * 8, modalities=("video",))
    catalog = write(media_dir / "ramps.parquet", [recording(clip)])
    (batch,) = batches(catalog, config, decode=decode, seed=3)
    crops = plan(catalog, config, seed=3, epoch=0, rows=np.array([0])).crop[0]
    assert {bool(c[0] > c[2]) for c in crops} == {True, False}
    assert batch.video is not None
    for view, (left, top, right, bottom) in enumerate(crops):
        frame = 255 * batch.video[0, view, :2, 0].double().numpy()
        at = (np.arange(48) + 0.5) / 48
        red = 20 + 192 * (left + (right - left) * at) - 0.5
        green = 20 + 1.5 * (128 * (top + (bottom - top) * at) - 0.5)
        assert np.abs(frame[0].mean(0) - red)[2:-2].max() < 4
        assert np.abs(frame[1].mean(1) - green)[2:-2].max() < 4


def test_normalisation_and_colour(media_dir: Path) -> None:
    grey = write_clip(
        media_dir / "grey.webm",
        picture=lambda *_: np.full((64, 96, 3), 128, np.uint8),
        frames=40,
        audio_codec=None,
    )
    plain = see(grey, SHORT)
    assert np.abs(plain - 128).max() < 3
    scaled = VideoConfig(frames=6, fps=7.5, size=64, **WHOLE, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    expected = (plain / 255 - scaled.mean) / scaled.std
    assert np.abs(see(grey, scaled) / 255 - expected).max() < 1e-3
    bright = VideoConfig(frames=6, fps=7.5, size=64, **WHOLE, **PLAIN, brightness=0.5)
    catalog = write(media_dir / "grey.parquet", [recording(grey.path)])
    config = DataConfig(video=bright, modalities=("video",))
    factor = plan(catalog, config, seed=0, epoch=0, rows=np.array([0])).colour[0, 0, 0]
    assert np.abs(see(grey, bright) - factor * plain).max() < 2


def test_a_clip_as_long_as_its_recording(media_dir: Path) -> None:
    """Nothing to choose: every frame once, from the first to the last, at each end no other."""
    clip = write_clip(media_dir / "exact.webm", frames=30, gop=7, audio_codec=None)
    video = VideoConfig(frames=30, fps=30.0, size=64, **WHOLE, **PLAIN)
    catalog = write(media_dir / "exact.parquet", [recording(clip.path)])
    for decode in ("graph", "host"):
        (batch,) = batches(catalog, DataConfig(video=video, modalities=("video",)), decode=decode)
        assert batch.video is not None
        assert [read_number(batch.video[0, 0, :, i]) for i in range(30)] == list(range(30))


def test_numbers_are_readable_after_the_crop_of_evaluation(media_dir: Path) -> None:
    """for_test: the centre square, unmirrored, views spread from the first to the last moment."""
    clip = write_clip(
        media_dir / "square.mp4",
        size=(128, 64),
        frames=90,
        audio_codec=None,
        picture=lambda i, _: np.pad(burn(i, (64, 64)), ((0, 0), (32, 32), (0, 0))),
    )
    config = DataConfig(video=SHORT, modalities=("video",)).for_test(3)
    catalog = write(media_dir / "square.parquet", [recording(clip.path)])
    (batch,) = batches(catalog, config)
    assert batch.video is not None
    pts = np.array([float(t) for t in clip.pts])
    for view, start in enumerate([0.0, (3 - 0.8) / 2, 3 - 0.8]):
        shown = [read_number(batch.video[0, view, :, i]) for i in range(6)]
        assert shown == on_screen(clip.pts, start, 1.0, SHORT).tolist()
        assert batch.video_pts[0, view].tolist() == pytest.approx(pts[shown].tolist())
