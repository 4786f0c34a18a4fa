"""Retrieval's keys and the controls, on features whose right answers are known."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from coaug.eval import control, evaluate, get_evaluator, retrieval
from coaug.eval.control import derange, swap
from coaug.eval.features import Features
from coaug.eval.metrics import recall, share_found
from coaug.eval.subject import EvalError

CLASSES, EACH = 8, 10
N = CLASSES * EACH


class Given:
    """Stands for a Subject whose features are there already."""

    def __init__(self, test: Features, known: Features | None = None) -> None:
        self.test, self.known, self.seed, self.train_split = test, known, 0, "train"

    def stills(self, limit: int) -> Features:
        assert self.known is not None
        return self.known

    def size(self, split: str | None) -> int:
        return len(self.known) if self.known else 0


def features_of(**values: Tensor) -> Features:
    return Features(torch.arange(N) + 1000, torch.arange(N) % CLASSES, values)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def knows_recordings() -> Features:
    """Same-recording R@1 of 1, the class being visible too."""
    z = draw(CLASSES, 24)[torch.arange(N) % CLASSES] + 0.3 * draw(N, 24, seed=1)
    return features_of(video_z=z, audio_z=z, video_pool=z, audio_pool=z.repeat(1, 2))


def knows_classes() -> Features:
    """Both sides know the class and nothing else about the recording."""
    z = draw(CLASSES, 24)[torch.arange(N) % CLASSES]
    return features_of(video_z=z + 0.2 * draw(N, 24, seed=1), audio_z=z + 0.2 * draw(N, 24, seed=2))


def test_retrieval_has_the_promised_keys_and_values() -> None:
    figures = dict(retrieval.evaluate(Given(knows_recordings())))  # type: ignore[arg-type]
    ways, ks = ("a2v", "v2a", "chance"), (1, 5, 10, 20)
    promised = {f"retrieval.{by}.{way}.r{k}" for by in ("class", "instance") for way in ways for k in ks}
    assert set(figures) == promised  # the pool5 widths differ
    assert figures["retrieval.instance.a2v.r1"] == 1.0
    assert figures["retrieval.class.v2a.r1"] == 1.0
    assert figures["retrieval.instance.chance.r5"] == pytest.approx(5 / N)
    assert figures["retrieval.class.chance.r1"] == pytest.approx(EACH / N)


def test_pool5_stands_beside_it_where_widths_agree() -> None:
    features = knows_recordings()
    features.values["audio_pool"] = features["video_pool"]
    figures = dict(retrieval.evaluate(Given(features)))  # type: ignore[arg-type]
    assert figures["retrieval_pool5.instance.v2a.r1"] == 1.0


def test_recordings_without_a_label_take_part_by_instance_only() -> None:
    features = knows_recordings()
    features.label[::2] = -1
    figures = dict(retrieval.evaluate(Given(features)))  # type: ignore[arg-type]
    assert figures["retrieval.instance.chance.r1"] == pytest.approx(1 / N)
    assert figures["retrieval.class.chance.r1"] == pytest.approx(EACH / (N / 2))
    features.label[:] = -1
    assert not any(".class." in key for key, _ in retrieval.evaluate(Given(features)))  # type: ignore[arg-type]


def test_swapping_takes_a_knower_of_recordings_to_class_level() -> None:
    figures = dict(swap(knows_recordings()))
    assert (
        figures["control.swap.instance.a2v.r1"] == 0.0
    )  # its own sound is always first, and is another's now
    assert figures["control.swap.expected.a2v.r1"] == pytest.approx(1 / EACH)
    assert figures["control.swap.expected.v2a.r10"] == pytest.approx(1.0)
    assert figures["control.swap.instance.v2a.r10"] == pytest.approx(1.0)
    assert figures["control.swap.lift"] == pytest.approx(EACH)
    assert figures["control.swap.ratio"] == 0.0


def test_a_knower_of_classes_is_at_class_level_already() -> None:
    figures = dict(swap(knows_classes(), rounds=60))
    assert figures["control.swap.ratio"] == pytest.approx(1.0, abs=0.15)
    assert 0.4 < figures["control.swap.lift"] < 1.7  # 80 queries at 10 %


def test_swaps_average_to_their_exact_expectation() -> None:
    """The sound of each other member is equally likely: (n · share found - own) / (n - 1)."""
    features = features_of(video_z=draw(N, 4), audio_z=draw(N, 4) + 0.7 * draw(N, 4, seed=3))
    figures = dict(swap(features, rounds=300))
    a, v, ids, labels = features["audio_z"], features["video_z"], features.sample_id, features.label
    for k in (1, 5, 10):
        exact = (EACH * share_found(a, v, labels, labels, (k,))[k] - recall(a, v, ids, ids, (k,))[k]) / (
            EACH - 1
        )
        assert figures[f"control.swap.instance.a2v.r{k}"] == pytest.approx(exact, abs=0.015)


def test_recordings_alone_in_their_class_are_not_asked_for() -> None:
    features = knows_recordings()
    features.label[:] = torch.arange(N)
    assert dict(swap(features)) == {}
    features.label[0] = 1
    assert dict(swap(features))["control.swap.expected.a2v.r1"] == pytest.approx(0.5)


@given(st.lists(st.integers(-1, 4), max_size=30), st.integers(0, 5))
def test_a_derangement_moves_every_row_within_its_class(labels: list[int], turn: int) -> None:
    keys = torch.tensor(labels, dtype=torch.int64)
    order = derange(keys, 0, turn)
    assert sorted(order.tolist()) == list(range(len(labels)))
    assert torch.equal(keys[order], keys)
    for row, other in enumerate(order.tolist()):
        alone = labels[row] < 0 or labels.count(labels[row]) < 2
        assert (other == row) == alone
    assert torch.equal(order, derange(keys, 0, turn))


def test_a_palette_that_gives_the_recording_away_is_found_out() -> None:
    hidden = draw(N + 300, 6)
    mix_v, mix_a = draw(6, 40, seed=1), draw(6, 20, seed=2)
    video, audio = (
        hidden @ mix_v + 0.1 * draw(N + 300, 40, seed=3),
        hidden @ mix_a + 0.1 * draw(N + 300, 20, seed=4),
    )
    known = Features(
        torch.arange(300), torch.zeros(300).long(), {"video_still": video[N:], "audio_still": audio[N:]}
    )
    test = features_of(**knows_recordings().values, video_still=video[:N], audio_still=audio[:N])
    figures = dict(control.static(Given(test, known)))  # type: ignore[arg-type]
    assert figures["control.static.ratio"] > 0.8
    clean = features_of(**knows_recordings().values, video_still=video[:N], audio_still=draw(N, 20, seed=9))
    figures = dict(control.static(Given(clean, known)))  # type: ignore[arg-type]
    assert figures["control.static.ratio"] < 0.1
    assert figures["control.static.instance.chance.r1"] == pytest.approx(1 / N)


def test_too_few_to_fit_on_is_said(caplog: pytest.LogCaptureFixture) -> None:
    figures = dict(control.evaluate(Given(knows_recordings())))  # type: ignore[arg-type]
    assert "control.static left out" in caplog.text
    assert set(figures) == set(dict(swap(knows_recordings())))


def test_an_unknown_evaluator_is_answered_with_the_nearest() -> None:
    with pytest.raises(EvalError, match="'retrival'; did you mean 'retrieval'"):
        get_evaluator("retrival")


def test_nothing_to_evaluate_is_a_warning(monkeypatch: Any, caplog: pytest.LogCaptureFixture) -> None:
    from coaug.engine import run_config
    from coaug.eval.subject import Subject

    monkeypatch.setattr(Subject, "size", lambda self, split: 0)
    config = run_config.load("svaclr")
    assert evaluate(None, None, config, torch.device("cpu")) == {}  # type: ignore[arg-type]
    assert "no usable recording in split 'test'" in caplog.text
