"""Host side of the loader: from a sample's place in the global batch to packets or frames, and to PCM.

A `Source` runs in worker processes. It never raises for a bad file: the sample is marked invalid, named and replaced.
"""

from __future__ import annotations

import math
import multiprocessing
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from .bans import Bans
from .catalog import Catalog
from .config import DataConfig
from .facts import LONGEST, facts, packed
from .feeds import Arrays, Feed, blanks, feeds
from .listings import SUFFIX, Listings
from .media import Deadline, Frames, MediaError
from .opened import Media, opened
from .packed.jpegs import IMAGES, MJPEG, Images
from .packed.shards import Shards
from .plan import AUDIO, VIDEO, ClipPlan, epoch_row, plan, substitute_row
from .planes import Cutter, kept
from .program import picture_tone, sound_program
from .recording import Recording, VideoStream
from .resample import bank, thin
from .schedule import Schedule
from .slices import Slice
from .temporal import Sound
from .timeline import Timeline, instants
from .watch import Watch
from .worker import serve

MARGIN = 0.03  # seconds of clip time on each side of a window: real sound for the filter's taps and pitch's splices
WORTHWHILE = (
    0.25  # host frames are made smaller only by at least this much: resizing twice costs time and detail
)
ATTEMPTS = 3  # stand-ins tried before a blank one
PIXEL_FORMATS = {"yuv420p", "yuvj420p"}  # what DALI's decoders are known to take
BANNED = "banned"
GRACE = 2.0  # deadlines that a worker process has for a file before it is ended: native code may not look at the clock


