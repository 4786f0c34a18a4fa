"""Packed MJPEG as images in the graph: one tall JPEG a sample, the pictures that FFmpeg shows.

Here DALI decodes by libjpeg-turbo; nvJPEG's turn is in test_gpu. Differences are in levels of 255.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from catalogs import recording, write
from media import Clip, burn, read_number, write_clip
from nvidia.dali import fn
from nvidia.dali.pipeline import do_not_convert
from PIL import Image

from coaug.pipelines import graph, picture
from coaug.pipelines.bans import Bans
from coaug.pipelines.batch import Batch
from coaug.pipelines.catalog import Catalog
from coaug.pipelines.config import DataConfig, VideoConfig, ViewConfig
from coaug.pipelines.feeds import feeds
from coaug.pipelines.loader import AVLoader
from coaug.pipelines.media import Deadline
from coaug.pipelines.packed.clip import PackedMedia
from coaug.pipelines.packed.jpegs import IMAGES, Images, joined
from coaug.pipelines.packed.pack import pack
from coaug.pipelines.packed.settings import Packing
from coaug.pipelines.packed.shards import Shards
from coaug.pipelines.packed.video import VIDEO, Coded, encoded
from coaug.pipelines.recording import Recording
from coaug.pipelines.schedule import Schedule
from coaug.pipelines.source import Source

WHOLE: dict[str, Any] = {"crop": "resized(1, 1, 0.1, 10)", "flip": 0.0}
PLAIN: dict[str, Any] = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
AS_PACKED = VideoConfig(frames=6, fps=7.5, size=64, **WHOLE, **PLAIN)
VIEWS = (ViewConfig(), ViewConfig("speed(2) | reverse(1)"))
CONFIG = DataConfig(video=AS_PACKED, views=VIEWS, moments="independent", modalities=("video",))
# two decoders of one stream: another IDCT, chroma interpolated by other means, and colours by other arithmetic
MEAN, MOST = 1.0, 6.0
SEAM = (
    255 * 1.772 / 4
)  # a quarter of the neighbour's chroma: libjpeg interpolates it across the edge of a frame


def coloured(number: int, _: float) -> np.ndarray:
    """Burnt-in numbers under colours that differ from frame to frame, and from top to bottom."""
    y, x = np.mgrid[0:64, 0:96] / 64
    tints = np.stack([y, 1.5 - x, np.abs(np.sin(y * 2 + number))], axis=-1)
    return np.asarray(0.7 * burn(number) + 40 * tints, np.uint8)


def jpegs(
    count: int, size: tuple[int, int] = (96, 64), quality: int | None = None, **options: str
) -> list[bytes]:
    """What a pack holds: frames of `coloured`, encoded."""
    codec = VIDEO["mjpeg"]
    assert codec is not None
    codec = replace(codec, options=codec.options | options)

    def frames() -> Iterator[Any]:
        from av import VideoFrame

        for number in range(count):
            rgb = np.resize(coloured(number, 0), (size[1], size[0], 3))
            yield VideoFrame.from_ndarray(rgb, "rgb24").reformat(format=codec.pixels)

    coded: list[Coded] = list(encoded(frames(), codec, size, 1, quality))
    return [each.data for each in coded]


def pixels(jpeg: bytes, mode: str = "RGB") -> np.ndarray:
    """(H, W, 3), by an independent decoder; "YCbCr" leaves what was coded as it is."""
    image = Image.open(io.BytesIO(jpeg))
    image.draft(mode, image.size)
    return np.asarray(image).astype(int)


# --- many JPEGs, one JPEG


@pytest.mark.parametrize("count", [1, 2, 9, 30])  # there are eight restart markers
@pytest.mark.parametrize("size", [(16, 16), (96, 64), (90, 48)])
def test_a_tall_jpeg_is_its_frames_one_below_the_other(count: int, size: tuple[int, int]) -> None:
    frames = jpegs(count, size)
    jpeg, shape = joined(frames) or (b"", ())
    assert shape == (count, size[1], size[0])
    for mode in ("RGB", "YCbCr"):
        tall = pixels(jpeg, mode).reshape(*shape, 3)
        alone = np.stack([pixels(frame, mode) for frame in frames])
        assert np.array_equal(tall[:, 1:-1], alone[:, 1:-1])
        assert np.array_equal(tall[..., :1], alone[..., :1]) or mode == "RGB"  # luma knows no seams


def test_joining_costs_no_more_than_the_bytes() -> None:
    frames = jpegs(30)
    jpeg, _ = joined(frames) or (b"", ())
    assert len(jpeg) < sum(map(len, frames)) - 29 * 500  # their headers


def _restarting(frame: bytes) -> bytes:
    jpeg, _ = joined([frame]) or (b"", ())
    return jpeg


UNLIKE: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "tables of their own": lambda _: jpegs(3, huffman="optimal"),
    "another size": lambda frames: [*frames, *jpegs(1, (64, 64))],
    "another quality": lambda frames: [*frames, *jpegs(1, quality=9)],
    "half a block": lambda _: jpegs(3, (96, 56)),
    "too many": lambda frames: frames * 400,
    "cut off": lambda frames: [frames[0], frames[1][:-2]],
    "cut off at once": lambda frames: [frames[0][:9]],
    "nothing": lambda _: [b""],
    "no JPEG": lambda _: [b"RIFF" * 100],
    "bytes after the end": lambda frames: [frames[0], frames[1] + b"\0"],
    "a marker among the bits": lambda frames: [frames[0], frames[1][:-2] + b"\xff\xd0\xff\xd9"],
    "restart markers already": lambda frames: [_restarting(frame) for frame in frames],
    "progressive": lambda frames: [frame.replace(b"\xff\xc0", b"\xff\xc2") for frame in frames],
}


@pytest.mark.parametrize("name", UNLIKE)
def test_what_cannot_be_joined(name: str) -> None:
    assert joined(jpegs(3)) is not None
    assert joined(UNLIKE[name](jpegs(3))) is None


def test_any_bytes_are_an_answer() -> None:
    frame, random = jpegs(1)[0], np.random.default_rng(0)
    for length in range(600):
        joined([frame[:length]])
    for _ in range(2000):
        spoilt = bytearray(frame)
        for at in random.integers(0, 600, 3):
            spoilt[at] = random.integers(256)
        joined([bytes(spoilt)])


def test_a_broken_frame_spoils_no_other() -> None:
    frames = jpegs(12)
    short = frames[4][: len(frames[4]) * 2 // 3] + b"\xff\xd9"
    jpeg, shape = joined([*frames[:4], short, *frames[5:]]) or (b"", ())
    tall = pixels(jpeg).reshape(*shape, 3)
    intact = [np.array_equal(tall[n, 1:-1], pixels(frame)[1:-1]) for n, frame in enumerate(frames)]
    assert intact == [n != 4 for n in range(12)]


# --- through the loader


def packed(folder: Path, clips: list[Clip], **packing: Any) -> Catalog:
    raw = write(folder / "raw.parquet", [recording(clip.path) for clip in clips])
    options: dict[str, Any] = {"video": "mjpeg", "size": (64, 64), "samples": 4} | packing
    return Catalog.open(pack(raw.path, folder / "pack", Packing(**options), workers=1, progress=False).path)


def batches(catalog: Catalog, config: DataConfig = CONFIG, steps: int = 1, **options: Any) -> list[Batch]:
    options = {"batch_size": len(catalog), "workers": 0, "shuffle": False} | options
    with AVLoader(catalog, config, **options) as loader:
        return [next(iter(loader)) for _ in range(steps)]


def opened(each: Recording) -> PackedMedia:
    assert each.member is not None
    return Shards().media(each.path, each.member, Deadline(10.0))


def shown(batch: Batch) -> np.ndarray:
    """(B, V, T, S, S, 3) levels of 255."""
    assert batch.video is not None
    return 255 * batch.video.permute(0, 1, 3, 4, 5, 2).double().numpy()


def assert_alike(one: np.ndarray, other: np.ndarray) -> None:
    """Of (…, h, w, 3) frames as they are packed."""
    apart = np.abs(one - other)
    assert apart.mean() < MEAN
    assert apart[..., 1:-1, :, :].max() < MOST
    assert apart.max() < SEAM


def source(
    catalog: Catalog, config: DataConfig = CONFIG, codecs: frozenset[str] = frozenset({IMAGES})
) -> Source:
    """With nothing but images in the graph, as on a GPU without NVDEC."""
    return Source(catalog, config, Schedule(len(catalog), len(catalog), 1), Bans({}), graph_codecs=codecs)


@pytest.fixture(scope="module")
def clips(media_dir: Path) -> list[Clip]:
    folder = media_dir / "images"
    folder.mkdir()
    kinds: dict[str, dict[str, Any]] = {
        "a.mp4": {},
        "b.webm": {"start": 1.5},
        "c.mkv": {"vfr": True},
        "d.mp4": {"fps": 10, "frames": 30},
    }
    return [
        write_clip(folder / name, picture=coloured, audio_codec=None, **({"frames": 90} | kind))
        for name, kind in kinds.items()
    ]


@pytest.fixture(scope="module")
def catalog(clips: list[Clip], tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    return packed(tmp_path_factory.mktemp("packed"), clips)


@pytest.mark.parametrize("workers", [0, 1])
def test_the_graph_shows_what_the_host_shows(catalog: Catalog, workers: int) -> None:
    host, graph = (
        batches(catalog, steps=2, decode=decode, workers=workers if decode == "graph" else 0)
        for decode in ("host", "graph")
    )
    for one, other in zip(host, graph, strict=True):
        assert bool(other.valid.all())
        assert torch.equal(one.sample_id, other.sample_id)
        assert torch.equal(one.video_pts, other.video_pts)
        assert_alike(shown(one), shown(other))
        for frames_of_one, frames_of_other in zip(shown(one), shown(other), strict=True):
            numbers = [read_number(frame) for frame in frames_of_one.reshape(-1, 64, 64, 3)]
            assert numbers == [read_number(frame) for frame in frames_of_other.reshape(-1, 64, 64, 3)]
            assert None not in numbers


def test_pictures_are_those_of_an_independent_decoder(catalog: Catalog) -> None:
    """Nothing but a resize that changes nothing comes after the decoders."""
    (host,), (graph,) = (batches(catalog, decode=decode) for decode in ("host", "graph"))
    for row, each in enumerate(catalog):
        media = opened(each)
        sample, data = media.sample, Path(each.path).read_bytes()
        moments = graph.video_pts[row].flatten().numpy()
        places = sample.pictures.on_screen(moments)
        begins = sample.row["begin"] + sample.lists["video_at"][places]
        parts = zip(begins.tolist(), sample.lists["video_size"][places].tolist(), strict=True)
        alone = np.stack([pixels(data[at : at + size]) for at, size in parts])
        assert_alike(shown(host)[row].reshape(alone.shape), alone)
        assert_alike(shown(graph)[row].reshape(alone.shape), alone)
        images = media.images(moments)
        assert images is not None
        tall = pixels(images.data.tobytes()).reshape(images.shape)
        assert (
            np.abs(shown(graph)[row].reshape(alone.shape) - tall[images.index]).max() <= 1
        )  # libjpeg, twice


def test_pictures_of_any_size_and_crop(clips: list[Clip], tmp_path: Path) -> None:
    """Samples of a batch differ in size; what is cut out of them is the same on both ways."""
    sizes = [(192, 96), (64, 128), (96, 96), (128, 96)]
    varied = [
        write_clip(tmp_path / f"{n}.mp4", size=size, frames=60, audio_codec=None)
        for n, size in enumerate(sizes)
    ]
    catalog = packed(tmp_path, varied, size=48)
    assert len({(each.video.width, each.video.height) for each in catalog if each.video}) == 4
    config = replace(CONFIG, video=VideoConfig(frames=4, fps=7.5, size=40, flip=0.5, **PLAIN))
    (host,), (graph,) = (batches(catalog, config, decode=decode) for decode in ("host", "graph"))
    assert np.abs(shown(host) - shown(graph)).mean() < MEAN


def test_a_frame_is_sent_once_however_often_it_is_shown(catalog: Catalog) -> None:
    """2.6 s of 10 frames a second, shown at 60: six times each, in two views that overlap."""
    slow = replace(
        CONFIG, video=replace(AS_PACKED, frames=150, fps=60.0), moments="same", views=VIEWS[:1] * 2
    )
    row = source(catalog, slow).sample(0, 0, 3)
    count = int(row["joined"][0])
    assert row["frames"].shape == (2, 150) and count <= 27
    assert row["cost"].tolist() == [count, count] == [row["frames"].max() + 1] * 2
    (host,), (graph,) = (batches(catalog, slow, decode=decode) for decode in ("host", "graph"))
    assert torch.equal(host.video_pts, graph.video_pts)
    assert_alike(shown(host), shown(graph))


def test_one_frame_only(catalog: Catalog, tmp_path: Path) -> None:
    still = replace(CONFIG, video=replace(AS_PACKED, frames=1), views=VIEWS[:1])
    assert source(catalog, still).sample(0, 0, 0)["joined"].tolist() == [1, 64, 64, 3]
    alone = packed(tmp_path, [write_clip(tmp_path / "one.mp4", picture=coloured, frames=1, audio_codec=None)])
    for each in (catalog, alone):
        (host,), (graph,) = (
            batches(each, replace(still, video=replace(still.video, fps=30.0)), decode=decode)
            for decode in ("host", "graph")
        )
        assert torch.equal(host.video_pts, graph.video_pts)
        assert_alike(shown(host), shown(graph))


# --- beside other codecs


def test_a_catalog_of_many_codecs(catalog: Catalog, clips: list[Clip], tmp_path: Path) -> None:
    """Images, slices (packed and raw) and frames of the host in one batch, whatever it is a batch of."""
    folders = [tmp_path / name for name in ("h264", "copy")]
    for folder in folders:
        folder.mkdir()
    h264 = packed(folders[0], clips[:1], video="h264")
    copied = packed(folders[1], clips[1:2], video="copy")
    raw = write_clip(tmp_path / "raw.mkv", codec="mjpeg", picture=coloured, audio_codec=None)
    rows = [*catalog, *h264, *copied, recording(clips[1].path), recording(raw.path)]
    rows = [replace(row, id=number, key=str(number)) for number, row in enumerate(rows)]
    mixed = write(tmp_path / "mixed.parquet", rows)
    with AVLoader(mixed, CONFIG, batch_size=len(mixed), decode="graph", workers=0) as loader:
        routes = loader.describe()
    assert "packed mjpeg (4) as images in the graph" in routes
    assert "mjpeg (1) in the graph" in routes.replace("packed mjpeg", "") and "h264 (1) on the host" in routes
    for size in (len(mixed), 2):  # two: batches of one kind alone
        host = batches(mixed, steps=len(mixed) // size, batch_size=size, decode="host")
        graph = batches(mixed, steps=len(mixed) // size, batch_size=size, decode="graph")
        for one, other in zip(host, graph, strict=True):
            assert bool(other.valid.all())
            assert torch.equal(one.video_pts, other.video_pts)
            assert np.abs(shown(one) - shown(other)).mean() < MEAN


def test_only_who_has_packed_mjpeg_is_asked_for_it(
    catalog: Catalog, clips: list[Clip], tmp_path: Path
) -> None:
    files = write(tmp_path / "raw.parquet", [recording(clip.path) for clip in clips])
    for chosen, decode, names in (
        (catalog, "graph", {"in_graph", "encoded", "wanted", "joined"}),
        (files, "graph", {"in_graph", "encoded", "wanted"}),
        (catalog, "host", set()),
        (catalog, "auto", set()),
    ):
        with AVLoader(chosen, CONFIG, batch_size=4, decode=decode, workers=0) as loader:
            found = {feed.name for feed in loader._running.source.feeds}
        assert found == {"facts", "planes", "matrix", "frames", "look"} | names
    assert {feed.name for feed in feeds(CONFIG, images=True)} >= {"in_graph", "encoded", "joined"}


def test_which_machine_decodes_images() -> None:
    assert IMAGES in graph.graph_codecs("gpu", "auto", {"mjpeg"})
    assert IMAGES in graph.graph_codecs("gpu", "graph", {"mjpeg": 3, "h264": 1})
    assert IMAGES in graph.graph_codecs("cpu", "graph", {"mjpeg"})
    for device, decode, known in (
        ("cpu", "auto", {"mjpeg"}),
        ("gpu", "host", {"mjpeg"}),
        ("gpu", "auto", {"h264"}),
    ):
        assert IMAGES not in graph.graph_codecs(device, decode, known)


def test_what_cannot_be_joined_goes_another_way(clips: list[Clip], tmp_path: Path) -> None:
    """Packets copied from a file have tables of their own: the host decodes them, or the graph as video."""
    raw = write_clip(tmp_path / "raw.mkv", codec="mjpeg", picture=coloured, audio_codec=None)
    copied = packed(tmp_path, [raw], video="copy")
    assert not source(copied).sample(0, 0, 0)["in_graph"]
    sliced = source(copied, codecs=frozenset({IMAGES, "mjpeg"})).sample(0, 0, 0)
    assert sliced["in_graph"] and not sliced["joined"].any() and len(sliced["wanted"])
    (host,), (graph,) = (batches(copied, decode=decode) for decode in ("host", "graph"))
    assert bool(graph.valid.all())
    assert np.abs(shown(host) - shown(graph)).mean() < MEAN


@pytest.mark.filterwarnings("ignore:The external source node")  # `rgb` is not itself here
@pytest.mark.parametrize("known", [{"slices": True}, {"images": True}, {"slices": True, "images": True}, {}])
def test_the_graph_for_a_gpu_can_be_drawn(known: dict[str, bool], monkeypatch: pytest.MonkeyPatch) -> None:
    """As far as that goes without one: the branches meet, and one chain of operators follows."""
    for module in (graph, picture):
        monkeypatch.setattr(module, "rgb", do_not_convert(lambda planes, _: fn.stack(*[planes] * 3, axis=3)))
    drawn = SimpleNamespace(config=CONFIG, feeds=feeds(CONFIG, **known))
    options = {"batch_size": 2, "num_threads": 1, "device_id": 0, "exec_dynamic": True}
    pipeline = graph.build(drawn, device="gpu", parallel=False, **options)
    pipeline._build_graph()
    names = "".join(op.name for op in pipeline._ops)
    assert ("Image" in names, "Video" in names) == ("images" in known, "slices" in known)
    assert names.count("Resize") == len(CONFIG.views)


# --- broken ones


def spoilt(catalog: Catalog, folder: Path, member: int, spoil: Callable[[bytearray], None]) -> Catalog:
    """The same pack with all JPEGs of one sample changed."""
    rows: list[Recording] = list(catalog)
    path = folder / Path(rows[0].path).name
    data = bytearray(Path(rows[0].path).read_bytes())
    path.with_suffix(".arrow").write_bytes(Path(rows[0].path).with_suffix(".arrow").read_bytes())
    sample = opened(rows[member]).sample
    for at, size in zip(sample.lists["video_at"].tolist(), sample.lists["video_size"].tolist(), strict=True):
        begin = sample.row["begin"] + at
        jpeg = data[begin : begin + size]
        spoil(jpeg)
        data[begin : begin + size] = jpeg
        assert len(jpeg) == size
    path.write_bytes(data)
    return write(folder / "spoilt.parquet", [replace(row, path=str(path)) for row in rows])


def _nothing_left(jpeg: bytearray) -> None:
    jpeg[:] = bytes(len(jpeg))


def _no_beginning(jpeg: bytearray) -> None:
    jpeg[:200] = bytes(200)


def _bad_tables(jpeg: bytearray) -> None:
    """Alike in all frames, so that they can be joined."""
    at = jpeg.index(b"\xff\xc4")
    jpeg[at + 5 : at + 21] = b"\xff" * 16


def _other_bits(jpeg: bytearray) -> None:
    middle = len(jpeg) * 2 // 3
    jpeg[middle : middle + 40] = b"\xa5" * 40


def _cut_short(jpeg: bytearray) -> None:
    middle = len(jpeg) * 3 // 4
    jpeg[middle:] = b"\xff\xd9" + bytes(len(jpeg) - middle - 2)


def _bits_missing(jpeg: bytearray) -> None:
    """As many bytes, but those at the end belong to no block."""
    middle = len(jpeg) * 3 // 4
    jpeg[middle:-2] = b"\xff\0" * ((len(jpeg) - middle - 2) // 2) + b"\0" * (len(jpeg) % 2 != middle % 2)


BROKEN, SPOILT = [_nothing_left, _bad_tables], [_no_beginning, _other_bits, _cut_short, _bits_missing]


@pytest.mark.parametrize("spoil", BROKEN + SPOILT)
def test_a_broken_jpeg_costs_its_sample(
    catalog: Catalog, tmp_path: Path, spoil: Callable[[bytearray], None]
) -> None:
    broken = spoilt(catalog, tmp_path, 1, spoil)
    (good,), graph = batches(catalog, decode="graph"), batches(broken, steps=2, decode="graph")
    host = batches(broken, steps=2, decode="host")
    others = torch.tensor([0, 2, 3])
    assert torch.equal(graph[0].sample_id, good.sample_id)
    for one, other in zip(host, graph, strict=True):
        assert torch.equal(one.valid, other.valid)
        assert bool(other.valid[others].all())
        assert_alike(shown(one)[others], shown(other)[others])
    assert not host[0].valid[1] or spoil in SPOILT  # something can be seen in those


def test_images_say_how_many_there_are(catalog: Catalog) -> None:
    images = opened(catalog[0]).images(np.array([0.5, 0.1, 0.5]))
    assert isinstance(images, Images) and images.decoded == 2
    assert images.index.tolist() == [1, 0, 1] and images.pts[0] == images.pts[2] > images.pts[1]
    assert images.shape.tolist() == [2, 64, 64, 3]
