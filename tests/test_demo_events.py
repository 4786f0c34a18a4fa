"""The demo's films before encoding: what is seen and what is heard happen at the same instants."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from coaug.pipelines.demo.canvas import Canvas
from coaug.pipelines.demo.events import EVENTS
from coaug.pipelines.demo.picture import design
from coaug.pipelines.demo.recording import Recording
from coaug.pipelines.demo.score import Array, Score, compose

RATE, FPS = 24000, 30
HITS = (0.513, 1.287, 2.731, 3.349)
STRUCK = ("bounce", "pendulum", "drum", "clap", "typing", "xylophone", "string", "bell", "spark", "whistle")
GREY = np.array([[0.3] * 3, [0.3] * 3, [1.0] * 3], np.float32)


def _score(pitch: float = 0.5) -> Score:
    times = np.array([-1.5, -0.6, *HITS, 4.6, 5.5])
    steps = np.zeros(len(times))
    return Score(4.0, times, np.ones(len(times)), steps, pitch, 1.0, ring=0.07, seed=3)


def _films(name: str, score: Score) -> Array:
    """(T, H, W) grey pictures on black at 30 frames a second."""
    canvas, frames = Canvas(96, 96, GREY), []
    for n in range(round(score.seconds * FPS)):
        canvas.pixels[:] = 0
        EVENTS[name].paint(canvas, score, n / FPS)
        frames.append(canvas.pixels[..., 0].copy())
    return np.stack(frames)


def _light(frames: Array) -> Array:
    """Per frame: how much of the picture is brighter than an unlit body can be."""
    return np.asarray(np.maximum(frames - 0.32, 0).sum((1, 2)))


def _rises(level: Array, rate: float) -> Array:
    """Seconds at which a level leaves the quiet: rises by a fifth of its range within one step."""
    high = np.diff(level) > 0.2 * np.ptp(level)
    first = high & ~np.concatenate([[False], high[:-1]])
    return (np.flatnonzero(first) + 1) / rate


@pytest.mark.parametrize("name", STRUCK)
def test_light_and_sound_start_together(name: str) -> None:
    score = _score()
    wave = EVENTS[name].play(score, RATE)
    power = (wave.reshape(-1, RATE // 100) ** 2).mean(1) ** 0.5  # every 10 ms
    heard, seen = _rises(power, 100), _rises(_light(_films(name, score)), FPS)
    assert [np.abs(heard - hit).min() <= 0.02 for hit in HITS] == [True] * 4, heard
    assert len(seen) == 4, seen
    assert np.all((seen - HITS >= -1e-9) & (seen - HITS < 1 / FPS)), seen  # on screen at the next frame


def test_a_ball_is_lowest_and_a_bar_turns_when_it_sounds() -> None:
    score = _score()
    rows = np.arange(96)[None, :, None]
    ball = _films("bounce", score)[:, :78]  # without the floor
    height = (ball * rows[:, :78]).sum((1, 2)) / np.maximum(ball.sum((1, 2)), 1e-6)
    for hit in HITS:
        nearby = range(round((hit - 0.2) * FPS), round((hit + 0.2) * FPS))
        assert abs(max(nearby, key=lambda n: height[n]) / FPS - hit) <= 1.5 / FPS
    middle = _films("bar", score)[:, :, 44:52].argmax(1).mean(1)  # the bar's upper edge
    turns = np.flatnonzero(np.diff(np.sign(np.diff(middle))))
    assert all(min(abs((turns + 1) / FPS - hit)) <= 2 / FPS for hit in HITS[1:])


@pytest.mark.parametrize("name", sorted(EVENTS))
def test_every_event_moves_and_sounds_and_follows_its_pitch(name: str) -> None:
    assert np.abs(np.diff(_films(name, _score()), axis=0)).sum(1).max() > 0.5
    low, high = (_centroid(EVENTS[name].play(_score(pitch), RATE)) for pitch in (0.1, 0.9))
    assert high > 1.2 * low


def _centroid(wave: Array) -> float:
    assert wave.dtype == np.float32
    assert wave.shape == (4 * RATE,)
    assert np.isfinite(wave).all()
    power = np.abs(np.fft.rfft(wave)) ** 2
    return float((power * np.fft.rfftfreq(len(wave), 1 / RATE)).sum() / power.sum())


def test_scores_are_irregular_and_hold_their_tempo() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        score = compose(rng, 6.5, rng.random(3), held_out=False)
        gaps = np.diff(score.times)
        assert score.times[0] <= -1.0 < 6.5 < score.times[-1]  # movements go on beyond both ends
        assert gaps.min() >= 0.199
        assert gaps.std() > 0.01
        assert 0.6 < gaps.mean() * score.tempo < 1.6


def test_held_out_pitches_and_hues_lie_between_those_of_training() -> None:
    rng = np.random.default_rng(1)
    parts = {
        held: np.array([compose(rng, 6.0, rng.random(3), held).pitch * 6 % 1 for _ in range(200)])
        for held in (False, True)
    }
    assert np.all(abs(parts[True] - 0.5) <= 1 / 6 + 1e-9)
    assert np.all(abs(parts[False] - 0.5) >= 1 / 6 - 1e-9)
    hues = {
        held: np.concatenate([_hues(design(rng, held, True).palette) for _ in range(50)])
        for held in (False, True)
    }
    assert np.all(hues[True] * 6 % 1 >= 0.5 - 1e-3)
    assert np.all((hues[False] * 6 % 1 <= 0.5 + 1e-3) | (hues[False] * 6 % 1 >= 1 - 1e-3))


def _hues(palette: Array) -> Array:
    import colorsys

    return np.array([colorsys.rgb_to_hls(*map(float, rgb))[0] for rgb in palette])


def test_a_recording_depends_on_its_numbers_alone() -> None:
    first, again, other = (Recording.draw("train", seed, 5) for seed in (0, 0, 1))
    assert all(np.array_equal(a, b) for a, b in zip(first.frames(), again.frames(), strict=True))
    assert np.array_equal(first.samples(), again.samples())
    assert not np.array_equal(first.score.times[:3], other.score.times[:3])


def test_the_look_is_not_heard() -> None:
    recording = dataclasses.replace(Recording.draw("train", 0, 2), channels=1)
    other = dataclasses.replace(recording, look=Recording.draw("train", 0, 3).look)
    assert np.array_equal(recording.samples(), other.samples())
