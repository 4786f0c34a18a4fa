"""Host side of the loader: from a sample's place in the global batch to packets or frames, and to PCM.

A `Source` runs in worker processes. It never raises for a bad file: the sample is marked invalid, named and replaced.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from .bans import Bans
from .catalog import Catalog, Recording
from .config import DataConfig
from .feeds import STAGES, Arrays, blanks, feeds
from .media import Deadline, Frames, MediaError, audio_rate, open_media, read_audio, read_frames, stream_of
from .plan import AUDIO, VIDEO, ClipPlan, epoch_rows, plan, substitute_row
from .program import picture_tone, sound_program
from .resample import bank
from .slices import Slice, cut
from .temporal import Sound
from .timeline import Timeline, instants

MARGIN = 0.03  # seconds of clip time on each side of a window: real sound for the filter's taps and pitch's splices
WORTHWHILE = (
    0.5  # host frames are made smaller only by at least this much: resizing twice costs time and detail
)
ATTEMPTS = 3  # stand-ins tried before a blank one
PIXEL_FORMATS = {"yuv420p", "yuvj420p"}  # what DALI's decoders are known to take
BANNED = "banned"


@dataclass(frozen=True)
class Schedule:
    """Where every sample of every step stands: arithmetic on counters, no state.

    Attributes:
        samples: recordings in the catalog.  batch: global batch.  steps: an epoch.  rank, world: this process.
        first: global step of the first batch.  last: global step to stop before, or None.
    """

    samples: int
    batch: int
    steps: int
    rank: int = 0
    world: int = 1
    first: int = 0
    last: int | None = None

    @property
    def local(self) -> int:
        """Rows of the global batch that belong to this rank."""
        return self.batch // self.world

    def place(self, iteration: int, index: int) -> tuple[int, int, int]:
        """(global step, epoch, position in the epoch's order) of row `index` of this rank's batch `iteration`."""
        step = self.first + iteration
        if self.last is not None and step >= self.last:
            raise StopIteration
        epoch, within = divmod(step, self.steps)
        return step, epoch, within * self.batch + self.rank * self.local + index


@dataclass
class Source:
    """Callable for DALI's parallel external source: `SampleInfo` -> arrays in the order of `feeds(config)`."""

    catalog: Catalog
    config: DataConfig
    schedule: Schedule
    bans: Bans
    seed: int = 0
    shuffle: bool = True
    graph_codecs: frozenset[str] = frozenset()
    deadline: float = 20.0
    distrusted: frozenset[int] = frozenset()  # global steps that the graph refused: all decoding is done here
    _reformatter: VideoReformatter | None = field(default=None, repr=False)

    def __call__(self, info: Any) -> tuple[NDArray[np.generic], ...]:
        """The sample at DALI's `SampleInfo`."""
        step, epoch, position = self.schedule.place(info.iteration, info.idx_in_batch)
        arrays = self.sample(step, epoch, position)
        return tuple(np.asarray(arrays[f.name], f.dtype, order="C") for f in feeds(self.config))

    def sample(self, step: int, epoch: int, position: int) -> Arrays:
        """The sample at one place of the global order: its own clip, or a stand-in's with `valid` False."""
        row = int(epoch_rows(self.catalog, self.seed, epoch, np.array([position]), shuffle=self.shuffle)[0])
        recording = self.catalog[row]
        arrays, error = self._first_readable(recording, row, step, epoch)
        repeated = position >= self.schedule.samples  # fills up the last batch of a whole pass
        arrays |= {
            "sample_id": np.int64(recording.id),
            "label": np.int64(recording.label),
            "valid": np.bool_(not error and not repeated),
            "error": np.frombuffer((error or " ").encode()[:4096], np.uint8),
        }
        return arrays

    def _first_readable(self, recording: Recording, row: int, step: int, epoch: int) -> tuple[Arrays, str]:
        error = BANNED if self.bans.holds(recording.id, step) else ""
        for attempt in range(ATTEMPTS + 1):
            if not error or attempt:
                try:
                    return self._clips(row, epoch, step not in self.distrusted), error
                except MediaError as failure:
                    error = error or f"{recording.path}: {failure}"
                except Exception as failure:  # whatever a strange file sets off, it must not end the epoch
                    error = error or f"{recording.path}: {type(failure).__name__}: {failure}"
            row = substitute_row(self.catalog, self.seed, epoch, recording.id, attempt)
        return blanks(self.config), error

    def _clips(self, row: int, epoch: int, trust_graph: bool) -> Arrays:
        """Everything that one recording contributes. Raises MediaError."""
        clips = plan(self.catalog, self.config, seed=self.seed, epoch=epoch, rows=np.array([row]))
        recording, deadline = self.catalog[row], Deadline(self.deadline)
        arrays = blanks(self.config) | {"speed": clips.speed[0], "direction": clips.direction[0]}
        timing = dict.fromkeys(STAGES, 0.0)
        with _timed(timing, "open"):
            container = open_media(recording.path, deadline)
        with container:
            if "video" in self.config.modalities:
                with _timed(timing, "video"):
                    arrays |= self._video(container, recording, clips, trust_graph, deadline)
            if "audio" in self.config.modalities:
                with _timed(timing, "audio"):
                    arrays |= self._audio(container, clips, deadline)
        return arrays | {"timing": np.array([timing[stage] for stage in STAGES], np.float32)}

    def _video(
        self, container: Any, recording: Recording, clips: ClipPlan, trust_graph: bool, deadline: Deadline
    ) -> Arrays:
        stream = stream_of(container, "video")
        if stream is None or recording.video is None:
            raise MediaError("the picture that was catalogued is gone")
        seconds = self.config.clip_seconds
        u = instants(self.config.video.frames) * self.config.video.seconds / seconds
        timelines = [clips.timeline(0, v, VIDEO) for v in range(len(self.config.views))]
        times = clips.start[0][:, None] + seconds * np.stack([timeline.time(u) for timeline in timelines])
        look = np.concatenate([clips.crop[0], clips.colour[0], clips.blur[0][:, None]], axis=1)
        arrays: Arrays = {"look": look}
        if self.config.tones("video"):
            arrays["tone"] = np.stack([picture_tone(timeline, u) for timeline in timelines])
        if trust_graph and self._graph_decodes(recording, stream.codec_context):
            shown: Slice | Frames = (packets := cut(container, times.ravel(), deadline))
            arrays |= {"encoded": packets.data, "in_graph": np.bool_(True), "wanted": packets.wanted}
        else:
            shown = frames = self._host_frames(container, recording, times.ravel(), clips.crop[0], deadline)
            arrays |= {"pixels": frames.pixels}
        cost = np.array([shown.decoded, len(np.unique(shown.index))])
        index, pts = (numbers.reshape(times.shape) for numbers in (shown.index, shown.pts))
        return arrays | {"frames": index, "video_pts": pts, "cost": cost}

    def _graph_decodes(self, recording: Recording, codec: Any) -> bool:
        assert recording.video is not None
        return (
            recording.video.codec in self.graph_codecs
            and recording.video.rotation == 0
            and codec.pix_fmt in PIXEL_FORMATS
        )

    def _host_frames(
        self,
        container: Any,
        recording: Recording,
        times: NDArray[np.float64],
        crops: NDArray[np.float32],
        deadline: Deadline,
    ) -> Frames:
        """Whole frames, upright, no larger than the sharpest crop needs."""
        assert recording.video is not None
        self._reformatter = self._reformatter or VideoReformatter()
        coded = np.array([recording.video.width, recording.video.height])
        turns = recording.video.rotation // 90
        shown = coded[::-1] if turns % 2 else coded
        crop_pixels = np.abs(crops[:, 2:] - crops[:, :2]) * shown  # (V, 2)
        shrink = float((self.config.video.size / np.maximum(crop_pixels, 1.0)).max())
        width, height = (int(np.ceil(side * shrink)) for side in coded)
        resize = (width, height) if shrink <= WORTHWHILE else None
        frames = read_frames(container, times, deadline, resize=resize, reformatter=self._reformatter)
        upright = np.rot90(frames.pixels, -turns, axes=(1, 2)) if turns else frames.pixels
        return replace(frames, pixels=upright)

    def _audio(self, container: Any, clips: ClipPlan, deadline: Deadline) -> Arrays:
        if stream_of(container, "audio") is None:
            raise MediaError("the sound that was catalogued is gone")
        rate, config, seconds = audio_rate(container), self.config.audio, self.config.clip_seconds
        speeds, begins = clips.speed[0, :, AUDIO], clips.start[0] + clips.offset[0, :, AUDIO]
        margin = MARGIN * np.maximum(speeds, 1.0)
        low = np.floor((begins - margin) * rate).astype(int)
        high = np.ceil((begins + speeds * seconds + margin) * rate).astype(int)
        sound = read_audio(container, int(low.min()), int(high.max()), deadline)
        arrays: Arrays = {"audio_pts": np.zeros((len(speeds), 2))}
        ends = np.array([0.5, config.samples - 0.5]) / config.samples * config.seconds / seconds
        for v in range(len(speeds)):
            pcm = sound[low[v] - low.min() : high[v] - low.min()]
            played = Sound(pcm, float(rate), float(clips.start[0, v] * rate - low[v]))
            timeline = clips.timeline(0, v, AUDIO, played)
            arrays["audio_pts"][v] = clips.start[0, v] + seconds * timeline.time.unspliced()(ends)
            arrays |= {f"{name}{v}": array for name, array in self._played(played, timeline).items()}
        return arrays

    def _played(self, sound: Sound, timeline: Timeline) -> Arrays:
        """What the timeline operator needs of one view."""
        config, seconds = self.config.audio, self.config.clip_seconds
        program = sound_program(timeline, config.rate * seconds, sound.origin, seconds * sound.rate)
        rates = Fraction(int(sound.rate), config.rate)
        speed = timeline.time.steepest if config.antialias and config.speed_on == "waveform" else 1.0
        arrays = {"pcm": sound.pcm, **program._asdict(), "bank": bank(rates, speed)}
        return arrays | {"step": np.array([float(rates)])}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_reformatter": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        _die_with_parent()


def _die_with_parent() -> None:
    """A killed trainer must leave no worker behind. (PR_SET_PDEATHSIG goes by the *thread* that started it.)"""
    if parent := multiprocessing.parent_process():
        threading.Thread(target=_follow, args=(parent,), daemon=True).start()


def _follow(parent: Any) -> None:
    parent.join()
    os._exit(1)


@contextmanager
def _timed(timing: dict[str, float], stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    timing[stage] += time.perf_counter() - start
