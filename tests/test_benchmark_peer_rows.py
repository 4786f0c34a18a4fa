"""The loader benchmark's rows of GDT, DALI and PyNvVideoCodec, against their rules applied to whole decoded files."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from itertools import chain, islice
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import av
import media
import numpy as np
import pytest
import torch
import torchaudio
from nvidia.dali import fn, pipeline_def

from coaug.pipelines.catalog import Catalog
from coaug.pipelines.config import AudioConfig, ViewConfig
from coaug.pipelines.index import index

FOLDER = str(Path(__file__).parents[1] / "benchmarks")
SIZE, FRAMES = (192, 128), 150
SPEEDS = {"one view": (2,), "two views": (1, 4)}
ROUNDED = 0.02  # a step of a byte, normalised
Clips = list[tuple[torch.Tensor, torch.Tensor]]


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """A module of `benchmarks/rows`."""
    monkeypatch.syspath_prepend(FOLDER)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return lambda name: import_module(f"rows.{name}")


@pytest.fixture(scope="module", params=["mp4", "webm"])
def catalog(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """Two films of a suffix, of one rate a millisecond divides, for WebM rounds to these."""
    return films(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def webm(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    return films(tmp_path_factory.mktemp("webm"), "webm")


def films(folder: Path, suffix: str) -> Catalog:
    rng = np.random.default_rng(0)
    for n, channels in enumerate((1, 2)):
        noise = np.cumsum(rng.standard_normal(1 << 19)) % 1 - 0.5  # a sound of its own at every moment
        media.write_clip(
            folder / f"{n}.{suffix}", size=SIZE, fps=25, frames=FRAMES, gop=40, channels=channels,
            sound=lambda t, noise=noise: 0.3 * noise[np.round(t * 48000).astype(int)],
        )  # fmt: skip
    return Catalog.open(index(sorted(folder.glob("*")), folder / "c.parquet", progress=False).path)


def asked(
    rows: Callable[[str], ModuleType], catalog: Catalog, views: str = "two views"
) -> tuple[Any, list[Any]]:
    """A config and two batches of two."""
    config = replace(
        rows("request").CONFIGS[views], views=tuple(ViewConfig(f"speed({s})") for s in SPEEDS[views])
    )
    return config, list(islice(rows("request").batches(catalog, config, 2), 2))


@pytest.mark.parametrize("views", ["one view", "two views"])
def test_gdt_shows_what_its_rule_says(
    rows: Callable[[str], ModuleType], catalog: Catalog, views: str
) -> None:
    config, batches = asked(rows, catalog, views)
    batch = list(chain(*batches))
    clips = rows("gdt").Gdt(catalog, config, 2)(batch)
    expected = [gdt_numbers(r, v) for r in batch for v in range(len(config.views))]
    compare(rows, config, batch, clips, expected, 1e-5)


def gdt_numbers(request: Any, view: int) -> list[int]:
    """`get_start_end_idx` and `temporal_sampling`; films at 25 frames/s from 0 on, long enough."""
    first, count = int(request.start[view] * 25), 25.0 * float(request.speed[view])
    return [first + int(n) for n in torch.linspace(0, count - 1, 16)]


def test_gdt_hears_the_part_that_begins_with_the_first_frame(
    rows: Callable[[str], ModuleType], catalog: Catalog
) -> None:
    config, batches = asked(rows, catalog)
    batch = list(chain(*batches))
    clips = rows("gdt").Gdt(catalog, config, 2)(batch)
    for n, (_, heard) in enumerate(clips):
        request, view = batch[n // 2], n % 2
        begin, speed = int(request.start[view] * 25) / 25, float(request.speed[view])
        _, rate, whole = media.read_audio(request.path)
        first = round(begin * rate)
        part = whole[first : first + round(speed * rate)]
        played = torchaudio.functional.resample(torch.from_numpy(part), round(rate * speed), 24000).numpy()
        np.testing.assert_allclose(heard[0], log_mel(played, config.audio), atol=0.01)
        theirs = log_mel(by_ffmpeg(request.path, begin, speed), config.audio)
        assert np.abs(heard[0].numpy() - theirs)[:30].mean() < 0.01  # filters differ next to the Nyquist rate


def by_ffmpeg(path: str, begin: float, speed: float) -> np.ndarray:
    """As `load_audio` and `get_spec` have it: the whole track at a rate, mono, in 16 bits."""
    rate = round(24000 / speed)
    resampler = av.AudioResampler("s16", "mono", rate)
    with av.open(path) as container:
        frames = [*container.decode(audio=0), None]
    for frame in frames[:-1]:
        frame.pts = None
    wav = np.concatenate([out.to_ndarray()[0] for frame in frames for out in resampler.resample(frame)])
    first = round(begin * rate)
    return np.asarray(wav[first : first + round(rate * speed)] / 32768, np.float32)


def test_gdt_decodes_from_a_key_frame_well_before_or_all(
    rows: Callable[[str], ModuleType], catalog: Catalog
) -> None:
    config, batches = asked(rows, catalog)
    batch = list(chain(*batches))
    way = rows("gdt").Gdt(catalog, config, 2)
    way(batch)
    assert way.decoded == sum(gdt_decoded(r, v) for r in batch for v in range(2))


def gdt_decoded(request: Any, view: int) -> int:
    if request.path.endswith("webm"):
        return FRAMES
    numbers, ticks = gdt_numbers(request, view), 12800 / 25  # of FFmpeg's time base for 25 frames/s, each
    before = max(numbers[0] * ticks - 1024, 0) // ticks // 40 * 40
    return int(numbers[-1] - before + 1)


def test_gdt_takes_the_last_sound_where_there_is_too_little(
    rows: Callable[[str], ModuleType], webm: Catalog
) -> None:
    gdt, path = rows("gdt"), str(webm[0].path)
    with av.open(path) as container:
        frames = list(container.decode(audio=0))
    _, _, whole = media.read_audio(path)
    np.testing.assert_array_equal(gdt.part(frames, len(whole) - 10, 5000), whole[-5000:])
    np.testing.assert_array_equal(gdt.part(frames, 961, 5000), whole[961:5961])


@pytest.mark.parametrize("finish", ["graph", "torch"])
@pytest.mark.parametrize("views", ["one view", "two views"])
def test_dali_shows_what_is_on_screen(
    rows: Callable[[str], ModuleType], webm: Catalog, views: str, finish: str
) -> None:
    config, batches = asked(rows, webm, views)
    way = rows("dali").Dali(webm, config, 2, finish=finish)
    clips = [way(batch) for batch in batches]  # what the first is given stays as it is
    for batch, given in zip(batches, clips, strict=True):
        expected = [on_screen(r, v) for r in batch for v in range(len(config.views))]
        compare(rows, config, batch, given, expected, ROUNDED if finish == "graph" else 1e-5)


def on_screen(request: Any, view: int) -> list[int]:
    pts = np.array([float(seconds) for seconds, _ in media.read_frames(request.path)])
    return [int(np.flatnonzero(pts <= time)[-1]) for time in request.times[view]]


def test_dali_is_given_what_is_heard(rows: Callable[[str], ModuleType], webm: Catalog) -> None:
    config, (batch, *_) = asked(rows, webm)
    compare_sound(config, batch, rows("dali").Dali(webm, config, 2)(batch))


def test_dali_decodes_a_sample_once_from_its_beginning(
    rows: Callable[[str], ModuleType], webm: Catalog
) -> None:
    config, (batch, *_) = asked(rows, webm)
    way = rows("dali").Dali(webm, config, 2)
    way(batch)
    assert way.decoded == sum(max(on_screen(r, 0) + on_screen(r, 1)) + 1 for r in batch)


def test_dali_without_a_gpu_refuses_what_it_cannot_decode(
    rows: Callable[[str], ModuleType], tmp_path: Path
) -> None:
    h264 = films(tmp_path, "mp4")
    with pytest.raises(RuntimeError, match="h264 on NVIDIA GPUs only"):
        rows("dali").Dali(h264, rows("request").CONFIGS["one view"], 2)

    @pipeline_def(batch_size=1, num_threads=1, device_id=None, prefetch_queue_depth=1)
    def graph() -> Any:
        return fn.decoders.video(fn.external_source(name="encoded"))

    with pytest.raises(RuntimeError, match="create video decoder"):  # and it is still so
        graph().run(encoded=[np.fromfile(h264[0].path, np.uint8)])


class Library(ModuleType):
    """What the row needs of PyNvVideoCodec's documented interface, on a CPU: all frames in the same memory."""

    OutputColorType = SimpleNamespace(NATIVE=0, RGBP=1)

    class SimpleDecoder:
        opened = 0

        def __init__(self, path: str, **options: Any) -> None:
            Library.SimpleDecoder.opened += 1
            assert (
                options["use_device_memory"] and options["output_color_type"] == Library.OutputColorType.RGBP
            )
            self.surfaces: torch.Tensor | None = None
            self.reconfigure_decoder(path)

        def reconfigure_decoder(self, path: str) -> None:
            film = torch.from_numpy(np.stack([pixels for _, pixels in media.read_frames(path)]))
            self.film = film.permute(0, 3, 1, 2).contiguous()

        def get_batch_frames_by_index(self, numbers: list[int]) -> list[torch.Tensor]:
            if self.surfaces is None:
                self.surfaces = torch.empty(64, *self.film.shape[1:], dtype=torch.uint8)
            kept = sorted({n for n in numbers if n < len(self.film)})
            self.surfaces[: len(kept)] = self.film[kept]
            return list(self.surfaces[: len(kept)])


