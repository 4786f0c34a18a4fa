"""Within-modal retrieval against loops in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_eval_linear import Given, draw

from coaug.eval import within
from coaug.eval.features import Features
from coaug.eval.metrics import chance, recall
from coaug.eval.subject import EvalError

KS = (1, 5, 10, 20)


def features_of(count: int, seed: int) -> Features:
    label = torch.arange(count) % 5
    names = ("video_z", "audio_z", "video_pool", "audio_pool")
    centres = {name: draw(5, 7, seed=i) for i, name in enumerate(names)}
    values = {n: centres[n][label] + draw(count, 7, seed=10 * seed + i) for i, n in enumerate(names)}
    return Features(torch.arange(count), label, values)


def literal(queries: Features, gallery: Features, name: str, k: int, leave_out: bool = False) -> float:
    x, y = (f[name].double().numpy() for f in (queries, gallery))
    hits = 0
    for i, row in enumerate(x):
        scores = [row @ other / np.linalg.norm(row) / np.linalg.norm(other) for other in y]
        order = [j for j in np.argsort(scores)[::-1] if not (leave_out and i == j)]
        hits += any(gallery.label[j] == queries.label[i] for j in order[:k])
    return hits / len(x)


def test_every_figure_is_that_of_a_loop() -> None:
    test, train = features_of(33, 1), features_of(47, 2)
    found = dict(within.evaluate(Given(train, test)))  # type: ignore[arg-type]
    for way, side in (("v2v", "video"), ("a2a", "audio")):
        for name in ("z", "pool"):
            for k in KS:
                key = f"{name}.{way}.r{k}"
                assert found[f"within.{key}"] == pytest.approx(literal(test, train, f"{side}_{name}", k))
                alone = literal(test, test, f"{side}_{name}", k, leave_out=True)
                assert found[f"within_test.{key}"] == pytest.approx(alone)
    assert len(found) == 2 * 2 * 3 * len(KS)


def test_left_out_rows_are_never_their_own_neighbours() -> None:
    x, alone = draw(9, 4), torch.arange(9)
    assert recall(x, x, alone, alone, (1, 9)) == {1: 1.0, 9: 1.0}
    assert recall(x, x, alone, alone, (1, 9), leave_out=True) == {1: 0.0, 9: 0.0}
    assert chance(alone, alone, (1, 9), leave_out=True) == {1: 0.0, 9: 0.0}
    pairs = torch.arange(10) // 2
    doubled = draw(5, 4)[pairs]  # two equal rows a class
    assert recall(doubled, doubled, pairs, pairs, (1,), leave_out=True, block=20) == {1: 1.0}


def test_chance_of_the_left_out_is_that_of_constant_features() -> None:
    label = torch.tensor([0] * 7 + [1] * 4 + [2])
    same = torch.ones(12, 3)
    expected = recall(same, same, label, label, KS, leave_out=True)
    assert chance(label, label, KS, leave_out=True) == pytest.approx(expected)
    assert expected[1] == pytest.approx((7 * 6 + 4 * 3) / 12 / 11)


def test_one_modality_and_none() -> None:
    test, train = features_of(10, 1), features_of(10, 2)
    silent = [Features(f.sample_id, f.label, {"video_z": f["video_z"]}) for f in (train, test)]
    found = dict(within.evaluate(Given(*silent)))  # type: ignore[arg-type]
    assert {key.split(".")[2] for key in found} == {"v2v", "chance"}
    bare = [Features(f.sample_id, f.label, {}) for f in (train, test)]
    with pytest.raises(EvalError, match="within: the method has no features"):
        list(within.evaluate(Given(*bare)))  # type: ignore[arg-type]
    nameless = Features(train.sample_id, torch.full((10,), -1), train.values)
    with pytest.raises(EvalError, match="within: no recording of split 'train' has a label"):
        list(within.evaluate(Given(nameless, test)))  # type: ignore[arg-type]
