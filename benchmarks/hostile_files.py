"""Small films for the robustness campaign: good ones under many names, and every way to be broken or strange."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from coaug.pipelines.scheduling import ordinary_scheduling

LABELS = ("ant", "bee")  # a folder each: what is broken stands among what is good


@dataclass(frozen=True)
class Film:
    """A film to be written: noise that drifts, under a tone that is not quite steady."""

    suffix: str = ".mp4"
    codec: str | None = "libx264"
    sound: str | None = "aac"
    size: tuple[int, int] = (96, 64)
    fps: int = 24
    seconds: float = 3.0
    frames: int | None = None
    pixels: str = "yuv420p"
    layout: str = "mono"
    options: tuple[tuple[str, str], ...] = ()
    muxing: tuple[tuple[str, str], ...] = ()
    start: float = 0.0
    turn: int = 0
    irregular: bool = False
    seed: int = 0

    def write(self, path: Path) -> Path:
        """Encodes the film."""
        with av.open(str(path), "w", options=dict(self.muxing)) as out:
            picture, sound = self._picture(out), self._sound(out)
            with ordinary_scheduling():
                out.start_encoding()
            if picture is not None:
                self._draw(out, picture)
            if sound is not None:
                self._play(out, sound)
        return path

    @property
    def _tick(self) -> Fraction:
        return Fraction(1, self.fps * (2 if self.irregular else 1))

    def _picture(self, out: Any) -> Any:
        if self.codec is None:
            return None
        stream = out.add_stream(self.codec, rate=self.fps, options=dict(self.options))
        stream.width, stream.height = self.size
        stream.pix_fmt = self.pixels
        stream.codec_context.time_base = stream.time_base = self._tick
        stream.codec_context.thread_count, stream.codec_context.bit_rate = 1, 300_000
        stream.codec_context.gop_size = 12
        if self.turn:
            stream.set_display_rotation(-self.turn)
        return stream

    def _sound(self, out: Any) -> Any:
        if self.sound is None:
            return None
        rate = {"libopus": 48000, "libmp3lame": 44100}.get(self.sound, 32000)
        return out.add_stream(self.sound, rate=rate, layout=self.layout)

    def _draw(self, out: Any, stream: Any) -> None:
        noise = np.random.default_rng(self.seed).integers(0, 256, (12, 16, 3), np.uint8)
        place = round(self.start / self._tick)
        for number in range(self.frames or round(self.seconds * self.fps)):
            drifted = av.VideoFrame.from_ndarray(np.roll(noise, (number // 3, number), (0, 1)), "rgb24")
            frame = drifted.reformat(*self.size, self.pixels)
            frame.pts, frame.time_base = place, self._tick
            place += (1, 3, 2, 6)[number % 4] if self.irregular else 1
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))

    def _play(self, out: Any, stream: Any) -> None:
        rate, channels = stream.codec_context.sample_rate, stream.codec_context.layout.nb_channels
        first, count = round(self.start * rate), round(self.seconds * rate)
        times = np.arange(count) / rate
        wave = 0.4 * np.sin(2 * np.pi * (300 + 20 * self.seed) * times + 3 * np.sin(5 * times))
        for at in range(0, count, 1024):
            part = np.tile(wave[at : at + 1024].astype(np.float32), (channels, 1))
            frame = av.AudioFrame.from_ndarray(part, format="fltp", layout=self.layout)
            frame.sample_rate, frame.pts, frame.time_base = rate, first + at, Fraction(1, rate)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


def _all(*films: Film, **changes: Any) -> tuple[Film, ...]:
    return tuple(replace(film, **changes) for film in films)


VPX = (("deadline", "realtime"), ("cpu-used", "8"))
FIELDS = (("flags", "+ildct+ilme"),)
AS_IS = (("avoid_negative_ts", "disabled"),)
MP4 = Film(options=(("preset", "veryfast"),))
WEBM = Film(".webm", "libvpx-vp9", "libopus", options=VPX)
AVI = Film(".avi", "mpeg4", "libmp3lame")
MKV = Film(".mkv", "libvpx", "flac", options=VPX)
TS = Film(".ts", "mpeg2video", "mp2")
MJPEG = Film(".avi", "mjpeg", "pcm_s16le", pixels="yuvj420p")
PLAIN = (MP4, WEBM, AVI, MKV, TS, MJPEG)
STRANGE: dict[str, tuple[str, tuple[Film, ...]]] = {  # kind -> what should become of it, variants
    "audio only": ("no picture", _all(MP4, WEBM, MKV, codec=None)),
    "no audio": ("no sound", _all(MP4, WEBM, AVI, MKV, sound=None)),
    "1 frame": ("short", _all(MP4, WEBM, AVI, frames=1)),
    "1 s": ("short", _all(MP4, WEBM, AVI, seconds=1.0)),
    "10-bit": ("played", _all(MP4, replace(MKV, codec="ffv1", options=()), pixels="yuv420p10le")),
    "4:4:4": ("played", (*_all(MP4, WEBM, pixels="yuv444p"), replace(MJPEG, pixels="yuvj444p"))),
    "interlaced": ("played", _all(TS, AVI, MP4, options=FIELDS)),
    "rotated": ("played", (replace(MP4, turn=90), replace(MP4, turn=180), replace(MP4, turn=270))),
    "odd size": ("played", (*_all(WEBM, AVI, MKV, size=(97, 65)), replace(MP4, size=(95, 63), pixels="yuv444p"))),
    "VFR": ("played", _all(MP4, MKV, WEBM, irregular=True)),
    "5.1 audio": ("played", (*_all(MP4, MKV, layout="5.1"), replace(TS, sound="ac3", layout="5.1"))),
    "negative times": ("played", _all(MP4, MKV, WEBM, start=-1.0, muxing=AS_IS)),
    "huge times": ("played", (replace(MKV, start=1e7), replace(MP4, start=1e5), replace(TS, start=95442.0))),
}  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """A file of the collection, relative to its root.

    What should become of it, `outcome`, is "played", "short" (catalogued, but no clip fits), "unlisted" (not a file at
    all), "lost" (goes away while it is in use), "either" (as its remains allow), or why the index rejects it.
    """

    file: str
    kind: str
    outcome: str


class Collection:
    """Fills `mixed/` of a folder with all files, and `good/` with the good ones alone, under the same names.

    Args:
        films: distinct good films; all good files are links to these.
        files: how many in all; `broken` of them take the kinds in turn.
    """

    def __init__(self, folder: Path, films: int, files: int, broken: int, seed: int = 0) -> None:
        self.mixed, self.alone, self._store = folder / "mixed", folder / "good", folder / "films"
        for label in LABELS:
            (self.mixed / label).mkdir(parents=True)
            (self.alone / label).mkdir(parents=True)
        self._store.mkdir()
        self._rng = np.random.default_rng(seed)
        plain = (replace(PLAIN[n % len(PLAIN)], seed=n) for n in range(films))
        self._good = [self._stored(f"good {n}", film) for n, film in enumerate(plain)]
        kinds = [KINDS[n % len(KINDS)] for n in range(broken)] + ["good"] * (files - broken)
        turns = [n // len(KINDS) if n < broken else n for n in range(files)]
        places = self._rng.permutation(files).tolist()
        self.entries = sorted(map(self._entry, places, kinds, turns), key=lambda entry: entry.file)

    def _entry(self, place: int, kind: str, turn: int) -> Entry:
        base = f"{LABELS[place % len(LABELS)]}/{place:05d} {kind.replace(':', '')}"
        film, outcome = self._good[turn % len(self._good)], "played"
        if kind in SPOILT:
            suffix, outcome = SPOILT[kind](film, self.mixed / base, turn, self._rng)
            return Entry(base + suffix, kind, outcome)
        if kind in STRANGE:
            outcome, variants = STRANGE[kind]
            film = self._stored(f"{kind} {turn % len(variants)}", variants[turn % len(variants)])
        else:
            os.link(film, self.alone / (base + film.suffix))
        os.link(film, self.mixed / (base + film.suffix))
        return Entry(base + film.suffix, kind, outcome)

    def _stored(self, name: str, film: Film) -> Path:
        path = self._store / f"{name}{film.suffix}"
        return path if path.exists() else film.write(path)


# Each takes a good film, a path without suffix and how many of its kind there were before; it writes the spoilt file
# and returns its suffix and what should become of it.
Spoiler = Callable[[Path, Path, int, np.random.Generator], tuple[str, str]]


def _write(base: Path, suffix: str, data: bytes) -> None:
    base.with_name(base.name + suffix).write_bytes(data)


def truncated(film: Path, base: Path, turn: int, rng: np.random.Generator) -> tuple[str, str]:
    data = film.read_bytes()
    _write(base, film.suffix, data[: int(rng.integers(1, len(data)))])
    return film.suffix, "either"


def misnamed(film: Path, base: Path, turn: int, rng: np.random.Generator) -> tuple[str, str]:
    if turn % 3 == 2:
        _write(base, ".mp4", b"These are words, and no film.\n" * 40)
        return ".mp4", UNOPENED
    suffix = {".mp4": ".avi", ".webm": ".mp4", ".avi": ".webm", ".mkv": ".mov", ".ts": ".mkv"}[film.suffix]
    _write(base, suffix, film.read_bytes())
    return suffix, "played"


def empty(film: Path, base: Path, turn: int, rng: np.random.Generator) -> tuple[str, str]:
    _write(base, ".mp4", b"")
    return ".mp4", "empty file"


def header(film: Path, base: Path, turn: int, rng: np.random.Generator) -> tuple[str, str]:
    """What stands before the first packet: of an mp4, whose index is at the end, only its brand."""
    data = film.read_bytes()
    marks = {".mp4": b"mdat", ".avi": b"movi", ".webm": b"\x1f\x43\xb6\x75", ".mkv": b"\x1f\x43\xb6\x75"}
    end = data.index(marks[film.suffix]) if film.suffix in marks else 188
    _write(base, film.suffix, data[:end])
    return film.suffix, UNOPENED


def folder(film: Path, base: Path, turn: int, rng: np.random.Generator) -> tuple[str, str]:
    base.with_name(f"{base.name}.mp4").mkdir()
    return ".mp4", "unlisted"


def unreadable(film: Path, base: Path, turn: int, rng: np.random.Generator) -> tuple[str, str]:
    path = base.with_name(f"{base.name}.mp4")
    if os.geteuid():
        shutil.copy(film, path)
        path.chmod(0)
    else:  # may read whatever there is, but a link to itself is closed to everybody
        path.symlink_to(path.name)
    return ".mp4", "cannot be read"


def vanishing(film: Path, base: Path, turn: int, rng: np.random.Generator) -> tuple[str, str]:
    _write(base, film.suffix, film.read_bytes())
    return film.suffix, "lost"


UNOPENED = "not a media file, or cut off before its index"
SPOILT: dict[str, Spoiler] = {
    "truncated": truncated,
    "wrong extension": misnamed,
    "zero length": empty,
    "header only": header,
    "directory": folder,
    "unreadable": unreadable,
    "vanishing": vanishing,
}
KINDS = (*SPOILT, *STRANGE)


def take_away(path: Path, turn: int) -> None:
    """What happens to a "vanishing" file while it is in use: gone, emptied, cut or replaced by a folder."""
    if turn % 4 == 1:
        path.write_bytes(b"")
        return
    if turn % 4 == 2:
        os.truncate(path, 100)
        return
    path.unlink()
    if turn % 4 == 3:
        path.mkdir()