@pytest.fixture
def pynv(rows: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch) -> type[Any]:
    """The row, on a CPU."""
    row = rows("nvidia")
    monkeypatch.setitem(sys.modules, "PyNvVideoCodec", Library("PyNvVideoCodec"))
    monkeypatch.setattr(row, "there", lambda: None)
    monkeypatch.setattr(row.Raw, "device", "cpu")
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    decoded: type[Any] = row.Decoded
    return decoded


@pytest.mark.parametrize("views", ["one view", "two views"])
def test_pynvvideocodec_shows_what_is_on_screen_and_keeps_its_session(
    rows: Callable[[str], ModuleType], catalog: Catalog, views: str, pynv: type[Any]
) -> None:
    config, batches = asked(rows, catalog, views)
    way, before = pynv(catalog, config, 2), Library.SimpleDecoder.opened
    clips = [way(batch) for batch in batches]
    assert Library.SimpleDecoder.opened == before + 1
    for batch, given in zip(batches, clips, strict=True):
        expected = [on_screen(r, v) for r in batch for v in range(len(config.views))]
        compare(rows, config, batch, given, expected, 1e-5)


def test_pynvvideocodec_is_given_what_is_heard(
    rows: Callable[[str], ModuleType], webm: Catalog, pynv: type[Any]
) -> None:
    config, (batch, *_) = asked(rows, webm)
    compare_sound(config, batch, pynv(webm, config, 2)(batch))


