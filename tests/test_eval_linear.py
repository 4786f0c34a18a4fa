"""Linear probes against scikit-learn by hand, on features whose right answers are known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedShuffleSplit
from test_eval_features import batch_of
from torch import Tensor, nn

from coaug.eval import evaluate, linear
from coaug.eval.blocks import pooled
from coaug.eval.features import Features, collect
from coaug.eval.probe import STRENGTHS, fit
from coaug.eval.subject import EvalError, Subject
from coaug.models.avid_networks import AvidAudio, AvidVideo
from coaug.pipelines.batch import Batch

CLASSES = 4


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def features_of(count: int, seed: int, noise: float, label: Tensor | None = None) -> Features:
    """Video knows the class's first bit, audio its second; both are needed."""
    label = torch.arange(count) % CLASSES if label is None else label
    values = {}
    for side, bit in (("video", label % 2), ("audio", label // 2 % 2)):
        values[f"{side}_pool"] = (
            5 + 3 * bit[:, None] + noise * draw(count, 6, seed=seed + len(side) + len(values))
        )
    return Features(torch.arange(count) + 1000 * seed, label, values)


class Encoder(nn.Module):
    """Its blocks are two statistics of the clip."""

    def feature_maps(self, clips: Tensor) -> dict[str, Tensor]:
        return {"conv1": clips, "block1": clips, "block2": -clips[:, :1]}


@dataclass
class Plain:
    encoder: dict[str, nn.Module]

    def encoders(self) -> dict[str, nn.Module]:
        return self.encoder


class Untouched(nn.Module):
    """No batch gets to it."""


class Given:
    """Stands for a Subject whose features are there already; `more` are computed of `batches`."""

    split, train_split, seed = "test", "train", 3

    def __init__(
        self,
        train: Features,
        test: Features,
        encoders: dict[str, nn.Module] | None = None,
        untrained: Any = None,
        batches: Mapping[str, Batch] | None = None,
    ) -> None:
        self.train, self.test, self.untrained, self.batches = train, test, untrained, batches
        self.method = Plain(encoders or {})

    def more(self, split: str, compute: Callable[[Batch], Mapping[str, Tensor]]) -> Features:
        return collect([self.batches[split]] if self.batches else [], compute)


def by_hand(x: Tensor, y: Tensor, x_test: Tensor, y_test: Tensor, seed: int) -> float:
    """Standardise with numpy, choose C in a loop, count."""
    rows, label, asked = x.double().numpy(), y.numpy(), x_test.double().numpy()
    fitted, held = next(StratifiedShuffleSplit(1, test_size=0.25, random_state=seed).split(rows, label))

    def right(c: float, at: Any, queries: Any, answers: Any) -> float:
        mean, std = rows[at].mean(0), rows[at].std(0)
        model = LogisticRegression(C=c, max_iter=500).fit((rows[at] - mean) / std, label[at])
        return float((model.predict((queries - mean) / std) == answers).mean())

    scores = [right(c, fitted, rows[held], label[held]) for c in STRENGTHS]
    best = STRENGTHS[int(np.argmax(scores))]
    return right(best, np.arange(len(rows)), asked, y_test.numpy())


@pytest.mark.parametrize("noise", [1.0, 3.0])
def test_the_figures_are_those_of_scikit_learn_by_hand(noise: float) -> None:
    train, test = features_of(120, 1, noise), features_of(80, 2, noise)
    found = dict(linear.evaluate(Given(train, test)))  # type: ignore[arg-type]
    for side, names in {"video": ["video"], "audio": ["audio"], "both": ["video", "audio"]}.items():
        x, y = (torch.cat([f[f"{n}_pool"] for n in names], 1) for f in (train, test))
        assert found[f"linear.{side}.top1"] == by_hand(x, train.label, y, test.label, seed=3)
    assert found["linear.both.top1"] > max(found["linear.video.top1"], found["linear.audio.top1"])
    assert found["linear.chance.top1"] == 0.25
    assert set(found) == {f"linear.{side}.top1" for side in ("video", "audio", "both", "chance")}


def test_features_without_the_class_are_at_chance_and_with_it_perfect() -> None:
    train, test = features_of(400, 1, 0.1), features_of(400, 2, 0.1)
    label = torch.arange(400) % CLASSES
    noise = (
        Features(f.sample_id, label, {"audio_pool": draw(400, 5, seed=i)})
        for i, f in enumerate((train, test))
    )
    assert dict(linear.evaluate(Given(train, test)))["linear.both.top1"] == 1.0  # type: ignore[arg-type]
    found = dict(linear.evaluate(Given(*noise)))  # type: ignore[arg-type]
    assert found["linear.audio.top1"] == pytest.approx(0.25, abs=0.1)
    assert "linear.video.top1" not in found


def test_the_scale_of_a_feature_does_not_matter_and_a_constant_one_does_no_harm() -> None:
    train, test = features_of(120, 1, 1.0), features_of(80, 2, 1.0)
    scale, constant = torch.logspace(-6, 6, 6), torch.full((120, 1), 7.0)
    x, y = train["video_pool"], test["video_pool"]
    stretched = fit(torch.cat([x * scale, constant], 1), train.label, seed=3)
    plain = fit(x, train.label, seed=3)
    assert stretched.held_out == plain.held_out
    asked = torch.cat([y * scale, constant[:80]], 1)
    assert stretched.accuracy(asked, test.label) == plain.accuracy(y, test.label)


def test_rows_without_a_label_take_no_part() -> None:
    train, test = features_of(120, 1, 1.0), features_of(80, 2, 1.0)
    found = dict(linear.evaluate(Given(train, test)))  # type: ignore[arg-type]
    unknown = features_of(40, 9, 1.0, label=torch.full((40,), -1))

    def mixed(known: Features) -> Features:
        values = {name: torch.cat([unknown[name], known[name]]) for name in known.values}
        ids = torch.cat([unknown.sample_id, known.sample_id])
        return Features(ids, torch.cat([unknown.label, known.label]), values)

    assert dict(linear.evaluate(Given(mixed(train), mixed(test)))) == found  # type: ignore[arg-type]


def test_missing_labels_classes_and_features_are_named() -> None:
    train, test = features_of(12, 1, 1.0), features_of(8, 2, 1.0)
    nameless = Features(test.sample_id, torch.full((8,), -1), test.values)
    with pytest.raises(EvalError, match="linear: no recording of split 'test' has a label"):
        list(linear.evaluate(Given(train, nameless)))  # type: ignore[arg-type]
    one = Features(train.sample_id, torch.zeros(12, dtype=torch.int64), train.values)
    with pytest.raises(EvalError, match=r"needs two classes, the recordings to fit it on have \[0\]"):
        list(linear.evaluate(Given(one, test)))  # type: ignore[arg-type]
    bare = (Features(f.sample_id, f.label, {"video_z": f["video_pool"]}) for f in (train, test))
    with pytest.raises(EvalError, match="no features video_pool or audio_pool"):
        list(linear.evaluate(Given(*bare)))  # type: ignore[arg-type]


def test_blocks_and_untrained_encoders_are_probed() -> None:
    """Labels of `batch_of` are ids modulo 4; the class is written into the clips where the encoder finds it."""
    batches = {"train": batch_of(list(range(80))), "test": batch_of(list(range(100, 140)))}
    for batch in batches.values():
        assert batch.video is not None
        batch.video[:, :, 0] += 40 * batch.label[:, None, None, None, None]

    class Untrained(Plain):
        def features(self, batch: Batch) -> dict[str, Tensor]:
            assert batch.audio is not None
            return {"audio_pool": batch.audio.mean((2, 4))}

        def encoders(self) -> dict[str, nn.Module]:
            return {"video": Encoder()}

    train, test = (
        Features(b.sample_id, b.label, {"video_pool": draw(len(b), 3, seed=i)})
        for i, b in enumerate(batches.values())
    )
    encoders = {"video": Encoder(), "audio": nn.Identity()}
    given = Given(train, test, encoders, Untrained({}), batches)
    found = dict(linear.evaluate(given))  # type: ignore[arg-type]
    assert found["linear.block1.video.top1"] == 1.0
    assert found["linear.best.video.top1"] == 1.0
    assert found["linear.random.block1.video.top1"] == found["linear.random.best.video.top1"] == 1.0
    assert found["linear.random.audio.top1"] == pytest.approx(0.25, abs=0.2)
    names = {"chance", "video", "block1.video", "conv1.video", "block2.video", "best.video", "random.audio"}
    names |= {f"random.{stage}.video" for stage in ("conv1", "block1", "block2", "best")}
    assert set(found) == {f"linear.{name}.top1" for name in names}


def test_pooled_blocks_of_avids_networks_are_maxima_of_their_maps() -> None:
    batch = batch_of([1, 2], views=2)
    encoders = {"video": AvidVideo(4).eval(), "audio": AvidAudio(4).eval()}
    with torch.no_grad():
        found = pooled(encoders, batch)
        maps = encoders["video"].feature_maps(batch.video[1])  # type: ignore[index]
        last = encoders["audio"](batch.audio[0])  # type: ignore[index]
    assert set(found) == {
        f"{s}_{b}" for s in encoders for b in ("conv1", "block1", "block2", "block3", "block4")
    }
    assert found["video_block2"].shape == (2, 2, 8)
    torch.testing.assert_close(found["video_block2"][1], maps["block2"].amax((2, 3, 4)))
    torch.testing.assert_close(found["audio_block4"][0], last)
    assert pooled({"video": nn.Identity()}, batch) == {}


def test_what_an_evaluator_cannot_do_is_said_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import coaug.eval
    from coaug.engine import run_config

    def cannot(subject: Subject) -> Any:
        yield "before", 1.0
        raise EvalError("within: no labels")

    evaluators = {"within": cannot, "control": lambda subject: iter([("after", 2.0)])}
    monkeypatch.setattr(coaug.eval, "get_evaluator", evaluators.__getitem__)
    monkeypatch.setattr(Subject, "size", lambda self, split: 1)
    config = run_config.load("svaclr-demo", ["eval.evaluators=[within,control]"])
    found = evaluate(Any, None, config, torch.device("cpu"))  # type: ignore[arg-type]
    assert found == {"before": 1.0, "after": 2.0}
    assert "left out: within: no labels" in caplog.text


def test_a_split_without_recordings_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Subject, "size", lambda self, split: 0)
    subject = Subject(Untouched(), SimpleNamespace(path="x.parquet"), None, torch.device("cpu"))  # type: ignore[arg-type]
    with pytest.raises(EvalError, match=r"x\.parquet: no usable recording in split 'train'"):
        _ = subject.train


def test_untrained_is_the_same_method_every_time_and_leaves_the_random_state_alone() -> None:
    subjects = [Subject(None, None, None, torch.device("cpu"), fresh=lambda: nn.Linear(3, 2)) for _ in "ab"]  # type: ignore[arg-type, return-value]
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, second = (subject.untrained for subject in subjects)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.weight, second.weight)  # type: ignore[union-attr]
    assert not first.training  # type: ignore[union-attr]
