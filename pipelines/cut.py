"""From a probed file to its recordings: which streams, which part of the file, which id."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from .config import Modality
from .datasets import Entry
from .probe import Probe, Reject
from .recording import AudioStream, Recording, VideoStream, sample_id


@dataclass(frozen=True)
class Policy:
    """Which streams a recording must have ("any": at least one), and the length of pieces, None for whole."""

    modalities: Sequence[Modality] | Literal["any"] = ("video", "audio")
    segment_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """An entry with its file on this machine and its key without a window."""

    path: str
    key: str
    entry: Entry
    weight: float = 1.0


def recordings(
    source: Source, probe: Probe, labels: Mapping[str, int], policy: Policy
) -> Iterator[Recording | Reject]:
    """The recordings of one entry, or why there are none."""
    video, audio = _streams(probe, policy)
    if reason := _lacking(probe, policy):
        yield Reject(source.path, reason)
        return
    start, end = _overlap(video, audio)
    if end <= start:
        yield Reject(source.path, "picture and sound do not overlap")
        return
    entry = source.entry
    for suffix, low, high in _windows(entry, start, end, policy.segment_seconds):
        if high <= low:
            yield Reject(
                source.path + suffix, "segment lies outside the file", f"it has {start:.2f}-{end:.2f} s"
            )
            continue
        key = source.key if entry.key and not policy.segment_seconds else source.key + suffix
        label = -1 if entry.label is None else labels[entry.label]
        yield Recording(sample_id(key), key, source.path, low, high, label, entry.split, video, audio)


def _streams(probe: Probe, policy: Policy) -> tuple[VideoStream | None, AudioStream | None]:
    wanted = ("video", "audio") if policy.modalities == "any" else policy.modalities
    return probe.video if "video" in wanted else None, probe.audio if "audio" in wanted else None


def _lacking(probe: Probe, policy: Policy) -> str:
    """Why a stream that must be there is not, or ""."""
    if policy.modalities == "any":
        return ""
    lacking = {"video": probe.no_video, "audio": probe.no_audio}
    return " and ".join(lacking[name] for name in policy.modalities if lacking[name])


def _overlap(*streams: VideoStream | AudioStream | None) -> tuple[float, float]:
    present = [stream for stream in streams if stream is not None]
    return max(s.start for s in present), min(s.start + s.duration for s in present)


def _windows(
    entry: Entry, start: float, end: float, seconds: float | None
) -> Iterator[tuple[str, float, float]]:
    """(suffix of the key, start, end) of every piece; suffixes are nominal, so that another probe cannot move ids."""
    low = start if entry.start is None else max(start, entry.start)
    high = end if entry.end is None else min(end, entry.end)
    suffix = ""
    if entry.start is not None or entry.end is not None:
        suffix = f"#{_number(entry.start or 0.0)}-{'' if entry.end is None else _number(entry.end)}"
    pieces = max(1, round((high - low) / seconds)) if seconds else 1
    if pieces == 1 or seconds is None:
        yield suffix, low, high
        return
    for piece in range(pieces):
        first, last = piece * seconds, (piece + 1) * seconds
        stop = high if piece == pieces - 1 else low + last
        yield f"{suffix}#{_number(first)}-{_number(last)}", low + first, stop


def _number(seconds: float) -> str:
    return f"{seconds:.3f}".rstrip("0").rstrip(".")