@pytest.mark.parametrize("name", ["coaug, GPU", "torchcodec, CUDA", "PyNvVideoCodec", "NVDEC"])
def test_rows_for_a_gpu_say_that_there_is_none(
    rows: Callable[[str], ModuleType], webm: Catalog, name: str
) -> None:
    with pytest.raises(RuntimeError, match="torch sees no GPU"):
        import_module("rows").maker(name)(webm, rows("request").CONFIGS["one view"], 2)


def compare(
    rows: Callable[[str], ModuleType],
    config: Any,
    batch: Any,
    clips: Clips,
    expected: list[list[int]],
    within: float,
) -> None:
    """The frames of those numbers and no others, cropped as asked."""
    finish, views = rows("finish").Finish(config), len(config.views)
    assert len(clips) == len(expected) == views * len(batch)
    for n, ((pictures, _), numbers) in enumerate(zip(clips, expected, strict=True)):
        request, view = batch[n // views], n % views
        film = torch.from_numpy(np.stack([p for _, p in media.read_frames(request.path)])).permute(0, 3, 1, 2)
        assert [media.read_number(film[k].numpy()) for k in numbers] == numbers
        assert pictures.shape == (3, 16, 112, 112) and pictures.is_contiguous()
        torch.testing.assert_close(
            pictures, finish.pictures(film[numbers], request.crop[view]), rtol=0, atol=within
        )
        for wrong in ([*numbers[:-1], numbers[-1] - 1], [numbers[0] + 1, *numbers[1:]]):
            others = finish.pictures(film[wrong], request.crop[view])
            assert (others - pictures).abs().max() > 10 * within


def compare_sound(config: Any, batch: Any, clips: Clips) -> None:
    """Log-mel of both views' windows of the whole track."""
    for n, (_, heard) in enumerate(clips):
        request, view = batch[n // 2], n % 2
        start, rate, whole = media.read_audio(request.path)
        first, last = (int(seconds * rate) - round(start * rate) for seconds in request.heard[view])
        at = round(rate * float(request.speed[view]))
        played = torchaudio.functional.resample(torch.from_numpy(whole[first:last]), at, 24000).numpy()
        np.testing.assert_allclose(heard[0], log_mel(played, config.audio), atol=0.01)


def log_mel(samples: np.ndarray, audio: AudioConfig) -> np.ndarray:
    """(F, L) window by window."""
    samples = np.pad(samples, (0, max(audio.samples - len(samples), 0)))[: audio.samples].astype(float)
    window, hop = audio.window_samples, audio.hop_samples
    bands = torchaudio.functional.melscale_fbanks(
        audio.n_fft // 2 + 1, 0.0, audio.rate / 2, audio.mels, audio.rate, norm="slaney", mel_scale="slaney"
    ).numpy()
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    starts = range(0, len(samples) - window + 1, hop)
    power = [np.abs(np.fft.rfft(samples[k : k + window] * hann, audio.n_fft)) ** 2 @ bands for k in starts]
    decibels = 10 * np.log10(np.maximum(np.stack(power, axis=1), 10 ** (audio.floor_db / 10)))
    return np.asarray((decibels - audio.mean) / audio.std)
