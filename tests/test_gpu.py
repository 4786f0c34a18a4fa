"""The device path against its CPU twin. `make gpu-check` runs these; without a GPU they are left out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from media import tone, write_clip
from nvidia.dali import fn, pipeline_def

from coaug.models import get_method
from coaug.pipelines.batch import Batch
from coaug.pipelines.catalog import Catalog
from coaug.pipelines.config import AudioConfig, DataConfig, VideoConfig, ViewConfig
from coaug.pipelines.index import index
from coaug.pipelines.loader import AVLoader
from coaug.pipelines.media import Deadline
from coaug.pipelines.packed.jpegs import Images
from coaug.pipelines.packed.pack import pack
from coaug.pipelines.packed.settings import Packing
from coaug.pipelines.packed.shards import Shards

pytestmark = pytest.mark.gpu

SPED = ViewConfig("speed(1, 2, 4) | reverse(0.5)", "unaligned")
CONFIG = DataConfig(video=VideoConfig(frames=8, fps=8.0, size=64), views=(ViewConfig(), SPED))
EVERYTHING = replace(
    CONFIG,
    video=replace(CONFIG.video, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, blur=0.5),
    audio=AudioConfig(waveform=True),
    views=(
        ViewConfig("pitch(4) | fade(0.5) | mask(0.5) | shift(0.5) | resample(0.5)"),
        ViewConfig("stretch(0.7, 1.4) | resample(0.5) | mask(0.5, 0) | audio: noise(pink)", "unaligned"),
        ViewConfig("audio: offset(0.2) | audio: volume(0.9, 1.1) | reverse | video: fade(0.5)"),
    ),
    moments="decreasing",
)


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not torch.cuda.is_available():
        pytest.fail("a GPU was promised, and torch sees none")
    folder = tmp_path_factory.mktemp("gpu")
    for number, suffix in enumerate((".mp4", ".webm", ".mkv", ".avi")):
        codec = "mjpeg" if suffix == ".mkv" else "auto"
        sound = tone(300 * (number + 1))
        write_clip(folder / f"{number}{suffix}", size=(128, 96), frames=150, codec=codec, sound=sound)
    index([folder], folder / "catalog.parquet", progress=False)
    return folder / "catalog.parquet"


@pytest.fixture(scope="module")
def packed(catalog: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packed")
    return pack(catalog, folder, Packing(video="mjpeg", size=64), workers=1, progress=False).path


def first(catalog: Path, config: DataConfig, **options: object) -> Batch:
    with AVLoader(catalog, config, batch_size=4, workers=2, **options) as loader:  # type: ignore[arg-type]
        return next(iter(loader))


@pytest.mark.parametrize("decode", ["host", "auto"])
def test_batches_agree_with_the_cpu(catalog: Path, decode: str) -> None:
    cpu = first(catalog, CONFIG, decode="host")
    gpu = first(catalog, CONFIG, device="cuda", decode=decode)
    assert gpu.video is not None and gpu.audio is not None and cpu.video is not None and cpu.audio is not None
    assert gpu.video.is_cuda and gpu.audio.is_cuda
    assert torch.equal(gpu.sample_id.cpu(), cpu.sample_id) and bool(gpu.valid.all())
    torch.testing.assert_close(gpu.video_pts.cpu(), cpu.video_pts)
    # NVDEC and swscale convert colour with different rounding; a wrong frame would differ by far more
    assert (gpu.video.cpu() - cpu.video).abs().mean() < (0.02 if decode == "host" else 0.1)
    assert (gpu.audio.cpu() - cpu.audio).abs().max() < 0.05  # 1 dB, at the floor


def test_packed_mjpeg_agrees_with_the_cpu(packed: Path) -> None:
    cpu = first(packed, CONFIG, decode="host")
    with AVLoader(packed, CONFIG, batch_size=4, workers=2, device="cuda") as loader:
        assert "packed mjpeg (4) as images in the graph" in loader.describe()
        gpu = next(iter(loader))
        assert not loader.state_dict()["distrusted"]  # nvJPEG took them all
    assert gpu.video is not None and cpu.video is not None and bool(gpu.valid.all())
    torch.testing.assert_close(gpu.video_pts.cpu(), cpu.video_pts)
    # nvJPEG repeats chroma where the host interpolates it
    assert (gpu.video.cpu() - cpu.video).abs().mean() < 0.1


@pytest.mark.parametrize("hardware", [0.0, 1.0])
def test_nvjpeg_reads_joined_jpegs_as_libjpeg_does(packed: Path, hardware: float) -> None:
    """Frame by frame: a restart marker that was overlooked would spoil all that come after it."""
    each = Catalog.open(packed)[0]
    assert each.member is not None
    media = Shards().media(each.path, each.member, Deadline(20.0))
    images = media.images(np.linspace(each.start, each.end, 60))
    assert isinstance(images, Images) and images.decoded == 60

    @pipeline_def(batch_size=8, num_threads=2, device_id=0)  # type: ignore[untyped-decorator]
    def decoded() -> Any:
        jpeg = fn.external_source(lambda: [images.data] * 8)
        return fn.decoders.image(jpeg, device="mixed", hw_decoder_load=hardware), fn.decoders.image(jpeg)

    pipeline = decoded()
    ours, theirs = pipeline.run()
    for gpu, cpu in zip(ours.as_cpu(), theirs, strict=True):
        apart = np.abs(np.asarray(gpu).astype(int) - np.asarray(cpu)).reshape(*images.shape)
        assert apart.mean((1, 2, 3)).max() < 4


def test_every_augmentation_agrees_with_the_cpu(catalog: Path) -> None:
    cpu = first(catalog, EVERYTHING, decode="host")
    gpu = first(catalog, EVERYTHING, decode="host", device="cuda")
    assert gpu.video is not None and gpu.audio is not None and cpu.video is not None and cpu.audio is not None
    assert gpu.waveform is not None and cpu.waveform is not None and bool(gpu.valid.all())
    torch.testing.assert_close(gpu.waveform.cpu(), cpu.waveform, atol=1e-4, rtol=0)
    assert (gpu.video.cpu() - cpu.video).abs().mean() < 0.02
    assert (gpu.audio.cpu() - cpu.audio).abs().max() < 0.05


@pytest.mark.parametrize("preset", ["svaclr", "avid-small", "avid", "tempssl", "staug"])
def test_every_preset_runs(catalog: Path, preset: str) -> None:
    with AVLoader(catalog, preset=preset, batch_size=4, workers=2, device="cuda") as loader:
        batch = next(iter(loader))
        assert batch.audio is not None and batch.audio.shape[-2:] == loader.config.audio.shape
        assert bool(batch.valid.all()) and bool(batch.audio.isfinite().all())


def test_picture_only_and_sound_only(catalog: Path) -> None:
    assert first(catalog, replace(CONFIG, modalities=("video",)), device="cuda").audio is None
    assert first(catalog, replace(CONFIG, modalities=("audio",)), device="cuda").video is None


def test_a_training_step_agrees_with_the_cpu(catalog: Path) -> None:
    batch = first(catalog, CONFIG, decode="host")
    cls = get_method("svaclr")
    torch.manual_seed(0)
    method = cls(cls.Config(width=16, video_blocks=(1, 1, 1, 1)))
    losses = []
    for device in ("cpu", "cuda"):
        here, moved = method.to(device), batch.to(device)
        method.zero_grad()
        loss, _ = here.objective(here.embed(moved), moved.valid)
        loss.backward()
        losses.append(
            (loss.item(), [p.grad.norm().item() for p in method.parameters() if p.grad is not None])
        )
    assert losses[0][0] == pytest.approx(losses[1][0], rel=1e-3)
    assert losses[0][1] == pytest.approx(losses[1][1], rel=2e-2, abs=1e-4)
