"""Generated films for benchmarks, coded as collections come: made once, kept in a folder.

What they show drifts, turns and twinkles, with grain on top, so that motion, detail and bit rate (about 600 kbit/s in
H.264 at 340x256) are those of ordinary videos and not of a test card.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from coaug.pipelines.demo.encode import Format


@dataclass(frozen=True)
class Film:
    """What to make `count` of: `fps` frames of (width, height) a second for `seconds`, with stereo sound."""

    format: Format
    size: tuple[int, int] = (340, 256)
    seconds: int = 10
    count: int = 6
    fps: int = 30


DEFAULTS = {"preset": "medium"}  # x264's own: 3 B-frames, a key frame every 250, crf 23
REALTIME = {
    "deadline": "realtime",
    "cpu-used": "8",
    "row-mt": "0",
    "g": "128",
}  # libvpx's distance of key frames
VP9 = Format("webm", "libvpx-vp9", "libopus", REALTIME, bit_rate=400_000)
MJPEG = Format("matroska", "mjpeg", "flac", {"strict": "unofficial"}, bit_rate=4_000_000)
FILMS = {
    "h264.mp4": Film(Format("mp4", "libx264", "aac", DEFAULTS), count=12),
    "vp9.webm": Film(VP9),
    "mjpeg.mkv": Film(MJPEG, size=(224, 224)),
    "minute.webm": Film(VP9, seconds=60, count=3),
    "minute.mkv": Film(MJPEG, size=(224, 224), seconds=60, count=2),
}


def made(name: str, folder: Path) -> list[Path]:
    """The files of `FILMS[name]`; those that are missing are made."""
    film, (stem, suffix) = FILMS[name], name.split(".")
    paths = [folder / f"{stem}-{n}.{suffix}" for n in range(film.count)]
    for seed, path in enumerate(paths):
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            part = path.with_name(f".{path.name}")
            film.format.write(part, _recording(film, seed))  # type: ignore[arg-type]  # all that it asks of one
            part.rename(path)
    return paths


def _recording(film: Film, seed: int) -> SimpleNamespace:
    rng = np.random.default_rng(seed)
    width, height = film.size
    rate = 48000 if film.format.audio == "libopus" else 44100
    return SimpleNamespace(
        look=SimpleNamespace(width=width, height=height, rate=Fraction(film.fps)),
        frames=lambda: _pictures(rng, film),
        samples=lambda: _sound(rng, film.seconds, rate),
        channels=2,
        sample_rate=rate,
    )


def _pictures(rng: np.random.Generator, film: Film) -> Iterator[NDArray[np.uint8]]:
    """Two layers that move against each other, the nearer one with holes, cut to another place every few seconds."""
    (width, height), cut = film.size, 0
    for n in range(film.seconds * film.fps):
        if n >= cut:
            far, near = (_texture(rng, 2 * height, 2 * width) for _ in range(2))
            mask = gaussian_filter(rng.standard_normal((2 * height, 2 * width)), 12, mode="wrap") > 0.02
            pace, cut = rng.uniform(-3, 3, (2, 2)), n + int(rng.uniform(2, 5) * film.fps)
        (y, x), (v, u) = (pace * n).astype(int)
        there, here = np.roll(far, (y, x), (0, 1)), np.roll(near, (v, u), (0, 1))
        shown = np.where(np.roll(mask, (v, u), (0, 1))[..., None], here, there)[:height, :width]
        yield np.clip(shown + rng.normal(0, 2, (height, width, 1)), 0, 255).astype(np.uint8)


def _texture(rng: np.random.Generator, height: int, width: int) -> NDArray[np.float64]:
    """Detail of every size, large more than small, and a colour of its own."""
    grey = sum(
        sigma * gaussian_filter(rng.standard_normal((height, width)), sigma, mode="wrap")
        for sigma in (1, 2, 4, 8, 16)
    )
    colour = rng.uniform(-25, 25, (1, 1, 3)) * gaussian_filter(
        rng.standard_normal((height, width, 1)), (24, 24, 0), mode="wrap"
    )
    return np.asarray(128 + 45 * grey[..., None] + 40 * colour)


def _sound(rng: np.random.Generator, seconds: int, rate: int) -> NDArray[np.float32]:
    """Beats of noise over a few tones, (2, n)."""
    time = np.arange(seconds * rate) / rate
    tones = sum(np.sin(2 * np.pi * hertz * time) for hertz in rng.uniform(100, 4000, 6))
    beats = np.exp(-8 * (time * rng.uniform(1, 3) % 1))
    return np.stack([0.03 * tones + 0.1 * beats * rng.standard_normal(len(time)) for _ in range(2)]).astype(
        np.float32
    )