@dataclass
class Source:
    """Callable for DALI's parallel external source: `SampleInfo` -> arrays in the order of `feeds`."""

    catalog: Catalog
    config: DataConfig
    schedule: Schedule
    bans: Bans
    seed: int = 0
    shuffle: bool = True
    pool: int = 0
    graph_codecs: frozenset[str] = frozenset()
    deadline: float = 20.0
    distrusted: frozenset[int] = frozenset()  # global steps that the graph refused: all decoding is done here
    watch: Watch = field(default_factory=Watch, repr=False)
    shards: Shards = field(default_factory=Shards, repr=False)
    _reformatter: VideoReformatter | None = field(default=None, repr=False)

    def __call__(self, info: Any) -> tuple[NDArray[np.generic], ...]:
        """The sample at DALI's `SampleInfo`."""
        step, epoch, position = self.schedule.place(info.iteration, info.idx_in_batch)
        arrays = self.sample(step, epoch, position)
        arrays["facts"] = packed(arrays, self._facts)
        return tuple(np.asarray(arrays[f.name], f.dtype, order="C") for f in self.feeds)

    @cached_property
    def feeds(self) -> tuple[Feed, ...]:
        """What each sample consists of, in order."""
        slices, images = bool(self.graph_codecs - {IMAGES}), IMAGES in self.graph_codecs
        return feeds(self.config, slices=slices, images=images)

    @cached_property
    def listings(self) -> Listings:
        """What is known of the packets of files."""
        return Listings(self.catalog.path.with_suffix(SUFFIX))

    @cached_property
    def _facts(self) -> np.dtype[np.void]:
        return facts(self.config)

    @cached_property
    def _blank(self) -> Arrays:
        known = np.zeros((), self._facts)
        return {name: known[name] for name in self._facts.names or ()} | blanks(self.feeds)

    def sample(self, step: int, epoch: int, position: int) -> Arrays:
        """The sample at one place of the global order: its own clip, or a stand-in's with `valid` False."""
        row = epoch_row(self.catalog, self.seed, epoch, position, shuffle=self.shuffle, pool=self.pool)
        recording = self.catalog[row]
        arrays, error = self._first_readable(recording, row, step, epoch)
        repeated = position >= self.schedule.samples  # fills up the last batch of a whole pass
        arrays |= {
            "sample_id": np.int64(recording.id),
            "label": np.int64(recording.label),
            "valid": np.bool_(not error and not repeated),
            "error": error.encode()[:LONGEST],
        }
        return arrays

    def _first_readable(self, recording: Recording, row: int, step: int, epoch: int) -> tuple[Arrays, str]:
        error = ""
        for attempt in range(ATTEMPTS + 1):
            sample = self.catalog[row].id
            if self.bans.holds(sample, step):
                error = error or BANNED
            else:
                try:
                    with self.watch.over(sample, step, GRACE * self.deadline + 1):
                        return self._clips(row, epoch, step not in self.distrusted), error
                except MediaError as failure:
                    error = error or f"{recording.name}: {failure}"
                except Exception as failure:  # whatever a strange file sets off, it must not end the epoch
                    error = error or f"{recording.name}: {type(failure).__name__}: {failure}"
            row = substitute_row(self.catalog, self.seed, epoch, recording.id, attempt)
        return dict(self._blank), error

    def _clips(self, row: int, epoch: int, trust_graph: bool) -> Arrays:
        """Everything that one recording contributes. Raises MediaError."""
        recording, deadline = self.catalog[row], Deadline(self.deadline)
        clips = plan(self.catalog, self.config, seed=self.seed, epoch=epoch, rows=np.array([row]))
        arrays = self._blank | {"speed": clips.speed[0], "direction": clips.direction[0]}
        deadline.at("open")
        with opened(recording, self.config.modalities, self.shards, self.listings, deadline) as media:
            deadline.at("plan")
            if "video" in self.config.modalities:
                arrays |= self._video(media, recording, clips, trust_graph)
                deadline.at("plan")
            if "audio" in self.config.modalities:
                arrays |= self._audio(media, clips, deadline)
            deadline.at("open")
        deadline.at("plan")
        return arrays | {"timing": np.array(list(deadline.spent.values()), np.float32)}

    def _video(self, media: Media, recording: Recording, clips: ClipPlan, trust_graph: bool) -> Arrays:
        assert recording.video is not None  # the loader leaves out what has no picture
        seconds = self.config.clip_seconds
        u = instants(self.config.video.frames) * self.config.video.seconds / seconds
        timelines = [clips.timeline(0, v, VIDEO) for v in range(len(self.config.views))]
        times = clips.start[0][:, None] + seconds * np.stack([timeline.time(u) for timeline in timelines])
        if slack := self.config.video.slack:
            around = (
                slack / self.config.video.fps * np.broadcast_to(clips.speed[0, :, VIDEO, None], times.shape)
            )
            times = media.near(times.ravel(), around.ravel()).reshape(times.shape)
        look = np.concatenate([clips.crop[0], clips.colour[0], clips.blur[0][:, None]], axis=1)
        arrays: Arrays = {"look": look}
        if self.config.tones("video"):
            arrays["tone"] = np.stack([picture_tone(timeline, u) for timeline in timelines])
        shown: Slice | Images | Frames | None = None
        if trust_graph and (shown := self._undecoded(media, recording.video, times.ravel())):
            arrays |= {"encoded": shown.data, "in_graph": np.bool_(True)}
            arrays |= {"wanted": shown.wanted} if isinstance(shown, Slice) else {"joined": shown.shape}
        else:
            cutter = self._cutter(recording.video, look[:, :4])
            shown = frames = media.frames(times.ravel(), cutter)
            arrays |= {"planes": frames.pixels, "matrix": cutter.matrix}
        cost = np.array([shown.decoded, len(np.unique(shown.index))])
        index, pts = (numbers.reshape(times.shape) for numbers in (shown.index, shown.pts))
        return arrays | {"frames": index, "video_pts": pts, "cost": cost}

    def _undecoded(
        self, media: Media, video: VideoStream, moments: NDArray[np.float64]
    ) -> Slice | Images | None:
        """What the graph decodes to show them; None where the host has to."""
        if video.rotation or video.pixel_format not in PIXEL_FORMATS:
            return None
        if video.codec == MJPEG and IMAGES in self.graph_codecs and (images := media.images(moments)):
            return images
        return media.cut(moments) if video.codec in self.graph_codecs else None

    def _cutter(self, video: VideoStream, crops: NDArray[np.float32]) -> Cutter:
        """What keeps of each frame as much as all views' crops (V, 4) need; these become shares of that, in place."""
        self._reformatter = self._reformatter or VideoReformatter()
        turns, coded = video.rotation // 90, np.array([video.width, video.height])
        upright = coded[::-1] if turns % 2 else coded
        step = np.abs(crops[:, 2:] - crops[:, :2]) * upright / self.config.video.size  # (V, 2) pixels
        shrink, size = 1 / max(float(step.min()), 1e-3), None
        if shrink <= WORTHWHILE:
            size = tuple(math.ceil(side * shrink) for side in coded)
            upright = np.array(size[::-1] if turns % 2 else size)
        box = kept(crops, upright, self.config.video.size)
        return Cutter(turns, box, size, self._reformatter)

    def _audio(self, media: Media, clips: ClipPlan, deadline: Deadline) -> Arrays:
        rate, seconds = media.rate, self.config.clip_seconds
        windows, starts = self._windows(clips, rate), clips.start[0].tolist()
        first = min(low for low, _ in windows)
        sound = media.sound(first, max(high for _, high in windows))
        deadline.at("plan")
        arrays: Arrays = {"audio_pts": np.zeros((len(windows), 2))}
        for v, (start, (low, high)) in enumerate(zip(starts, windows, strict=True)):
            played = Sound(sound[low - first : high - first], float(rate), start * rate - low)
            timeline = clips.timeline(0, v, AUDIO, played)
            arrays["audio_pts"][v] = start + seconds * timeline.time.unspliced()(self._ends)
            arrays |= {
                f"{name}{v}": array for name, array in self._played(played, timeline, deadline).items()
            }
        return arrays

    @cached_property
    def _ends(self) -> NDArray[np.float64]:
        """(2,) clip times of the first and the last sample of sound."""
        audio = self.config.audio
        ends = np.array([0.5, audio.samples - 0.5]) / audio.samples * audio.seconds
        return np.asarray(ends / self.config.clip_seconds)

    def _windows(self, clips: ClipPlan, rate: int) -> list[tuple[int, int]]:
        """[low, high) of every view's sound, in samples of the file."""
        seconds, windows = self.config.clip_seconds, []
        begins = (clips.start[0] + clips.offset[0, :, AUDIO]).tolist()
        for begin, speed in zip(begins, clips.speed[0, :, AUDIO].tolist(), strict=True):
            margin = MARGIN * max(speed, 1.0)
            high = math.ceil((begin + speed * seconds + margin) * rate)
            windows.append((math.floor((begin - margin) * rate), high))
        return windows

    def _played(self, sound: Sound, timeline: Timeline, deadline: Deadline) -> Arrays:
        """What the timeline operator needs of one view."""
        config, seconds = self.config.audio, self.config.clip_seconds
        rates = _ratio(int(sound.rate), config.rate)
        speed = timeline.time.steepest if config.antialias and config.speed_on == "waveform" else 1.0
        deadline.at("thin")
        pcm, every = thin(sound.pcm, float(rates) * speed)
        deadline.at("plan")
        origin, scale, rates = sound.origin / every, seconds * sound.rate / every, rates / every
        program = sound_program(timeline, config.rate * seconds, origin, scale)
        arrays = {"pcm": pcm, **program._asdict(), "bank": bank(rates, speed)}
        return arrays | {"step": np.array([float(rates)])}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_reformatter": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if parent := multiprocessing.parent_process():
            serve(parent)


_ratio = lru_cache(Fraction)  # files have few rates
