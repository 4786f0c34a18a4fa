"""AVID-CMA's data loader (Morgado et al., CVPR 2021) as a peer: what does one of its clips cost on one core?

    python benchmarks/avid_loader.py FILE... [--speeds 1 2 3 4]

Re-implemented, not copied, from what github.com/facebookresearch/AVID-CMA does in datasets/video_db.py,
datasets/preprocessing.py, utils/ioutils/av_wrappers.py and utils/videotransforms/. Given its draws, pixels and samples
are equal to the last bit; decibels differ by float32's rounding (0.05 dB in the quietest bins). Kept of its design:

    one open     for picture and sound of a file; the sound is read after the picture
    seeking      without naming a stream: sound is decoded from the picture's key frame on, and missed if stored far off
    frames       index = time x average rate; all from the key frame to the last wanted one are decoded
    pictures     PIL, an image at a time: crop, resize, flip, and four jitters in one random order for the clip
    sound        FFmpeg's resampler, a frame at a time, to mono s16; trimmed or padded, 10 % louder or softer
    spectrogram  |STFT|^2, bins averaged in pairs, decibels down to 100 under the loudest, z-norm of every band
    speed        its video_fps and audio_fps divided by s, its durations multiplied: read slowly, played as usual

What gives the same for less is done the cheaper way, to have the peer at its best: tensors built in float32, not
float64, RGB by one context of swscale, not one a frame, no frame decoded after the last (4 ms of a clip's 50 saved),
torch's STFT, not librosa's, times compared without fractions (2 ms). The original, on one thread as well, takes 1.10 to
1.15 times as long for the same clips. PIL is called as torchvision calls it, without torchvision. Codecs and swscale
run on one thread here; on all cores, as theirs, they took 9 to 15 % more CPU seconds (two cores).
Left out: the offset drawn between sound and picture; the z-norm's statistics, neutral unless given; every error
becoming the next item. Streams that declare no duration (Matroska), an error there, take their container's.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import av
import numpy as np
import torch
from av.audio.resampler import AudioResampler
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray
from PIL import Image, ImageEnhance
from threadpoolctl import threadpool_limits
from torch import Tensor

Pictures = list[Image.Image]
MEAN, STD = (torch.tensor(v).view(3, 1, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))


@dataclass(kw_only=True)
class AvidLoader:
    """Clips of `frames` pictures of size² at `fps`, and `audio_seconds` of sound in n_fft / 2 + 1 bands.

    Attributes:
        jitter: brightness, contrast, saturation, hue.  hop: seconds from one window, of 2 n_fft samples, to the next.
        stats: (mean, std) of each band in decibels.  draw: where all random numbers come from.
    """

    frames: int = 16
    fps: float = 16.0
    size: int = 112
    audio_seconds: float = 1.0
    audio_rate: int = 24000
    jitter: bool = True
    n_fft: int = 512
    hop: float = 0.01
    stats: tuple[Tensor, Tensor] = (torch.zeros(1), torch.ones(1))
    draw: random.Random = field(default_factory=lambda: random.Random(0))
    decoded: int = 0  # frames so far

    def clip(self, path: str, start: float, speed: float = 1.0) -> tuple[Tensor, Tensor]:
        """(3, T, S, S) pictures and (1, L, F) decibels from `start` seconds on, `speed` times as fast."""
        with opened(path) as container:
            pictures, start = self.picture(container, start, speed)
            return pictures, self.sound(container, start, speed)

    def picture(self, container: Any, start: float, speed: float = 1.0) -> tuple[Tensor, float]:
        """(3, T, S, S) normalised, and the second at which the first of the frames begins."""
        stream, seconds = container.streams.video[0], self.frames * speed / self.fps
        rate, (first, end) = float(stream.average_rate), limits(container, stream)
        times = np.arange(start, min(start + seconds - 0.5 / rate, end), speed / self.fps)[: self.frames]
        numbers = [int((moment - first) * rate) for moment in times]
        begin = numbers[0] / rate
        container.seek(int(begin * av.time_base))
        step = stream.time_base * stream.average_rate  # frames a tick, exactly
        images = shown_at(self._counted(container.decode(stream)), [math.ceil(n / step) for n in numbers])
        images = cropped(images, self.size, self.draw)
        images = jittered(images, self.draw) if self.jitter else images
        return as_tensor([images[n % len(images)] for n in range(self.frames)]), begin

    def _counted(self, frames: Iterable[Any]) -> Iterator[Any]:
        for frame in frames:
            self.decoded += 1
            yield frame

    def sound(self, container: Any, start: float, speed: float = 1.0) -> Tensor:
        """(1, L, F) z-normed decibels."""
        samples = self.samples(container, start, speed)
        return self.spectrogram(torch.from_numpy(samples * np.float32(self.draw.uniform(0.9, 1.1))))

    def samples(self, container: Any, start: float, speed: float = 1.0) -> NDArray[np.float32]:
        """(n,) mono samples; silence where the stream has none."""
        stream, rate = container.streams.audio[0], round(self.audio_rate / speed)
        seconds = min(speed * self.audio_seconds, limits(container, stream)[1] - start)
        container.seek(int(start * av.time_base))
        pcm, first = resampled(container.decode(stream), start, start + seconds, rate)
        heard = np.zeros(int(self.audio_seconds * self.audio_rate), np.float32)
        skip, length = int((start - first) * rate), min(int(seconds * rate), len(heard))
        late = max(-skip, 0)  # sound may begin after `start`
        part = pcm[max(skip, 0) :][: max(length - late, 0)]
        heard[late : late + len(part)] = part / np.float32(np.iinfo(np.int16).max)
        return heard

    def spectrogram(self, samples: Tensor) -> Tensor:
        """(n,) -> (1, L, F)."""
        hop, length = int(self.hop * self.audio_rate), int(self.audio_seconds / self.hop)
        window = torch.hann_window(2 * self.n_fft)
        spectrum = torch.stft(samples, 2 * self.n_fft, hop, window=window, return_complex=True)[:, :length]
        power = spectrum.real.square().add_(spectrum.imag.square())
        paired = torch.cat([power[:1], (power[1::2] + power[2::2]).mul_(0.5)])
        decibels = paired.clamp_min_(1e-10).log10_().mul_(10)
        floored = decibels.clamp_min_(float(decibels.max()) - 100).T
        return ((floored - self.stats[0]) / (self.stats[1] + 1e-5))[None]


def opened(path: str) -> Any:
    """A container whose codecs run on one thread."""
    container = av.open(path)
    for stream in (container.streams.video[0], container.streams.audio[0]):
        stream.thread_count = 1
    return container


def limits(container: Any, stream: Any) -> tuple[float, float]:
    """Seconds at which a stream begins and ends."""
    first = float((stream.start_time or 0) * stream.time_base)
    undeclared = stream.duration is None
    seconds = container.duration / av.time_base if undeclared else stream.duration * stream.time_base
    return first, first + float(seconds)


def shown_at(frames: Any, ticks: Sequence[int]) -> Pictures:
    """The first frame at or after each of the ticks, as images; fewer where the stream ends before."""
    images: Pictures = []
    reformatter = VideoReformatter()
    for frame in frames:
        if frame.pts < ticks[len(images)]:
            continue
        image = Image.fromarray(reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray())
        images += [image for tick in ticks[len(images) :] if tick <= frame.pts]
        if len(images) == len(ticks):
            break
    return images


def resampled(frames: Any, start: float, end: float, rate: int) -> tuple[NDArray[np.int16], float]:
    """Mono samples of the frames that touch [start, end], and the second at which the first of them begins."""
    resampler, parts, begins = AudioResampler(format="s16p", layout="mono", rate=rate), [], []
    for frame in frames:
        begin = frame.time
        if begin > end:
            break
        if begin + frame.samples / frame.sample_rate >= start:
            frame.pts = None  # the resampler then counts samples instead of mending gaps
            parts += [out.to_ndarray()[0] for out in resampler.resample(frame)]
            begins.append(begin)
    return np.concatenate(parts), begins[0]


def cropped(images: Pictures, size: int, draw: random.Random) -> Pictures:
    """A random box of all of them, resized, and all mirrored or none."""
    box = drawn_box(*images[0].size, draw)
    small = [image.crop(box).resize((size, size), Image.Resampling.BILINEAR) for image in images]
    if draw.random() >= 0.5:
        return small
    return [image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for image in small]


def drawn_box(width: int, height: int, draw: random.Random) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of a random share of the area and aspect; after ten misses the largest in the middle."""
    for _ in range(10):
        area = draw.uniform(0.08, 1) * width * height
        aspect = math.exp(draw.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if w <= width and h <= height:
            top, left = draw.randint(0, height - h), draw.randint(0, width - w)
            return left, top, left + w, top + h
    w, h = min(width, round(height * 4 / 3)), min(height, round(width * 4 / 3))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def jittered(images: Pictures, draw: random.Random) -> Pictures:
    """One draw of four factors and of their order, for all of them."""
    light, contrast, colour = (draw.uniform(0.6, 1.4) for _ in range(3))
    turn = int(draw.uniform(-0.2, 0.2) * 255)
    steps: list[Callable[[Image.Image], Image.Image]] = [
        lambda image: ImageEnhance.Brightness(image).enhance(light),
        lambda image: ImageEnhance.Color(image).enhance(colour),
        lambda image: turned(image, turn),
        lambda image: ImageEnhance.Contrast(image).enhance(contrast),
    ]
    draw.shuffle(steps)
    for step in steps:
        images = [step(image) for image in images]
    return images


def turned(image: Image.Image, turn: int) -> Image.Image:
    """The hue moved by `turn` of 256 steps."""
    hue, *others = image.convert("HSV").split()
    moved = hue.point([(value + turn) % 256 for value in range(256)])
    return Image.merge("HSV", (moved, *others)).convert("RGB")


def as_tensor(images: Pictures) -> Tensor:
    """(3, T, S, S) float32, normalised with ImageNet's statistics."""
    planes = torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(3, 0, 1, 2)
    pixels = planes.to(torch.float32, memory_format=torch.contiguous_format)
    return pixels.div_(255).sub_(MEAN).div_(STD)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("files", nargs="+", help="videos with sound")
    parser.add_argument("--speeds", type=float, nargs="+", default=[1.0], help="one is drawn for each clip")
    parser.add_argument("--clips", type=int, default=60)
    options = parser.parse_args()
    torch.set_num_threads(1)
    threadpool_limits(1)  # of NumPy's BLAS
    loaders = {"with colour jitter": AvidLoader(), "without": AvidLoader(jitter=False)}
    costs: dict[str, list[list[float]]] = {name: [] for name in loaders}
    draw, warm = random.Random(0), len(options.files)  # the first clip of each file warms caches
    for n in range(warm + options.clips):
        path, speed = options.files[n % warm], draw.choice(options.speeds)
        start = draw.uniform(0, seconds_of(path) - 1.01 * speed)
        for name, loader in loaders.items():
            costs[name].append(timed(loader, path, start, speed))
    for name, each in costs.items():  # means and not medians, so that they add up
        opening, picture, sound = np.mean(each[warm:], axis=0)
        clip, error = (
            opening + picture + sound,
            np.std(np.sum(each[warm:], axis=1)) / math.sqrt(options.clips),
        )
        parts = f"opening {opening:.1f}, picture {picture:.1f}, sound {sound:.1f}"
        print(f"{name:>18}: {clip:.1f} ± {error:.1f} CPU ms a clip ({parts})")


def seconds_of(path: str) -> float:
    """Seconds until the first of both streams ends."""
    with opened(path) as container:
        return min(limits(container, s)[1] for s in (container.streams.video[0], container.streams.audio[0]))


def timed(loader: AvidLoader, path: str, start: float, speed: float) -> list[float]:
    """CPU milliseconds of opening, of the picture and of the sound."""
    ticks = [time.process_time()]
    with opened(path) as container:
        ticks.append(time.process_time())
        _, begin = loader.picture(container, start, speed)
        ticks.append(time.process_time())
        loader.sound(container, begin, speed)
    return list(1e3 * np.diff([*ticks, time.process_time()]))


if __name__ == "__main__":
    main()
