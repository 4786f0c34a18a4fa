"""One media file -> its streams as they really are, found by reading and decoding, or the reason why not."""

from __future__ import annotations

import os
import stat
from dataclasses import asdict, dataclass, replace
from typing import Any

import av

from .declared import declared
from .demux import packets_of
from .listing import Listing
from .media import stream_of
from .recording import AudioStream, VideoStream
from .tracks import SILENCE_DB, Picture, Sound


@dataclass(frozen=True)
class Reject:
    """A file, or part of one, that cannot be used: `reason` groups, `detail` explains, `retry`: may pass next time."""

    path: str
    reason: str
    detail: str = ""
    retry: bool = False


@dataclass(frozen=True)
class Probe:
    """What a file holds. A stream that is None has its reason in `no_video` or `no_audio`; `packets` is the list of its
    packets, see `Listing.row`."""

    path: str
    video: VideoStream | None
    audio: AudioStream | None
    no_video: str = ""
    no_audio: str = ""
    packets: dict[str, Any] | None = None


def probe(path: str) -> Probe | Reject:
    """Opens, reads to the end and decodes samples of `path`. Never raises for a bad file, never prints."""
    level = av.logging.get_level()
    av.logging.set_level(None)
    try:
        _check_file(path)
        with av.open(path, metadata_errors="replace", timeout=30.0) as container:
            return _probe(path, container)
    except _Unfit as unfit:
        return Reject(path.encode(errors="backslashreplace").decode(), *unfit.args)
    except PermissionError as error:
        return Reject(path, "cannot be read", _short(error), retry=True)
    except (av.FFmpegError, OSError, ValueError) as error:
        retry = isinstance(error, OSError) and not isinstance(error, av.FFmpegError)
        return Reject(path, "not a media file, or cut off before its index", _short(error), retry)
    finally:
        av.logging.set_level(level)


def probe_json(path: str) -> dict[str, Any]:
    """`probe` for worker processes and journals: something that `from_json` turns back into its result."""
    try:
        return asdict(probe(path))
    except Exception as error:  # no file may end the run; its name and the error reach the table of rejects
        return asdict(Reject(path, "probing failed", f"{type(error).__name__}: {_short(error)}", retry=True))


def from_json(tree: dict[str, Any]) -> Probe | Reject:
    """The inverse of `probe_json`."""
    if "reason" in tree:
        return Reject(**tree)
    video, audio = tree["video"], tree["audio"]
    tree = {**tree, "video": video and VideoStream(**video), "audio": audio and AudioStream(**audio)}
    return Probe(**tree)


class _Unfit(Exception):
    """(reason, detail) of a Reject."""


def _check_file(path: str) -> None:
    try:
        path.encode()
    except UnicodeEncodeError:
        raise _Unfit("file name is not UTF-8") from None
    try:
        status = os.stat(path)
    except OSError as error:
        raise _Unfit("cannot be read", _short(error), True) from None
    if not stat.S_ISREG(status.st_mode):  # opening a named pipe would wait for ever
        raise _Unfit("not a regular file", "a folder" if stat.S_ISDIR(status.st_mode) else "")
    if status.st_size == 0:
        raise _Unfit("empty file", "0 bytes")
    with open(path, "rb"):  # tells a missing permission from a broken file
        pass


def _probe(path: str, container: Any) -> Probe | Reject:
    video, audio = stream_of(container, "video"), stream_of(container, "audio")
    if video is None and audio is None:
        return Reject(path, "neither picture nor sound")
    picture = Picture(video) if video is not None else None
    sound = Sound(audio) if audio is not None else None
    packets = _read(path, container, {"video": picture, "audio": sound})
    no_video = "no picture" if picture is None else picture.problem()
    no_audio = "no sound" if sound is None else sound.problem()
    if sound is not None and not no_audio:
        sound.sample(container)
        if sound.level <= SILENCE_DB:
            no_audio = "silent"
    if no_video and no_audio:
        present = [why for why, track in ((no_video, picture), (no_audio, sound)) if track is not None]
        return Reject(path, " and ".join(present))
    told = declared(path)
    return Probe(
        path,
        None if picture is None or no_video else replace(picture.describe(), declared="video" in told),
        None if sound is None or no_audio else replace(sound.describe(), declared="audio" in told),
        no_video,
        no_audio,
        packets,
    )


def _read(path: str, container: Any, tracks: dict[str, Any]) -> dict[str, Any] | None:
    """Shows every sound packet to its track, up to the end or to the first one that cannot be read; their list."""
    streams = {side: track.stream for side, track in tracks.items() if track is not None}
    by_index = {stream.index: tracks[side] for side, stream in streams.items()}
    listing, whole = Listing(path, streams), True
    try:
        for packet in packets_of(container, *streams.values()):
            if packet.is_corrupt:
                whole = False
            elif packet.size:
                by_index[packet.stream_index].feed(packet)
                listing.feed(packet)
    except av.FFmpegError:
        whole = False
    except ValueError:  # PyAV does not look for new streams
        raise _Unfit("a stream begins in the middle of the file") from None
    for track in by_index.values():
        track.decode(None)
    return listing.row(whole)


def _short(error: Any) -> str:
    return " ".join(str(getattr(error, "strerror", None) or error).split())[:200]
