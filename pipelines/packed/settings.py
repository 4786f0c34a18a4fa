"""What a pack is made of: codecs, size, how much of a stream one key frame carries."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ..recording import VideoStream
from ..table import CatalogError, replace
from .audio import AUDIO
from .video import VIDEO

STEP = 16  # sides are multiples of it: hardware decoders keep a session only for pictures without a margin
NAME = "pack.json"


@dataclass(frozen=True)
class Packing:
    """How recordings are packed.

    Attributes:
        video: a name from `VIDEO`: "layered", "h264", "mjpeg", or "copy", which leaves the packets as they are.
        size: pixels: the shorter side of every picture, which is never made larger, or (width, height) of all of them.
        keyint: frames from one key frame to the next.
        quality: of the codec's own scale, less is better; None: the codec's default.
        audio: a name from `AUDIO`: "flac" or "pcm".
        samples: recordings a shard.
    """

    video: str = "layered"
    size: int | tuple[int, int] = 128
    keyint: int = 16
    quality: int | None = None
    audio: str = "flac"
    samples: int = 256

    def __post_init__(self) -> None:
        for name, known in (("video", VIDEO), ("audio", AUDIO)):
            if getattr(self, name) not in known:
                raise CatalogError(f"--{name} {getattr(self, name)}: one of {', '.join(known)}")
        sides = (self.size,) if isinstance(self.size, int) else self.size
        if any(side < STEP or side % STEP for side in sides):
            raise CatalogError(f"--size {self.text}: sides must be multiples of {STEP} pixels")
        if self.keyint < 1 or self.samples < 1:
            raise CatalogError("--keyint and --samples must be at least 1")
        codec = VIDEO[self.video]
        if codec and self.quality is not None and not 1 <= self.quality <= codec.worst:
            raise CatalogError(f"--quality {self.quality}: 1 to {codec.worst} for {self.video}")

    @property
    def text(self) -> str:
        """The size as it is typed."""
        return str(self.size) if isinstance(self.size, int) else "{}x{}".format(*self.size)

    def stored(self, video: VideoStream) -> tuple[int, int]:
        """(width, height) that pictures of `video` are packed at, upright; as coded where they are copied."""
        if self.video == "copy":
            return video.width, video.height
        width, height = video.upright
        if isinstance(self.size, int):
            shrink = min(self.size / min(width, height), 1.0)
            return _multiple(width * shrink, width), _multiple(height * shrink, height)
        return self.size

    def save(self, folder: Path, catalog: str) -> None:
        """Keeps them in `folder`, for the catalog with this fingerprint.

        Raises:
            CatalogError: the folder was begun otherwise.
        """
        path, mine = folder / NAME, {"catalog": catalog, **json.loads(json.dumps(asdict(self)))}
        if path.exists():
            theirs = _read(path)
            changed = [key for key in mine if theirs.get(key) != mine[key]]
            if changed:
                was = ", ".join(f"{key} was {theirs.get(key)}" for key in changed)
                raise CatalogError(
                    f"{folder} holds another pack ({was}): choose another folder, or delete it"
                )
            return

        def fill(name: str) -> None:
            Path(name).write_text(json.dumps(mine, indent=1))

        replace(path, fill)

    @classmethod
    def of(cls, folder: Path) -> Packing:
        """Those that `folder` was begun with. Raises CatalogError."""
        known = _read(folder / NAME)
        size = known["size"]
        chosen: dict[str, Any] = {**known, "size": size if isinstance(size, int) else tuple(size)}
        chosen.pop("catalog")
        return cls(**chosen)


def size_of(text: str) -> int | tuple[int, int]:
    """ "128" or "176x128". Raises CatalogError."""
    try:
        sides = [int(side) for side in text.lower().split("x")]
    except ValueError:
        sides = []
    if len(sides) not in (1, 2):
        raise CatalogError(f"--size {text}: write the shorter side, such as 128, or WIDTHxHEIGHT")
    return sides[0] if len(sides) == 1 else (sides[0], sides[1])


def _multiple(side: float, most: int) -> int:
    return STEP * max(1, min(math.floor(side / STEP + 0.5), most // STEP))


def _read(path: Path) -> Mapping[str, Any]:
    try:
        known: dict[str, Any] = json.loads(path.read_text())
        return {"catalog": known["catalog"], **{f.name: known[f.name] for f in fields(Packing)}}
    except (OSError, ValueError, KeyError, TypeError):
        raise CatalogError(f"{path}: cannot be read; delete the folder and pack again") from None
