"""What `coaug view` shows, as arrays: a recording, the views of it, and how each of them is played."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..pipelines.config import DataConfig, Modality
from ..pipelines.curves import NOISE
from ..pipelines.plan import MODALITIES, ClipPlan
from ..pipelines.recording import Recording
from ..pipelines.timeline import TimeMap

Array = NDArray[np.float64]
MOMENTS = 4000  # of a clip, at which its timelines are drawn
CLOSE = 1e-6  # seconds, or shares
NAMES: Mapping[Modality, str] = {"video": "picture", "audio": "sound"}


@dataclass(frozen=True)
class Track:
    """How one modality of a view is played, at N even moments of the time that it lasts.

    Attributes:
        times: (N,) seconds of the clip.  source: (N,) seconds in the recording.  path: (N,) the same, nothing held.
        gain: (N,) factors.  fill: (N,) constants added, shares of white or of full scale.
        noise: (N,) whether noise is added.
        span: first and last second of the recording that is played.
        speed, direction: seconds of the recording a second of the clip, and 1 or -1.
    """

    times: Array
    source: Array
    path: Array
    gain: Array
    fill: Array
    noise: NDArray[np.bool_]
    span: tuple[float, float]
    speed: float
    direction: int

    @property
    def straight(self) -> bool:
        """Whether it is played forwards, from its first moment to its last."""
        expected = self.source[0] + self.speed * (self.times - self.times[0])
        return bool(np.allclose(self.source, expected, rtol=0, atol=CLOSE))

    @property
    def toned(self) -> bool:
        """Whether anything is louder, softer, brighter or darker, or replaced."""
        return bool(self.noise.any() or self.fill.any() or (np.abs(self.gain - 1) > CLOSE).any())

    def together(self, other: Track, *names: str) -> bool:
        """Whether the arrays of these names are the same as far as both tracks last."""
        n = min(len(self.times), len(other.times))
        pairs = ((getattr(self, name)[:n], getattr(other, name)[:n]) for name in names)
        return all(np.allclose(a, b, rtol=0, atol=CLOSE) for a, b in pairs)


@dataclass(frozen=True)
class Take:
    """One view, T frames, S samples and F bands by L frames of sound; what is absent is None.

    Attributes:
        recipe: its steps as they were written.  told: what was drawn, as phrases; none where nothing was.
        tracks: of the modalities in use.
        frames: (T, H, W, 3) uint8.  pts: (T,) seconds in the recording.
        waveform: (S,).  decibels: (F, L).
        audio_pts: (2,) seconds in the recording, of the first and last sample.
    """

    recipe: str
    told: tuple[str, ...]
    tracks: Mapping[Modality, Track]
    frames: NDArray[np.uint8] | None
    pts: Array
    waveform: NDArray[np.floating] | None
    decibels: NDArray[np.floating] | None
    audio_pts: Array

    @property
    def loudest(self) -> int:
        """The band with most power over the whole clip."""
        assert self.decibels is not None
        return int((10 ** (self.decibels / 10)).mean(axis=1).argmax())

    def agree(self, *names: str) -> bool:
        """Whether picture and sound have the same `names` of `Track`, or there is only one of them."""
        first, *rest = self.tracks.values()
        return all(first.together(track, *names) for track in rest)

    @property
    def parts(self) -> dict[str, Track]:
        """The tracks that play different parts of the recording, by name; the longer one where both play the same.

        Lengths may differ by a tenth, such as 8 frames at 7.5 a second and one second of sound.
        """
        lengths = [track.times[-1] for track in self.tracks.values()]
        if self.agree("path") and min(lengths) > 0.9 * max(lengths):
            return {"": max(self.tracks.values(), key=lambda track: track.times[-1])}
        return {NAMES[name]: track for name, track in self.tracks.items()}


@dataclass(frozen=True)
class Sheet:
    """A recording and takes of it.

    `bands`: (F,) Hz, centres of the spectrograms' rows. `origin` says whose views they are, `notes` what is not shown.
    """

    recording: Recording
    config: DataConfig
    takes: tuple[Take, ...]
    bands: Array
    origin: str
    notes: tuple[str, ...] = ()

    @property
    def facts(self) -> str:
        """The file in one line."""
        parts = [f"{self.recording.duration:.2f} s"]
        if v := self.recording.video:
            turned = f", turned {v.rotation}°" if v.rotation else ""
            rhythm = ", uneven" if v.vfr else ""
            parts.append(f"{v.codec} {v.width}×{v.height}{turned}, {v.fps:.4g} frames/s{rhythm}")
        if a := self.recording.audio:
            channels = {1: "mono", 2: "stereo"}.get(a.channels, f"{a.channels} channels")
            parts.append(f"{a.codec} {a.rate / 1000:g} kHz {channels}")
        return "   ·   ".join((*parts, self.origin, *self.notes))

    @property
    def shapes(self) -> str:
        """What an encoder is given, in one line."""
        v, a = self.config.video, self.config.audio
        name = {"mel": "mel bands", "linear": "bins", "paired": "pairs of bins"}[a.spectrum]
        sound = f"{a.stft_bands} {name} × {a.stft_frames}, {1000 * a.hop:.3g} ms apart"
        if a.resize:
            sound += f", resized to {a.resize[0]}×{a.resize[1]}"
        given = {"video": f"{v.frames} frames of {v.size}×{v.size}, {v.fps:g} a second", "audio": sound}
        return "   ·   ".join(given[name] for name in self.config.modalities)


def tracks(plan: ClipPlan, view: int) -> dict[Modality, Track]:
    """The tracks of one view of the plan's first sample."""
    return {name: _track(plan, view, name) for name in plan.config.modalities}


def _track(plan: ClipPlan, view: int, name: Modality) -> Track:
    at = (0, view, MODALITIES.index(name))
    timeline, seconds = plan.timeline(*at), plan.config.clip_seconds
    share = plan.config.lengths[name] / seconds
    u = (np.arange(MOMENTS) + 0.5) / MOMENTS
    u = u[u < share]
    time = timeline.time.unspliced()
    free = TimeMap(tuple(replace(stage, hold=0.0) for stage in time.stages))  # a hold plays less, no less far
    path, ends = (plan.start[0, view] + seconds * free(x) for x in (u, np.append(u, [0.0, share - 1e-9])))
    plain, noisy = _fills([[(f(u), f.curve.kind == NOISE) for f in product] for product in timeline.fill], u)
    return Track(
        times=u * seconds,
        source=plan.start[0, view] + seconds * time(u),
        path=path,
        gain=timeline.gains(u),
        fill=plain,
        noise=noisy,
        span=(float(ends.min()), float(ends.max())),
        speed=float(plan.speed[at]),
        direction=int(plan.direction[at]),
    )


def _fills(products: list[list[tuple[Array, bool]]], u: Array) -> tuple[Array, NDArray[np.bool_]]:
    """Constants added at each of `u`, and whether noise is."""
    plain, noisy = np.zeros(len(u)), np.zeros(len(u), bool)
    for factors in products:
        level = np.prod([values for values, noise in factors if not noise] or [np.ones(len(u))], axis=0)
        if any(noise for _, noise in factors):
            noisy |= level != 0
        else:
            plain += level
    return plain, noisy
